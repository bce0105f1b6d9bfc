"""Following the head of a log: one task, however many wait."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from ceqs.errors import LogUnavailable
from ceqs.log._reached import Reached

FASTEST, SLOWEST = 0.002, 0.02
"""Seconds between two looks at the head: fast after a change, slower while nothing happens."""


class Follower:
    """Wakes those who wait for the head to move.

    `poll` looks where the head stands, where another process may move it; None where only `advance` tells.
    """

    def __init__(self, position: int, poll: Callable[[], Awaitable[int]] | None = None) -> None:
        self._head = Reached(position)
        self._poll = poll
        self._task: asyncio.Task[None] | None = None
        self._closed = False

    def advance(self, position: int) -> None:
        """Say that the head stands at a position."""
        self._head.advance(position)

    async def wait(self, after: int, timeout: float) -> int:  # noqa: ASYNC109  # a bound, not a cancellation
        """Wait until the head is beyond `after`, at most `timeout` seconds; give its position."""
        if self._closed:
            raise LogUnavailable("the log is closed")
        if self._head.position <= after:
            if self._poll and (self._task is None or self._task.done()):
                self._task = asyncio.create_task(self._follow(self._poll))
            await self._head.beyond(after, timeout)
        return self._head.position

    async def close(self) -> None:
        """Stop following. Those who wait are told LogUnavailable."""
        self._closed = True
        if self._task:
            self._task.cancel()
            await asyncio.wait([self._task])
        self._head.fail(LogUnavailable("the log is closed"))

    async def _follow(self, poll: Callable[[], Awaitable[int]]) -> None:
        pause = FASTEST
        while self._head.awaited:
            try:
                position = await poll()
            except Exception as error:  # noqa: BLE001  # it is theirs who wait, who raise it
                self._head.fail(error)
                return
            pause = FASTEST if position > self._head.position else min(pause * 1.3, SLOWEST)
            self.advance(position)
            await asyncio.sleep(pause)
