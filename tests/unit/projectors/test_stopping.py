"""A handler stops when it is told to, whatever it is doing."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, NoReturn

from ceqs.errors import Unavailable
from ceqs.projectors._worker import Worker


class Failing(Worker):
    """Its work fails beside something that takes its time to end."""

    def __init__(self) -> None:
        tail: Any = SimpleNamespace(log_id="", head=0, problem="", link=SimpleNamespace(context="orders"))
        handler: Any = SimpleNamespace(name="failing", kind="subscriber", version=1)
        place: Any = "its place"
        super().__init__(handler, place, tail, lambda *_: NotImplemented, lease=10)
        self.ending, self.may_end = asyncio.Event(), asyncio.Event()

    async def _work(self) -> NoReturn:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._beside())
            await asyncio.sleep(0)
            raise Unavailable("the service is down")
        raise AssertionError

    async def _beside(self) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            self.ending.set()
            await self.may_end.wait()


async def test_who_is_told_to_stop_while_its_work_fails_stops() -> None:
    """The group of tasks that ends for the failure does not hand on that it was cancelled meanwhile."""
    worker = Failing()
    running = asyncio.create_task(worker.run())
    await worker.ending.wait()
    running.cancel()
    await asyncio.sleep(0)
    worker.may_end.set()
    done, _ = await asyncio.wait([running], timeout=10)
    running.cancel()
    assert done
    assert running.cancelled()
