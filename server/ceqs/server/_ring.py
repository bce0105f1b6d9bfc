"""The newest events of a log, kept in memory for those who follow it: bounded in number and size."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from ceqs.log import Head, StoredEvent, splice
from ceqs.model import Query, matches

MOST_EVENTS = 10_000
MOST_BYTES = 16 * 1024 * 1024
"""How much the ring keeps; its newest chunk is kept whatever its size."""
MESSAGE_BYTES = 256 * 1024
"""How much of what was recorded in steps is put into one message."""
_NOTHING: frozenset[str] = frozenset()


class Found(NamedTuple):
    """Ready bytes of the events that match, and the position through which the ring was examined."""

    data: bytes
    through: int


@dataclass(frozen=True, slots=True)
class Chunk:
    """Events that were read together: those of the positions above `after` and up to `through`.

    Both are pairs of a position and a public position. `tags` has those of the events' tags that anybody asks for, by
    position.
    """

    after: tuple[int, int]
    through: tuple[int, int]
    events: Sequence[StoredEvent]
    tags: Mapping[int, frozenset[str]]
    _spliced: dict[bool, bytes] = field(default_factory=dict[bool, bytes])

    def batch(self, after: int, query: Query, *, public: bool) -> bytes:
        """Give the bytes of the events after a position that match. All who want the whole chunk share them."""
        if query.items or after > self.after[public]:
            return splice([event.envelope for event in self.events if self._matches(event, after, query, public)])
        if public not in self._spliced:
            self._spliced[public] = splice(
                [event.envelope for event in self.events if event.public_position or not public]
            )
        return self._spliced[public]

    def _matches(self, event: StoredEvent, after: int, query: Query, public: bool) -> bool:
        number = event.public_position if public else event.position
        return number > after and matches(query, event.type, self.tags.get(event.position, _NOTHING))


class Ring:
    """The end of a log from some position on. Events are added at the end and dropped from the beginning."""

    def __init__(self, head: Head) -> None:
        self._chunks: list[Chunk] = []
        self._through = head.position, head.public_position
        self._events = self._bytes = 0

    def begin(self, *, public: bool) -> int:
        """Give the position after which it has the events."""
        return self._chunks[0].after[public] if self._chunks else self._through[public]

    def through(self, *, public: bool) -> int:
        """Give the position up to which it has the events."""
        return self._through[public]

    def add(self, events: Sequence[StoredEvent], tags: Mapping[int, frozenset[str]]) -> None:
        """Add the next events of the log, and drop the oldest ones where they are too many."""
        public = max(event.public_position for event in events)
        through = events[-1].position, max(self._through[True], public)
        self._chunks.append(Chunk(self._through, through, events, tags))
        self._through = through
        self._events += len(events)
        self._bytes += _size(events)
        dropped = 0
        while (self._events > MOST_EVENTS or self._bytes > MOST_BYTES) and dropped < len(self._chunks) - 1:
            self._events -= len(self._chunks[dropped].events)
            self._bytes -= _size(self._chunks[dropped].events)
            dropped += 1
        del self._chunks[:dropped]

    def after(self, position: int, query: Query, *, public: bool) -> Found:
        """Give the events after a position, or the next of them where they are many; it is not before the beginning."""
        parts: list[bytes] = []
        size = 0
        first = bisect_right(self._chunks, position, key=lambda chunk: chunk.through[public])
        for index in range(first, len(self._chunks)):
            chunk = self._chunks[index]
            data = chunk.batch(position, query, public=public)
            if parts and size + len(data) > MESSAGE_BYTES:
                break
            parts.append(data)
            size += len(data)
            position = chunk.through[public]
        return Found(b"".join(parts), position)


def _size(events: Sequence[StoredEvent]) -> int:
    return sum(len(event.envelope) for event in events)
