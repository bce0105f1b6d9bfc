"""A handler stops when it is told to, whatever it is doing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from types import SimpleNamespace
from typing import Any, NoReturn

import grpc
import grpc.aio
import pytest

from ceqs.errors import Unavailable
from ceqs.projectors import _tail as tails
from ceqs.projectors import _worker as workers
from ceqs.projectors._calls import LogLink
from ceqs.projectors._dispatcher import Sender
from ceqs.projectors._outbox import Outgoing
from ceqs.projectors._published import Published
from ceqs.projectors._tail import Tail
from ceqs.projectors._worker import Worker
from ceqs.testing import eventually
from ceqs.v1.events_pb2 import GetHeadResponse, Head, ReadResponse


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


class Ending:
    """A channel on which the call that is cancelled has just failed: then that is all that grpc.aio tells."""

    def __init__(self) -> None:
        self.answers: list[Any] = []
        """What is answered to the first calls."""
        self.waiting = self._failed = False

    def unary_unary(self, *_: Any, **__: Any) -> Callable[..., Awaitable[Any]]:
        return lambda *_, **__: self._answer()

    def unary_stream(self, *_: Any, **__: Any) -> Callable[..., Any]:
        return lambda *_, **__: _Stream(self._answer())

    async def _answer(self) -> Any:
        if self.answers:
            return self.answers.pop(0)
        self.waiting = True
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            if self._failed:
                raise
            self._failed = True
        raise grpc.aio.AioRpcError(grpc.StatusCode.UNAVAILABLE, grpc.aio.Metadata(), grpc.aio.Metadata(), "lost")


class _Stream:
    """A call that answers once."""

    def __init__(self, answer: Coroutine[Any, Any, Any]) -> None:
        self._answer = answer

    async def __aiter__(self) -> AsyncGenerator[Any]:
        yield await self._answer

    def cancel(self) -> None:
        """It has ended."""


async def send(channel: Any) -> None:
    await Sender(channel, "").send(Outgoing(request_id="id", path="/orders/Place", request=b""))


async def follow(channel: Any) -> None:
    async for _ in Tail(LogLink(channel, "orders", private=True), None).follow(0):
        pass


async def catch_up(channel: Any) -> None:
    channel.answers = [GetHeadResponse(head=Head(log_id="log"))]
    await follow(channel)


async def look(channel: Any) -> None:
    """What a tail has begun beside those that follow it, it ends when it is closed."""
    channel.answers = [GetHeadResponse(head=Head(log_id="log")), ReadResponse()]
    tail = Tail(LogLink(channel, "orders", private=True), None)
    following = asyncio.create_task(anext(tail.follow(0)))
    try:
        await asyncio.Event().wait()
    finally:
        await tail.close()
        following.cancel()


async def note(channel: Any) -> None:
    async def settled() -> int:
        return 1

    store: Any = SimpleNamespace(settled=settled, at=SimpleNamespace(log_id="log"), round=1)
    await Failing()._note(store, Published(channel, "", "orders", "publish-orders", ()))


@pytest.mark.parametrize("loop", [send, follow, catch_up, look, note])
async def test_whoever_calls_until_a_call_succeeds_stops_where_grpc_swallows_that_it_was_told_to(
    loop: Callable[[Any], Coroutine[Any, Any, None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "NOTE", 0)
    monkeypatch.setattr(tails, "LOOK_DEAF", 0)
    channel = Ending()
    running = asyncio.create_task(loop(channel))
    await eventually(lambda: channel.waiting or running.done())
    running.cancel()
    done, _ = await asyncio.wait([running], timeout=10)
    running.cancel()
    assert done, "it called again"
    assert running.cancelled()
