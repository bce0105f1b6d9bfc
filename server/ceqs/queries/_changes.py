"""Which boundaries move: one look at the log's tags per move of its head, however many wait."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from contextlib import contextmanager

from ceqs.log import LogReader, Reached
from ceqs.model import Boundary

IDLE = 30.0
"""How long, in seconds, it waits before it looks at the log again by itself."""


class Mark:
    """Where a boundary has moved last, as far as that is known."""

    def __init__(self, tags: frozenset[str]) -> None:
        self.tags = tags
        self._last = Reached()
        self._error: Exception | None = None

    async def beyond(self, position: int) -> None:
        """Wait until the boundary has moved beyond a position. Raises LogUnavailable."""
        if self._error is not None and self._last.position <= position:
            raise self._error
        await self._last.beyond(position)

    def move(self, position: int) -> None:
        """Say that the boundary has moved there."""
        self._last.advance(position)

    def fail(self, error: Exception) -> None:
        """Say that nobody knows any more."""
        self._error = error
        self._last.fail(error)


class Changes:
    """Follows a log for the boundaries that are watched.

    A mark may move although nothing of its boundary was recorded, but of the same tag; it never stays where something
    was.
    """

    def __init__(self, log: LogReader) -> None:
        self._log = log
        self._marks: set[Mark] = set()
        self._task: asyncio.Task[None] | None = None

    @contextmanager
    def watching(self, boundary: Boundary | None) -> Generator[Mark]:
        """Give a mark that moves with a boundary, or with the log where that is None."""
        # The tags of a boundary that code has drawn say less than its query.
        tags = frozenset[str]() if boundary is None or boundary.tailored else frozenset(boundary.tags)
        mark = Mark(tags)
        self._marks.add(mark)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._follow())
        try:
            yield mark
        finally:
            self._marks.discard(mark)
            if not self._marks:
                self._stop()

    def _stop(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            task.cancel()

    async def _follow(self) -> None:
        try:
            at = (await self._log.head()).position
            # What was recorded before they were watched is for those to know who watch.
            for mark in self._marks:
                mark.move(at)
            while True:
                head = await self._log.wait(at, IDLE)
                if head > at:
                    await self._move(at, head)
                    at = head
        except Exception as error:  # noqa: BLE001  # it is theirs who wait, who raise it
            for mark in self._marks:
                mark.fail(error)

    async def _move(self, after: int, head: int) -> None:
        moved: dict[str, int] = {}
        asked = set[str]()
        # Whoever joins meanwhile counts on these events too.
        while missing := {tag for mark in self._marks for tag in mark.tags} - asked:
            for position, tag in await self._log.tagged(list(missing), after, head):
                moved[tag] = max(position, moved.get(tag, 0))
            asked |= missing
        for mark in self._marks:
            last = max((moved.get(tag, 0) for tag in mark.tags), default=head)
            if last:
                mark.move(last)
