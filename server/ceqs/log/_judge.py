"""Judging the entries of a batch, in order, each against the log and against what the batch accepted before it."""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, TypeAlias

from google.protobuf.timestamp_pb2 import Timestamp

from ceqs.contract import encode_token
from ceqs.errors import CeqsError, Conflict, DuplicateCommand, Expired, OutOfRange
from ceqs.log._kept import KeptRow, to_row
from ceqs.log._prepare import Prepared
from ceqs.log._times import to_micros
from ceqs.log._types import Appended, Condition, Entry, Head, NewEvent
from ceqs.model import item_matches
from ceqs.v1.answers_pb2 import Receipt
from ceqs.v1.events_pb2 import RecordedEvent

Outcome: TypeAlias = Appended | CeqsError


class EventRow(NamedTuple):
    """An event as the log stores it, in the order of the table's columns."""

    position: int
    public_position: int | None
    """None for a private event."""
    id: str
    type: str
    bucket: int
    recorded_at: int
    """Microseconds since 1970, UTC."""
    command_id: str
    envelope: bytes


class TagRow(NamedTuple):
    """A tag of an event."""

    tag: str
    position: int
    type: str


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

    def head(self) -> Head:
        """Say where the log stands."""
        ...

    def commands(self, command_ids: Collection[str]) -> Mapping[str, CommandRow]:
        """Give those of the commands that were accepted before."""
        ...

    def moved(self, conditions: Mapping[int, Condition]) -> Collection[int]:
        """Give the keys of the conditions that a stored event fails."""
        ...

    def insert(self, verdict: Verdict) -> None:
        """Store the rows of a verdict."""
        ...


def settle(ledger: Ledger, batch: Sequence[Prepared], *, now: dt.datetime, monotonic: float) -> Verdict:
    """Judge a batch and store what is accepted. To be called within one transaction, under the log's lock.

    `now` is the time on the log's clock, `monotonic` that on the clock of `Entry.expires`.
    """
    head = ledger.head()
    valid = {i: prepared.entry for i, prepared in enumerate(batch) if not prepared.invalid}
    conditions = {i: e.condition for i, e in valid.items() if e.condition and e.condition.after < head.position}
    verdict = judge(
        batch,
        head,
        known=ledger.commands({entry.command_id for entry in valid.values()}),
        moved=ledger.moved(conditions) if conditions else (),
        now=now,
        monotonic=monotonic,
    )
    if verdict.commands or verdict.events:
        ledger.insert(verdict)
    return verdict


def judge(
    batch: Sequence[Prepared],
    head: Head,
    *,
    known: Mapping[str, CommandRow],
    moved: Collection[int],
    now: dt.datetime,
    monotonic: float,
) -> Verdict:
    """Give the outcome of each entry. Pure.

    The order of the questions is the promise: a repeated command gets its first receipt whatever happened since, so its
    id is looked up before its deadline and its condition are judged.
    """
    verdict, accepted, lost = Verdict(head), _Proposed(), _Proposed()
    # Time may stand still in the log, but it never runs back.
    recorded_at = max(now, head.recorded_at) if head.recorded_at else now
    recording = Recording(recorded_at, timestamp(recorded_at), to_micros(recorded_at))
    several = any(prepared.group != batch[0].group for prepared in batch)
    for i, prepared in enumerate(batch):
        entry, group = prepared.entry, prepared.group
        first = known.get(entry.command_id) or verdict.commands.get(entry.command_id)
        outcome: Outcome
        if prepared.invalid:
            outcome = prepared.invalid
        elif first:
            outcome = repeated(first, entry.content_hash, derived=entry.derived)
        elif entry.expires is not None and entry.expires <= monotonic:
            outcome = Expired()
        elif entry.condition and entry.condition.after > head.position:
            outcome = OutOfRange(
                f"the log ends at {head.position}, so nothing can be known up to {entry.condition.after}; "
                "was it restored from a backup?"
            )
        elif entry.condition and (
            i in moved
            # What its own group appended before it, the decision knows; it must not know what was not appended.
            or accepted.hold(entry.condition, beside=group)
            or lost.hold(entry.condition, within=group)
        ):
            outcome = Conflict()
        else:
            outcome = _accept(prepared, verdict, recording)
            if several:
                accepted.add(entry.events, group)
            verdict.outcomes.append(outcome)
            continue
        lost.add(entry.events, group)
        verdict.outcomes.append(outcome)
    return verdict


def repeated(first: CommandRow, content_hash: bytes, *, derived: bool) -> Appended | DuplicateCommand:
    """Give what a command was accepted with, or DuplicateCommand where the id now stands for something else."""
    if not derived and first.content_hash != content_hash:
        return DuplicateCommand(metadata={"command_id": first.command_id})
    return Appended(Receipt.FromString(first.receipt), first.receipt, first.response, repeated=True)


class Recording(NamedTuple):
    """When a batch is recorded, in the forms in which that is stored."""

    time: dt.datetime
    stamp: Timestamp
    micros: int


def _accept(prepared: Prepared, verdict: Verdict, recording: Recording) -> Appended:
    entry, head = prepared.entry, verdict.head
    position, public_position = head.position, head.public_position
    for event in entry.events:
        position += 1
        public_position += event.public
        verdict.events.append(_event(entry, event, position, public_position if event.public else None, recording))
        verdict.tags += [TagRow(tag, position, event.type) for tag in dict.fromkeys(event.tags)]
    stamp = recording.stamp if entry.events else timestamp(head.recorded_at) if head.recorded_at else None
    receipt = Receipt(
        command_id=entry.command_id,
        log_id=head.log_id,
        position=position,
        event_ids=[event.id for event in entry.events],
        recorded_at=stamp,
        token=encode_token({head.log_id: position}),
        public_position=public_position if public_position > head.public_position else 0,
    )
    if entry.events:
        verdict.head = Head(head.log_id, position, public_position, recording.time, head.epoch)
        if entry.keeps and entry.condition:
            verdict.keeps[entry.keeps.state, entry.keeps.tag] = to_row(entry.keeps, position)
    encoded = receipt.SerializeToString()
    if entry.events or entry.remember:
        verdict.commands[entry.command_id] = CommandRow(
            entry.command_id,
            entry.content_hash,
            entry.derived,
            position,
            recording.micros,
            encoded,
            entry.response,
        )
    return Appended(receipt, encoded, entry.response, first_position=head.position + 1 if entry.events else 0)


def _event(entry: Entry, event: NewEvent, position: int, public_position: int | None, recording: Recording) -> EventRow:
    envelope = RecordedEvent(
        id=event.id,
        position=position,
        public_position=public_position or 0,
        type=event.type,
        payload=event.payload,
        recorded_at=recording.stamp,
        command_id=entry.command_id,
        causation_id=entry.causation_id,
        correlation_id=entry.correlation_id,
        actor=entry.actor,
        traceparent=entry.traceparent,
        schema_version=event.version,
        bucket=event.bucket,
        causation_depth=entry.causation_depth,
    )
    return EventRow(
        position,
        public_position,
        event.id,
        event.type,
        event.bucket,
        recording.micros,
        entry.command_id,
        envelope.SerializeToString(),
    )


def timestamp(time: dt.datetime) -> Timestamp:
    """Give an aware time as a protobuf timestamp."""
    seconds, micros = divmod(to_micros(time), 1_000_000)
    return Timestamp(seconds=seconds, nanos=micros * 1000)


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
