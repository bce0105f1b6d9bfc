"""Judging the entries of a batch, in order, each against the log and against what the batch accepted before it."""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, TypeAlias

from ceqs.contract import token_of, varint
from ceqs.errors import CeqsError, Conflict, DuplicateCommand, Expired, OutOfRange
from ceqs.log._kept import KeptRow, to_row
from ceqs.log._prepare import Prepared
from ceqs.log._records import Stamp, envelope, origin, receipt
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


class CommandRow(NamedTuple):
    """An accepted command as the log stores it, in the order of the table's columns."""

    command_id: str
    content_hash: bytes
    derived: bool
    position: int
    recorded_at: int
    """Microseconds since 1970, UTC."""
    receipt: bytes
    response: bytes


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
    valid = {i: prepared.entry for i, prepared in enumerate(batch) if not prepared.invalid}
    conditions = {i: e.condition for i, e in valid.items() if e.condition and e.condition.after < head.position}
    ids = {entry.command_id for entry in valid.values() if again or not entry.assigned}
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
    accepted, lost = _Proposed(), _Proposed()
    outcomes = book.verdict.outcomes
    several = any(prepared.group != batch[0].group for prepared in batch)
    for i, prepared in enumerate(batch):
        entry, group, condition = prepared.entry, prepared.group, prepared.entry.condition
        first = known.get(entry.command_id) or book.verdict.commands.get(entry.command_id)
        if prepared.invalid:
            outcome: Outcome = prepared.invalid
        elif first:
            outcome = repeated(first, entry.content_hash, derived=entry.derived)
        elif entry.expires is not None and entry.expires <= monotonic:
            outcome = Expired()
        elif condition and condition.after > book.position:
            outcome = OutOfRange(
                f"the log ends at {book.position}, so nothing can be known up to {condition.after}; "
                "was it restored from a backup?"
            )
        elif condition and (
            i in moved
            # What its own group appended before it, the decision knows; it must not know what was not appended.
            or accepted.hold(condition, beside=group)
            or lost.hold(condition, within=group)
        ):
            outcome = Conflict()
        else:
            outcomes.append(book.accept(entry))
            if several:
                accepted.add(entry.events, group)
            continue
        lost.add(entry.events, group)
        outcomes.append(outcome)
    return book.close()


def repeated(first: CommandRow, content_hash: bytes, *, derived: bool) -> Appended | DuplicateCommand:
    """Give what a command was accepted with, or DuplicateCommand where the id now stands for something else."""
    if not derived and first.content_hash != content_hash:
        return DuplicateCommand(metadata={"command_id": first.command_id})
    return Appended.of(first.receipt, first.response, repeated=True)


class _Book:
    """What is accepted of a batch."""

    def __init__(self, head: Head, generation: int, now: dt.datetime) -> None:
        self.position, self._public_position = head.position, head.public_position
        self.verdict = Verdict(head)
        self._head, self._generation = head, generation
        # Time may stand still in the log, but it never runs back.
        self._time = max(now, head.recorded_at) if head.recorded_at else now
        self._micros = to_micros(self._time)
        self._stamp = Stamp(self._time)

    def accept(self, entry: Entry) -> Appended:
        """Take an entry: number its events, and write what is stored of it."""
        verdict, micros, command_id, before = self.verdict, self._micros, entry.command_id, self.position
        position, public_position, number = before, 0, b""
        if entry.events:
            since, depth, generation = origin(entry, self._stamp), entry.causation_depth, self._generation
            for event in entry.events:
                position += 1
                number, public = varint(position), None
                if event.public:
                    public = public_position = self._public_position = self._public_position + 1
                raw = envelope(event, number, public, since, depth)
                verdict.events.append((position, public, event.id, event.type, event.bucket, micros, command_id, raw))
                for tag in event.tags if len(event.tags) < 2 else dict.fromkeys(event.tags):
                    verdict.tags.append((generation, tag, position, event.type))
            self.position = position
            if entry.keeps and entry.condition:
                verdict.keeps[entry.keeps.state, entry.keeps.tag] = to_row(entry.keeps, position)
        else:
            number = varint(position)
        # What appends nothing was recorded, as it were, with the last event.
        stamp = self._stamp if position > self._head.position else Stamp(self._head.recorded_at)
        token = token_of(self._head.log_id, number)
        raw = receipt(entry, self._head.log_id, position, number, public_position, stamp, token)
        if entry.events or entry.remember:
            verdict.commands[command_id] = CommandRow(
                command_id, entry.content_hash, entry.derived, position, micros, raw, entry.response
            )
        first_position = before + 1 if entry.events else 0
        return Appended(raw, position, public_position, token.decode(), entry.response, first_position=first_position)

    def close(self) -> Verdict:
        """Give what became of the batch."""
        if self.verdict.events:
            head = self._head
            self.verdict.head = Head(head.log_id, self.position, self._public_position, self._time, head.epoch)
        return self.verdict


class _Proposed:
    """Events of a batch by tag, so that no condition scans them all, with the group of entries that they belong to."""

    def __init__(self) -> None:
        self._groups: set[int] = set()
        self._events: list[tuple[NewEvent, int]] = []
        self._by_tag: dict[str, list[tuple[NewEvent, int]]] = {}

    def add(self, events: Iterable[NewEvent], group: int) -> None:
        for event in events:
            self._groups.add(group)
            self._events.append((event, group))
            for tag in event.tags:
                self._by_tag.setdefault(tag, []).append((event, group))

    def hold(self, condition: Condition, *, within: int | None = None, beside: int | None = None) -> bool:
        """Whether an event matches the condition's query: one `within` a group, or one of any group `beside` it."""
        if not self._groups or self._groups == {beside} or (within is not None and within not in self._groups):
            return False
        items = condition.query.items
        if not items:
            return any(_counts(group, within, beside) for _, group in self._events)
        return any(
            _counts(group, within, beside) and item_matches(item, event.type, event.tags)
            for item in items
            for event, group in (self._by_tag.get(min(item.tags), ()) if item.tags else self._events)
        )


def _counts(group: int, within: int | None, beside: int | None) -> bool:
    return group == within if within is not None else group != beside
