"""Judging the entries of a batch, in order, each against the log and against what the batch accepted before it."""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, TypeAlias

from google.protobuf.timestamp_pb2 import Timestamp

from ceqs.contract import encode_token
from ceqs.errors import CeqsError, Conflict, DuplicateCommand, Expired
from ceqs.log._prepare import Prepared
from ceqs.log._types import Appended, Condition, Entry, Head
from ceqs.model import item_matches
from ceqs.v1.answers_pb2 import Receipt

Outcome: TypeAlias = Appended | CeqsError


class EventRow(NamedTuple):
    """An event as the log stores it."""

    position: int
    public_position: int | None
    """None for a private event."""
    id: str
    type: str
    bucket: int
    recorded_at: dt.datetime
    command_id: str
    tags: tuple[str, ...]
    envelope: bytes


class CommandRow(NamedTuple):
    """An accepted command as the log stores it."""

    command_id: str
    content_hash: bytes
    derived: bool
    position: int
    recorded_at: dt.datetime
    receipt: bytes
    response: bytes


@dataclass(slots=True)
class Verdict:
    """What became of a batch: an outcome for each entry, and the rows to insert."""

    head: Head
    """Where the log stands once the rows are inserted."""
    outcomes: list[Outcome] = field(default_factory=list[Outcome])
    events: list[EventRow] = field(default_factory=list[EventRow])
    commands: dict[str, CommandRow] = field(default_factory=dict[str, CommandRow])


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
    conditions = {
        i: prepared.entry.condition
        for i, prepared in enumerate(batch)
        if prepared.entry.condition and prepared.entry.condition.after < head.position
    }
    verdict = judge(
        batch,
        head,
        known=ledger.commands({prepared.entry.command_id for prepared in batch}),
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
    verdict, accepted = Verdict(head), _Accepted()
    # Time may stand still in the log, but it never runs back.
    recorded_at = max(now, head.recorded_at) if head.recorded_at else now
    stamp = timestamp(recorded_at)
    for i, prepared in enumerate(batch):
        entry = prepared.entry
        first = known.get(entry.command_id) or verdict.commands.get(entry.command_id)
        outcome: Outcome
        if first:
            outcome = repeated(first, entry.content_hash, derived=entry.derived)
        elif entry.expires is not None and entry.expires <= monotonic:
            outcome = Expired()
        elif entry.condition and (i in moved or accepted.fails(entry.condition)):
            outcome = Conflict()
        else:
            rows = _rows(prepared, verdict.head, recorded_at, stamp)
            accepted.add(rows)
            verdict.events += rows
            outcome = _accept(entry, verdict, rows, recorded_at, stamp)
        verdict.outcomes.append(outcome)
    return verdict


def repeated(first: CommandRow, content_hash: bytes, *, derived: bool) -> Appended | DuplicateCommand:
    """Give what a command was accepted with, or DuplicateCommand where the id now stands for something else."""
    if not derived and first.content_hash != content_hash:
        return DuplicateCommand(metadata={"command_id": first.command_id})
    return Appended(Receipt.FromString(first.receipt), first.response, repeated=True)


def _rows(prepared: Prepared, head: Head, recorded_at: dt.datetime, stamp: Timestamp) -> list[EventRow]:
    rows: list[EventRow] = []
    position, public_position = head.position, head.public_position
    for event, envelope in zip(prepared.entry.events, prepared.envelopes, strict=True):
        position += 1
        public_position += event.public
        envelope.position = position
        envelope.public_position = public_position if event.public else 0
        envelope.recorded_at.CopyFrom(stamp)
        rows.append(
            EventRow(
                position,
                public_position if event.public else None,
                event.id,
                event.type,
                event.bucket,
                recorded_at,
                prepared.entry.command_id,
                tuple(dict.fromkeys(event.tags)),
                envelope.SerializeToString(),
            )
        )
    return rows


def _accept(
    entry: Entry, verdict: Verdict, rows: Sequence[EventRow], recorded_at: dt.datetime, stamp: Timestamp
) -> Appended:
    public = [row.public_position for row in rows if row.public_position]
    head = verdict.head
    if rows:
        public_position = public[-1] if public else head.public_position
        head = Head(head.log_id, rows[-1].position, public_position, recorded_at, head.epoch)
        verdict.head = head
    elif head.recorded_at != recorded_at:
        stamp = timestamp(head.recorded_at) if head.recorded_at else Timestamp()
    receipt = Receipt(
        command_id=entry.command_id,
        log_id=head.log_id,
        position=head.position,
        event_ids=[row.id for row in rows],
        recorded_at=stamp if head.recorded_at else None,
        token=encode_token({head.log_id: head.position}),
        public_position=public[-1] if public else 0,
    )
    if rows or entry.remember:
        verdict.commands[entry.command_id] = CommandRow(
            entry.command_id,
            entry.content_hash,
            entry.derived,
            head.position,
            recorded_at,
            receipt.SerializeToString(),
            entry.response,
        )
    return Appended(receipt, entry.response, first_position=rows[0].position if rows else 0)


def timestamp(time: dt.datetime) -> Timestamp:
    """Give an aware time as a protobuf timestamp."""
    stamp = Timestamp()
    stamp.FromDatetime(time)
    return stamp


class _Accepted:
    """The events that a batch has accepted so far, by tag and by type, so that no condition scans them all."""

    def __init__(self) -> None:
        self._events: list[tuple[EventRow, frozenset[str]]] = []
        self._by_tag: dict[str, list[tuple[EventRow, frozenset[str]]]] = {}

    def add(self, rows: Iterable[EventRow]) -> None:
        for row in rows:
            event = (row, frozenset(row.tags))
            self._events.append(event)
            for tag in event[1]:
                self._by_tag.setdefault(tag, []).append(event)

    def fails(self, condition: Condition) -> bool:
        """Whether an accepted event after the condition's position matches its query."""
        if not condition.query.items:
            return any(row.position > condition.after for row, _ in self._events)
        return any(
            row.position > condition.after and item_matches(item, row.type, tags)
            for item in condition.query.items
            for row, tags in (self._by_tag.get(min(item.tags), ()) if item.tags else self._events)
        )
