"""Following the head of a log: one task, however many wait."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from ceqs.errors import LogUnavailable
from ceqs.log._reached import Reached
from ceqs.log._types import Head

FASTEST, SLOWEST = 0.002, 0.02
"""Seconds between two looks at the head: fast after a change, slower while nothing happens."""


class Follower:
    """Wakes those who wait for the head to move.

    `poll` looks where the head stands, where another process may move it; None where only `advance` tells.
    """

    def __init__(self, head: Head, poll: Callable[[], Awaitable[Head]] | None = None) -> None:
        self._private, self._public = Reached(head.position), Reached(head.public_position)
        self._poll = poll
        self._task: asyncio.Task[None] | None = None
        self._closed = False

    def advance(self, position: int, public_position: int) -> None:
        """Say where the head stands, at least."""
        self._private.advance(position)
        self._public.advance(public_position)

    async def wait(self, after: int, timeout: float, *, public: bool = False) -> int:  # noqa: ASYNC109  # a bound, not a cancellation
        """Wait until the head is beyond `after`, at most `timeout` seconds; give its (public) position."""
        if self._closed:
            raise LogUnavailable("the log is closed")
        reached = self._public if public else self._private
        if reached.position <= after:
            if self._poll and (self._task is None or self._task.done()):
                self._task = asyncio.create_task(self._follow(self._poll))
            await reached.beyond(after, timeout)
        return reached.position

    async def close(self) -> None:
        """Stop following. Those who wait are told LogUnavailable."""
        self._closed = True
        if self._task:
            self._task.cancel()
            await asyncio.wait([self._task])
        self._fail(LogUnavailable("the log is closed"))

    async def _follow(self, poll: Callable[[], Awaitable[Head]]) -> None:
        pause = FASTEST
        while self._private.awaited or self._public.awaited:
            try:
                head = await poll()
            except Exception as error:  # noqa: BLE001  # it is theirs who wait, who raise it
                self._fail(error)
                return
            pause = FASTEST if head.position > self._private.position else min(pause * 1.3, SLOWEST)
            self.advance(head.position, head.public_position)
            await asyncio.sleep(pause)

    def _fail(self, error: Exception) -> None:
        self._private.fail(error)
        self._public.fail(error)
