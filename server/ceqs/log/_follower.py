"""Following the head of a log: one task, however many wait."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from ceqs.errors import LogUnavailable

FASTEST, SLOWEST = 0.002, 0.02
"""Seconds between two looks at the head: fast after a change, slower while nothing happens."""


class Follower:
    """Wakes those who wait for the head to move.

    `poll` looks where the head stands, where another process may move it; None where only `advance` tells.
    """

    def __init__(self, position: int, poll: Callable[[], Awaitable[int]] | None = None) -> None:
        self._position = position
        self._poll = poll
        self._waiting: dict[asyncio.Future[int], int] = {}
        self._task: asyncio.Task[None] | None = None
        self._closed = False

    def advance(self, position: int) -> None:
        """Say that the head stands at a position."""
        self._position = max(position, self._position)
        for future, after in self._waiting.items():
            if self._position > after and not future.done():
                future.set_result(self._position)

    async def wait(self, after: int, timeout: float) -> int:  # noqa: ASYNC109  # a bound, not a cancellation
        """Wait until the head is beyond `after`, at most `timeout` seconds; give its position."""
        if self._closed:
            raise LogUnavailable("the log is closed")
        if self._position > after:
            return self._position
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._waiting[future] = after
        if self._poll and (self._task is None or self._task.done()):
            self._task = asyncio.create_task(self._follow(self._poll))
        try:
            done, _ = await asyncio.wait([future], timeout=timeout)
            return future.result() if done else self._position
        finally:
            del self._waiting[future]

    async def close(self) -> None:
        """Stop following. Those who wait are told LogUnavailable."""
        self._closed = True
        if self._task:
            self._task.cancel()
            await asyncio.wait([self._task])
        self._fail(LogUnavailable("the log is closed"))

    async def _follow(self, poll: Callable[[], Awaitable[int]]) -> None:
        pause = FASTEST
        while self._waiting:
            try:
                position = await poll()
            except Exception as error:  # noqa: BLE001  # it is theirs who wait, who raise it
                self._fail(error)
                return
            pause = FASTEST if position > self._position else min(pause * 1.3, SLOWEST)
            self.advance(position)
            await asyncio.sleep(pause)

    def _fail(self, error: Exception) -> None:
        for future in self._waiting:
            if not future.done():
                future.set_exception(error)
