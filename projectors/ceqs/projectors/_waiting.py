"""Waiting until a place has got somewhere: one look at it for all who wait."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from ceqs.errors import Unavailable

FASTEST, SLOWEST = 0.001, 0.02
"""Seconds between two looks while somebody waits."""
PART = 0.1
"""Of the time that has passed in vain: so much the next look is late by, at most."""


class Waiting:
    """Wakes those who wait for a position. `look` says where the place stands; it may raise Unavailable meanwhile."""

    def __init__(self, look: Callable[[], Awaitable[int]], name: str) -> None:
        self._look = look
        self._name = name
        self._seen = 0
        self._since = 0.0
        self._waiting: dict[asyncio.Future[None], int] = {}
        self._task: asyncio.Task[None] | None = None

    async def reach(self, position: int, timeout: float) -> bool:  # noqa: ASYNC109  # a bound, not a cancellation
        """Wait until the place has a position, at most `timeout` seconds. Say whether it has."""
        if self._seen >= position:
            return True
        reached: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[reached] = position
        self._since = time.monotonic()
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._follow(), name=f"follow {self._name}")
        try:
            await asyncio.wait([reached], timeout=timeout)
            return reached.done() and reached.result() is None
        finally:
            del self._waiting[reached]

    def advance(self, position: int) -> None:
        """Say that the place has been seen there."""
        if position > self._seen:
            self._seen, self._since = position, time.monotonic()
        for reached, wanted in self._waiting.items():
            if wanted <= self._seen and not reached.done():
                reached.set_result(None)

    async def close(self) -> None:
        """Stop looking. Those who wait are told Unavailable."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self._fail(Unavailable(f"the reader of {self._name} is closed"))

    async def _follow(self) -> None:
        try:
            while self._waiting:
                try:
                    self.advance(await self._look())
                except Unavailable:
                    # Also a place that is yet to be made. Those who wait have a bound.
                    await asyncio.sleep(SLOWEST)
                pause = PART * (time.monotonic() - self._since)
                await asyncio.sleep(min(max(FASTEST, pause), SLOWEST))
        except Exception as error:  # noqa: BLE001  # it is theirs who wait, who raise it
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        for reached in self._waiting:
            if not reached.done():
                reached.set_exception(error)
