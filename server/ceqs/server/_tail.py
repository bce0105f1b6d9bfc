"""Following a log: one reader, however many subscribe to its events."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager

from ceqs.log import LogReader, StoredEvent
from ceqs.server._pages import LIMIT
from ceqs.server._ring import Ring

IDLE = 30.0
"""How long, in seconds, it waits at once."""


class Tail:
    """Reads what is recorded, while anybody has joined, into a ring that they share.

    A head that moves costs one read, and one more for the tags where anybody filters by tags.
    """

    def __init__(self, log: LogReader) -> None:
        self.closed = False
        """Whether the server is going away."""
        self._log = log
        self._ring: Ring | None = None
        self._joined = 0
        self._joining = asyncio.Lock()
        self._wanted: Counter[str] = Counter()
        self._waiting: set[asyncio.Future[None]] = set()
        self._task: asyncio.Task[None] | None = None

    @asynccontextmanager
    async def joined(self, tags: frozenset[str]) -> AsyncGenerator[Ring]:
        """Give the ring. From now on it knows of each event which of the tags it carries."""
        async with self._joining:
            if self._ring is None:
                self._ring = Ring(await self._log.head())
            ring = self._ring
            self._joined += 1
            self._wanted.update(tags)
        try:
            yield ring
        finally:
            self._wanted.subtract(tags)
            for tag in tags:
                if not self._wanted[tag]:
                    del self._wanted[tag]
            self._joined -= 1
            if not self._joined:
                self._ring = None
                self._stop()

    async def moved(self) -> None:
        """Wait until the ring has more events, or the tail is closed. Raises what reading the log raised."""
        if self.closed:
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.add(future)
        if self._ring is not None and (self._task is None or self._task.done()):
            self._task = asyncio.create_task(self._follow(self._ring))
        try:
            await future
        finally:
            self._waiting.discard(future)

    async def close(self) -> None:
        """Stop reading, and wake all who wait."""
        self.closed = True
        task = self._task
        self._stop()
        self._wake()
        if task is not None:
            await asyncio.wait([task])

    async def _follow(self, ring: Ring) -> None:
        try:
            while True:
                at = ring.through(public=False)
                head = await self._log.wait(at, IDLE)
                # With an end, what this process has just appended is at hand.
                events = (await self._log.read(after=at, limit=LIMIT, until=head)).events
                if events:
                    ring.add(events, await self._tags(events))
                    self._wake()
        except Exception as error:  # noqa: BLE001  # it is theirs who wait, who raise it
            self._wake(error)

    async def _tags(self, events: Sequence[StoredEvent]) -> Mapping[int, frozenset[str]]:
        first, last = events[0].position, events[-1].position
        asked, found = set[str](), defaultdict[int, set[str]](set)
        # Whoever joins meanwhile counts on these events too.
        while missing := self._wanted.keys() - asked:
            for position, tag in await self._log.tagged(list(missing), first - 1, last):
                found[position].add(tag)
            asked |= missing
        return {position: frozenset(tags) for position, tags in found.items()}

    def _wake(self, error: Exception | None = None) -> None:
        for future in self._waiting:
            if future.done():
                continue
            if error is None:
                future.set_result(None)
            else:
                future.set_exception(error)

    def _stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            self._task = None
