"""Waiting until a place has got somewhere: one look at it for all who wait."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable

from ceqs.errors import Unavailable
from ceqs.log import Reached
from ceqs.projectors._place import Place

FASTEST, SLOWEST = 0.001, 0.02
"""Seconds between two looks while somebody waits."""
PART = 0.03
"""Of the time that has passed in vain: so much the next look is late by, at most."""


class Waiting:
    """Wakes those who wait for a position. `look` says where the place stands; it may raise Unavailable meanwhile.

    `stamp` says cheaply what was when the place was written last, such as `written` does; None where nobody knows.
    """

    def __init__(
        self, look: Callable[[], Awaitable[int]], name: str, stamp: Callable[[], object] = lambda: None
    ) -> None:
        self._look = look
        self._name = name
        self._stamp = stamp
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
                # What is written from here on, this look may miss, and the next one does not.
                before = self._stamp()
                try:
                    self.advance(await self._look())
                except Unavailable:
                    # Also a place that is yet to be made. Those who wait have a bound.
                    await asyncio.sleep(SLOWEST)
                await self._pause(before)
        except Exception as error:  # noqa: BLE001  # it is theirs who wait, who raise it
            self._seen.fail(error)

    async def _pause(self, before: object) -> None:
        """Wait until another look may find something."""
        if before is None:
            await asyncio.sleep(min(max(FASTEST, PART * (time.monotonic() - self._since)), SLOWEST))
            return
        # A file may be written twice within a tick of its clock, so nobody relies on that alone.
        until = time.monotonic() + SLOWEST
        while self._seen.awaited and self._stamp() == before and time.monotonic() < until:  # noqa: ASYNC110  # written elsewhere
            await asyncio.sleep(FASTEST)


def written(place: Place | None) -> object:
    """Say what was when a place was written last, at the price of a glance at its file; None where it has none."""
    if place is None or place.path is None:
        return None
    try:
        log = os.stat(f"{place.path}-wal")
    except OSError:
        return None
    return log.st_mtime_ns, log.st_size
