"""Judging the entries of a batch, in order, each against the log and against what the batch accepted before it."""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Protocol, TypeAlias

from ceqs.contract import varint
from ceqs.errors import CeqsError, Conflict, DuplicateCommand, Expired, OutOfRange
from ceqs.log._kept import KeptRow, to_row
from ceqs.log._prepare import Prepared
from ceqs.log._records import Records, envelope
from ceqs.log._times import to_micros
from ceqs.log._types import Appended, Condition, Entry, Head, NewEvent
from ceqs.model import item_matches

Outcome: TypeAlias = Appended | CeqsError


EventRow: TypeAlias = tuple[int, int | None, str, str, int, int, str, bytes]
"""An event as the log stores it, in the order of the table's columns.

Position, public position (None for a private event), id, type, bucket, when it was recorded (microseconds since 1970,
UTC), command id, envelope. A tuple with names takes several times as long to make.
"""

TagRow: TypeAlias = tuple[int, str, int, str]
"""A tag of an event, in the order of the table's columns: generation, tag, position, type."""


CommandRow: TypeAlias = tuple[str, bytes, bool, int, int, bytes, bytes]
"""An accepted command as the log stores it, in the order of the table's columns.

Command id, content hash, whether the id was derived, position, when it was recorded (as above), receipt, response.
"""


@dataclass(slots=True)
class Verdict:
    """What became of a batch: an outcome for each entry, and the rows to insert."""

    head: Head
    """Where the log stands once the rows are inserted."""
    outcomes: list[Outcome] = field(default_factory=list[Outcome])
    events: list[EventRow] = field(default_factory=list[EventRow])
    tags: list[TagRow] = field(default_factory=list[TagRow])
    commands: dict[str, CommandRow] = field(default_factory=dict[str, CommandRow])
    keeps: dict[tuple[str, str], KeptRow] = field(default_factory=dict[tuple[str, str], KeptRow])


class Ledger(Protocol):
    """The stored log while its lock is held."""

    @property
    def generation(self) -> int:
        """Which tags count."""
        ...

    def head(self) -> Head:
        """Say where the log stands."""
        ...

    def commands(self, command_ids: Collection[str]) -> Mapping[str, CommandRow]:
        """Give those of the commands that were accepted before."""
        ...

    def moved(self, conditions: Mapping[int, Condition]) -> Collection[int]:
        """Give the keys of the conditions that a stored event fails."""
        ...


def settle(ledger: Ledger, batch: Sequence[Prepared], *, again: bool, now: dt.datetime, monotonic: float) -> Verdict:
    """Judge a batch. To be called under the log's lock, in the transaction that then stores what is accepted.

    `again`: the batch may have been stored already. `now` is the time on the log's clock, `monotonic` that on the clock
    of `Entry.expires`.
    """
    head = ledger.head()
    ids, conditions = set[str](), dict[int, Condition]()
    for i, (entry, invalid) in enumerate(chain.from_iterable(batch)):
        if invalid:
            continue
        if again or not entry.assigned:
            ids.add(entry.command_id)
        if (condition := entry.condition) and condition.after < head.position:
            conditions[i] = condition
    return judge(
        batch,
        head,
        generation=ledger.generation,
        known=ledger.commands(ids) if ids else {},
        moved=ledger.moved(conditions) if conditions else (),
        now=now,
        monotonic=monotonic,
    )


