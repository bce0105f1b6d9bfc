"""The log in memory, for tests."""

from __future__ import annotations

import datetime as dt
import time
from bisect import bisect_left
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import replace
from itertools import islice

from ceqs.contract import Contract
from ceqs.errors import DuplicateCommand
from ceqs.log._follower import Follower
from ceqs.log._identity import new_log_id, next_epoch, refuse_another
from ceqs.log._judge import CommandRow, Outcome, Verdict, repeated, settle
from ceqs.log._kept import KeptRow, to_kept
from ceqs.log._prepare import Prepared
from ceqs.log._published import Published, farthest, next_round
from ceqs.log._retention import PURGED, Promise, is_promised, next_promise, purged
from ceqs.log._span import splice, to_slice, up_to
from ceqs.log._times import to_micros
from ceqs.log._types import (
    BEYOND,
    Appended,
    Batch,
    Condition,
    Entry,
    Head,
    Kept,
    Progress,
    Purged,
    Slice,
    Span,
    StateKey,
    StoredEvent,
    Wanted,
)
from ceqs.log._writer import Judged, Writer
from ceqs.model import ALL, Query, matches


class MemoryLog:
    """A log that lasts as long as the object."""

    company = 0.0

    def __init__(self, name: str, *, clock: Callable[[], dt.datetime], max_waiting: int) -> None:
        self._name = name
        self._clock = clock
        self._log_id = new_log_id()
        self._ledger = _MemoryLedger(self._log_id)
        self._follower = Follower(self._ledger.head())
        self._writer = Writer(self._commit, max_waiting=max_waiting)

    @property
    def name(self) -> str:
        """The log's name."""
        return self._name

    @property
    def log_id(self) -> str:
        """Made when the log is created."""
        return self._log_id

    async def head(self) -> Head:
        """Say where the log stands."""
        return refuse_another(self._name, self._log_id, self._ledger.head())

    async def read(
        self,
        *,
        after: int = 0,
        limit: int = 1000,
        query: Query = ALL,
        public: bool = False,
        until: int | None = None,
        backwards: bool = False,
    ) -> Slice:
        """Read stored events after a position; see LogReader."""
        end = BEYOND if until is None else until
        return self._ledger.read(
            Span(after=after, until=end, limit=limit, query=query, public=public, backwards=backwards)
        )

    async def read_batch(self, span: Span) -> Batch:
        """Read as ready bytes; see LogReader."""
        found = self._ledger.read(span)
        return Batch(splice([event.envelope for event in found.events]), len(found.events), found.through)

    async def position_before(self, time: dt.datetime, *, public: bool = False) -> int:
        """Give the last position that was recorded before a time; see LogReader."""
        return self._ledger.position_before(time, public=public)

    async def tagged(self, tags: Sequence[str], after: int, until: int) -> Sequence[tuple[int, str]]:
        """Give which of the positions carry which of the tags; see LogReader."""
        return self._ledger.tagged(tags, after, until)

    async def read_all(self, wanted: Sequence[Wanted]) -> Sequence[Slice]:
        """Read several histories at once; see LogReader."""
        return [self._ledger.read(Span(after=one.after, query=one.query)) for one in wanted]

    async def kept(self, wanted: Sequence[StateKey]) -> Sequence[Kept | None]:
        """Read kept states; see LogReader."""
        return [self._ledger.kept(key) for key in wanted]

    async def wait(self, after: int, timeout: float, *, public: bool = False) -> int:  # noqa: ASYNC109  # a bound, not a cancellation
        """Wait until the head's position is beyond `after`; see LogReader."""
        return await self._follower.wait(after, timeout, public=public)

    async def append(self, entry: Entry) -> Appended:
        """Append the events of one command; see Log."""
        return await self._writer.append(entry)

    async def append_all(self, entries: Sequence[Entry], progress: Progress | None = None) -> Sequence[Outcome]:
        """Append the events of several commands at once; see Log."""
        return await self._writer.append_all(entries, progress)

    def holding(self, keys: Collection[str]) -> AbstractAsyncContextManager[None]:  # see Log
        """Keep nobody waiting: no other process writes."""
        return nullcontext()

    async def declare(self, contract: Contract) -> Sequence[str]:  # see Log
        """Find nothing to be tagged anew: all that is here was appended by this process."""
        return ()

    async def remembers(self) -> int | None:
        """Give for how many days the ids of commands are remembered; see LogReader."""
        return self._ledger.promises[-1].days if self._ledger.promises else None

    async def remember(self, days: int | None, *, shorten: bool = False) -> None:
        """Promise to remember the ids of commands for so many days; see Log."""
        self._ledger.promise(days, shorten=shorten, name=self._name)

    async def purge(self, after: str = "", *, dry_run: bool = False) -> Purged:
        """Forget commands that nothing is promised to any more; see Log."""
        return self._ledger.purge(after, to_micros(self._clock()), dry_run=dry_run)

    async def published(self, publisher: str, told: Published | None = None) -> Published:
        """Give how far a publisher has published; see Log."""
        known = farthest(self._ledger.publishers.get(publisher, Published()), told)
        self._ledger.publishers[publisher] = known
        return known

    async def publishers(self) -> Sequence[str]:
        """Give the publishers that have published; see Log."""
        return sorted(name for name, known in self._ledger.publishers.items() if known != Published())

    async def publish_again(self, publisher: str) -> Published:
        """Have a publisher begin once more; see Log."""
        begun = next_round(self._ledger.publishers.get(publisher, Published()))
        self._ledger.publishers[publisher] = begun
        return begun

    async def begin_epoch(self, *, after: int = 0, renew: bool = False) -> Head:
        """Begin the next epoch of the log's streams; see Log."""
        return self._ledger.begin_epoch(after, renew=renew)

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

    async def _commit(self, batch: Sequence[Prepared], judged: Judged, *, ahead: bool) -> Sequence[Outcome]:
        # Nothing takes long here, so nobody is told before it is recorded, and nothing goes ahead.
        refuse_another(self._name, self._log_id, self._ledger.head())
        verdict = settle(self._ledger, batch, again=False, now=self._clock(), monotonic=time.monotonic())
        self._ledger.insert(verdict)
        self._follower.advance(verdict.head.position, verdict.head.public_position)
        return verdict.outcomes


