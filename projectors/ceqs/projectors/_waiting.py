"""Waiting until a place has got somewhere: one look at it for all who wait."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from ceqs.errors import Unavailable
from ceqs.log import Reached

FASTEST, SLOWEST = 0.001, 0.02
"""Seconds between two looks while somebody waits."""
PART = 0.1
"""Of the time that has passed in vain: so much the next look is late by, at most."""


class Waiting:
    """Wakes those who wait for a position. `look` says where the place stands; it may raise Unavailable meanwhile."""

    def __init__(self, look: Callable[[], Awaitable[int]], name: str) -> None:
        self._look = look
        self._name = name
        self._seen = Reached()
        self._since = 0.0
        self._task: asyncio.Task[None] | None = None

    async def reach(self, position: int, timeout: float) -> bool:  # noqa: ASYNC109  # a bound, not a cancellation
        """Wait until the place has a position, at most `timeout` seconds. Say whether it has."""
        if self._seen.position < position:
            self._since = time.monotonic()
            if self._task is None or self._task.done():
                self._task = asyncio.create_task(self._follow(), name=f"follow {self._name}")
        return await self._seen.beyond(position - 1, timeout)

    def advance(self, position: int) -> None:
        """Say that the place has been seen there."""
        if position > self._seen.position:
            self._since = time.monotonic()
        self._seen.advance(position)

    async def close(self) -> None:
        """Stop looking. Those who wait are told Unavailable."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self._seen.fail(Unavailable(f"the reader of {self._name} is closed"))

    async def _follow(self) -> None:
        try:
            while self._seen.awaited:
                try:
                    self.advance(await self._look())
                except Unavailable:
                    # Also a place that is yet to be made. Those who wait have a bound.
                    await asyncio.sleep(SLOWEST)
                pause = PART * (time.monotonic() - self._since)
                await asyncio.sleep(min(max(FASTEST, pause), SLOWEST))
        except Exception as error:  # noqa: BLE001  # it is theirs who wait, who raise it
            self._seen.fail(error)