def judge(
    batch: Sequence[Prepared],
    head: Head,
    *,
    generation: int,
    known: Mapping[str, CommandRow],
    moved: Collection[int],
    now: dt.datetime,
    monotonic: float,
) -> Verdict:
    """Give the outcome of each entry. Pure.

    The order of the questions is the promise: a repeated command gets its first receipt whatever happened since, so its
    id is looked up before its deadline and its condition are judged.
    """
    book = _Book(head, generation, now)
    outcomes, commands = book.verdict.outcomes, book.verdict.commands
    accepted = _Proposed()
    for group in batch:
        # What its own group appended before it, the decision knows; it must not know what was not appended.
        own: list[NewEvent] = []
        lost: _Proposed | None = None
        for i, (entry, invalid) in enumerate(group, len(outcomes)):
            condition = entry.condition
            first = known.get(entry.command_id) or commands.get(entry.command_id)
            if invalid:
                outcome: Outcome = invalid
            elif first:
                outcome = repeated(first, entry.content_hash, derived=entry.derived)
            elif entry.expires is not None and entry.expires <= monotonic:
                outcome = Expired()
            elif condition and condition.after > book.position:
                outcome = OutOfRange(
                    f"the log ends at {book.position}, so nothing can be known up to {condition.after}; "
                    "was it restored from a backup?"
                )
            elif condition and (i in moved or accepted.hold(condition) or (lost and lost.hold(condition))):
                outcome = Conflict()
            else:
                outcomes.append(book.accept(entry))
                own += entry.events
                continue
            lost = lost or _Proposed()
            lost.add(entry.events)
            outcomes.append(outcome)
        if group is not batch[-1]:
            accepted.add(own)
    return book.close()


def repeated(first: CommandRow, content_hash: bytes, *, derived: bool) -> Appended | DuplicateCommand:
    """Give what a command was accepted with, or DuplicateCommand where the id now stands for something else."""
    command_id, first_hash, _, _, _, receipt, response = first
    if not derived and first_hash != content_hash:
        return DuplicateCommand(metadata={"command_id": command_id})
    return Appended.of(receipt, response, repeated=True)


class _Book:
    """What is accepted of a batch."""

    def __init__(self, head: Head, generation: int, now: dt.datetime) -> None:
        self.position, self._public_position = head.position, head.public_position
        self.verdict = Verdict(head)
        self._head, self._generation = head, generation
        # Time may stand still in the log, but it never runs back.
        self._time = max(now, head.recorded_at) if head.recorded_at else now
        self._micros = to_micros(self._time)
        self._records = Records(head.log_id, self._time)

    def accept(self, entry: Entry) -> Appended:
        """Take an entry: number its events, and write what is stored of it."""
        verdict, records, command_id = self.verdict, self._records, entry.command_id
        position, public_position, number = self.position, 0, b""
        if entry.events:
            origin, depth = records.origin(entry), entry.causation_depth
            for event in entry.events:
                position += 1
                number, public = varint(position), None
                if event.public:
                    public = public_position = self._public_position = self._public_position + 1
                raw = envelope(event, number, public, origin, depth)
                kind, bucket = event.type, event.bucket
                verdict.events.append((position, public, event.id, kind, bucket, self._micros, command_id, raw))
                for tag in event.tags if len(event.tags) < 2 else dict.fromkeys(event.tags):
                    verdict.tags.append((self._generation, tag, position, kind))
            self.position = position
            if entry.keeps and entry.condition:
                verdict.keeps[entry.keeps.state, entry.keeps.tag] = to_row(entry.keeps, position)
        else:
            number = varint(position)
            if position == self._head.position:
                # What appends nothing was recorded, as it were, with the last event.
                records = Records(self._head.log_id, self._head.recorded_at)
        raw, response = records.receipt(entry, position, number, public_position), entry.response
        if entry.events or entry.remember:
            row = command_id, entry.content_hash, entry.derived, position, self._micros, raw, response
            verdict.commands[command_id] = row
        return Appended(raw, position, response)

    def close(self) -> Verdict:
        """Give what became of the batch."""
        if self.verdict.events:
            head = self._head
            self.verdict.head = Head(head.log_id, self.position, self._public_position, self._time, head.epoch)
        return self.verdict


class _Proposed:
    """Events of a batch by tag, so that no condition scans them all."""

    def __init__(self) -> None:
        self._events: list[NewEvent] = []
        self._by_tag: dict[str, list[NewEvent]] = {}

    def add(self, events: Iterable[NewEvent]) -> None:
        for event in events:
            self._events.append(event)
            for tag in event.tags:
                self._by_tag.setdefault(tag, []).append(event)

    def hold(self, condition: Condition) -> bool:
        """Whether any of them matches the condition's query."""
        if not self._events:
            return False
        items = condition.query.items
        return not items or any(
            item_matches(item, event.type, event.tags)
            for item in items
            for event in (self._by_tag.get(min(item.tags), ()) if item.tags else self._events)
        )