class _MemoryLedger:
    """Everything the log holds."""

    generation = 1

    def __init__(self, log_id: str) -> None:
        self._head = Head(log_id)
        self._events: list[tuple[StoredEvent, frozenset[str]]] = []
        self._public: list[tuple[StoredEvent, frozenset[str]]] = []
        self._times: list[int] = []
        self._public_times: list[int] = []
        self._commands: dict[str, CommandRow] = {}
        self.promises: list[Promise] = []
        self.publishers: dict[str, Published] = {}
        self._states: dict[tuple[str, str], KeptRow] = {}

    def head(self) -> Head:
        return self._head

    def begin_epoch(self, after: int, *, renew: bool) -> Head:
        log_id = new_log_id() if renew else self._head.log_id
        self._head = replace(self._head, epoch=next_epoch(self._head, after), log_id=log_id)
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
        self._states |= verdict.keeps
        for position, public_position, _, event_type, _, recorded_at, _, envelope in verdict.events:
            tags = frozenset(tag for _, tag, tagged, _ in verdict.tags if tagged == position)
            stored = StoredEvent(position, public_position or 0, event_type, envelope), tags
            self._events.append(stored)
            self._times.append(recorded_at)
            if public_position:
                self._public.append(stored)
                self._public_times.append(recorded_at)

    def read(self, span: Span) -> Slice:
        events = self._public if span.public else self._events
        span = up_to(span, len(events))
        positions = range(span.after, span.until)
        found = (events[i] for i in (reversed(positions) if span.backwards else positions))
        return to_slice(span, (event for event, tags in found if matches(span.query, event.type, tags)))

    def kept(self, key: StateKey) -> Kept | None:
        return to_kept(self._states.get((key.state, key.tag)), key)

    def position_before(self, time: dt.datetime, *, public: bool) -> int:
        return bisect_left(self._public_times if public else self._times, to_micros(time))

    def tagged(self, tags: Sequence[str], after: int, until: int) -> Sequence[tuple[int, str]]:
        return [
            (event.position, tag)
            for event, its_tags in islice(self._events, after, until)
            for tag in its_tags.intersection(tags)
        ]

    def promise(self, days: int | None, *, shorten: bool, name: str) -> None:
        last = max((recorded_at for *_, recorded_at, _, _ in self._commands.values()), default=None)
        if added := next_promise(days, self.promises, last, shorten=shorten, name=name):
            self.promises.append(added)

    def purge(self, after: str, now: int, *, dry_run: bool) -> Purged:
        examined = sorted(command_id for command_id in self._commands if command_id > after)[:PURGED]
        rows = [self._commands[command_id] for command_id in examined]
        lapsed = [
            command_id
            for command_id, _, derived, _, recorded_at, *_ in rows
            if not (derived or is_promised(recorded_at, self.promises, now))
        ]
        for command_id in () if dry_run else lapsed:
            del self._commands[command_id]
        return purged(examined, lapsed)
