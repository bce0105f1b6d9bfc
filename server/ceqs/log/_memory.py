"""The log in memory, for tests."""

from __future__ import annotations

import datetime as dt
import time
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from itertools import islice

from ceqs.errors import DuplicateCommand
from ceqs.log._follower import Follower
from ceqs.log._judge import CommandRow, Outcome, Verdict, repeated, settle
from ceqs.log._prepare import Prepared
from ceqs.log._types import (
    MAX_SLICE_BYTES,
    Appended,
    Condition,
    Entry,
    Head,
    Slice,
    StoredEvent,
    Wanted,
)
from ceqs.log._writer import Writer
from ceqs.model import ALL, Query, matches


class MemoryLog:
    """A log that lasts as long as the object."""

    def __init__(self, name: str, *, clock: Callable[[], dt.datetime], max_waiting: int) -> None:
        self._name = name
        self._clock = clock
        self._ledger = _MemoryLedger(uuid.uuid4().hex)
        self._follower = Follower(0)
        self._writer = Writer(self._commit, max_waiting=max_waiting)

    @property
    def name(self) -> str:
        """The log's name."""
        return self._name

    @property
    def log_id(self) -> str:
        """Made when the log is created."""
        return self._ledger.head().log_id

    async def head(self) -> Head:
        """Say where the log stands."""
        return self._ledger.head()

    async def read(
        self, *, after: int = 0, limit: int = 1000, query: Query = ALL, public: bool = False, until: int | None = None
    ) -> Slice:
        """Read stored events after a position; see LogReader."""
        return self._ledger.read(after, limit, query, public=public, until=until)

    async def read_all(self, wanted: Sequence[Wanted]) -> Sequence[Slice]:
        """Read several histories at once; see LogReader."""
        return [self._ledger.read(one.after, 1000, one.query, public=False, until=None) for one in wanted]

    async def wait(self, after: int, timeout: float) -> int:  # noqa: ASYNC109  # a bound, not a cancellation
        """Wait until the head's position is beyond `after`; see LogReader."""
        return await self._follower.wait(after, timeout)

    async def append(self, entry: Entry) -> Appended:
        """Append the events of one command; see Log."""
        return await self._writer.append(entry)

    async def append_all(self, entries: Sequence[Entry]) -> Sequence[Outcome]:
        """Append the events of several commands at once; see Log."""
        return await self._writer.append_all(entries)

    def holding(self, keys: Collection[str]) -> AbstractAsyncContextManager[None]:  # see Log
        """Keep nobody waiting: no other process writes."""
        return nullcontext()

    async def find(self, command_id: str, content_hash: bytes, *, derived: bool = False) -> Appended | None:
        """Give what the command id was accepted with; see Log."""
        first = self._ledger.commands([command_id]).get(command_id)
        if first is None:
            return None
        outcome = repeated(first, content_hash, derived=derived)
        if isinstance(outcome, DuplicateCommand):
            raise outcome
        return outcome

    async def close(self) -> None:
        """End the log's work."""
        await self._writer.close()
        await self._follower.close()

    async def _commit(self, batch: Sequence[Prepared]) -> Sequence[Outcome]:
        verdict = settle(self._ledger, batch, now=self._clock(), monotonic=time.monotonic())
        self._follower.advance(verdict.head.position)
        return verdict.outcomes


class _MemoryLedger:
    """Everything the log holds."""

    def __init__(self, log_id: str) -> None:
        self._head = Head(log_id)
        self._events: list[tuple[StoredEvent, frozenset[str]]] = []
        self._public: list[tuple[StoredEvent, frozenset[str]]] = []
        self._commands: dict[str, CommandRow] = {}

    def head(self) -> Head:
        return self._head

    def commands(self, command_ids: Collection[str]) -> Mapping[str, CommandRow]:
        return {i: self._commands[i] for i in command_ids if i in self._commands}

    def moved(self, conditions: Mapping[int, Condition]) -> Collection[int]:
        return [
            key
            for key, condition in conditions.items()
            if any(
                matches(condition.query, event.type, tags)
                for event, tags in islice(self._events, condition.after, None)
            )
        ]

    def insert(self, verdict: Verdict) -> None:
        self._head = verdict.head
        self._commands |= verdict.commands
        for row in verdict.events:
            tags = frozenset(tag.tag for tag in verdict.tags if tag.position == row.position)
            stored = StoredEvent(row.position, row.public_position or 0, row.type, row.envelope), tags
            self._events.append(stored)
            if row.public_position:
                self._public.append(stored)

    def read(self, after: int, limit: int, query: Query, *, public: bool, until: int | None) -> Slice:
        events = self._public if public else self._events
        end = len(events) if until is None else min(until, len(events))
        found: list[StoredEvent] = []
        size = 0
        for event in self._matching(events, after, end, query):
            size += len(event.envelope)
            if len(found) == limit or (found and size > MAX_SLICE_BYTES):
                last = found[-1]
                return Slice(found, last.public_position if public else last.position)
            found.append(event)
        return Slice(found, max(after, end))

    @staticmethod
    def _matching(
        events: Sequence[tuple[StoredEvent, frozenset[str]]], after: int, end: int, query: Query
    ) -> Iterator[StoredEvent]:
        return (event for event, tags in islice(events, after, end) if matches(query, event.type, tags))
