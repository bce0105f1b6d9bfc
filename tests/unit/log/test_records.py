"""What is put together from bytes is what the messages serialise to, byte for byte."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence

from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import example, given
from hypothesis import strategies as st

from ceqs.contract import encode_token
from ceqs.log import Appended, Entry, Head, NewEvent
from ceqs.log._judge import Outcome, Verdict, judge
from ceqs.log._prepare import prepare
from ceqs.v1.answers_pb2 import Receipt
from ceqs.v1.events_pb2 import RecordedEvent

TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=150)
POSITIONS = st.integers(0, 2**62)
TIMES = st.datetimes(timezones=st.just(dt.UTC))
EVENTS = st.builds(
    NewEvent,
    id=TEXT,
    type=TEXT,
    payload=st.binary(max_size=300),
    tags=st.lists(TEXT, max_size=3).map(tuple),
    public=st.booleans(),
    bucket=st.integers(0, 2**32 - 1),
    version=st.integers(0, 2**32 - 1),
)
ENTRIES = st.builds(
    Entry,
    command_id=TEXT.filter(bool),
    events=st.lists(EVENTS, max_size=3).map(tuple),
    response=st.binary(max_size=10),
    remember=st.booleans(),
    causation_id=TEXT,
    correlation_id=TEXT,
    causation_depth=st.integers(0, 2**32 - 1),
    actor=TEXT,
    traceparent=TEXT,
)
BATCHES = st.lists(ENTRIES, max_size=4, unique_by=lambda entry: entry.command_id)
HEADS = st.builds(
    Head,
    log_id=TEXT.filter(bool),
    position=POSITIONS,
    public_position=POSITIONS,
    recorded_at=st.none() | TIMES,
)
NOON = dt.datetime(2026, 1, 2, 12, tzinfo=dt.UTC)
BARE = Entry(command_id="c", events=(NewEvent(id="", type="", payload=b"", version=0),))


def judged(entries: Sequence[Entry], head: Head, now: dt.datetime) -> Verdict:
    return judge([prepare(entries)], head, generation=7, known={}, moved=(), now=now, monotonic=0.0)


def stamp(time: dt.datetime | None) -> Timestamp | None:
    if time is None:
        return None
    moment = Timestamp()
    moment.FromDatetime(time)
    return moment


def accepted(entries: Sequence[Entry], outcomes: Sequence[Outcome]) -> list[tuple[Entry, Appended]]:
    pairs = zip(entries, outcomes, strict=True)
    return [(entry, one) for entry, one in pairs if isinstance(one, Appended) and not one.repeated]


@given(BATCHES, HEADS, TIMES)
@example([BARE], Head("log"), NOON)
@example([Entry(command_id="c", remember=True)], Head("log"), NOON)
def test_what_is_recorded_is_what_the_message_says(entries: list[Entry], head: Head, now: dt.datetime) -> None:
    verdict = judged(entries, head, now)
    time = max(now, head.recorded_at or now)
    position, public_position = head.position, head.public_position
    rows = iter(verdict.events)
    for entry, _ in accepted(entries, verdict.outcomes):
        for event in entry.events:
            position += 1
            public_position += event.public
            message = RecordedEvent(
                id=event.id,
                position=position,
                public_position=public_position if event.public else 0,
                type=event.type,
                payload=event.payload,
                recorded_at=stamp(time),
                command_id=entry.command_id,
                causation_id=entry.causation_id,
                correlation_id=entry.correlation_id,
                actor=entry.actor,
                traceparent=entry.traceparent,
                schema_version=event.version,
                bucket=event.bucket,
                causation_depth=entry.causation_depth,
            )
            *row, envelope = next(rows)
            assert RecordedEvent.FromString(envelope) == message
            assert envelope == message.SerializeToString(deterministic=True)
            micros = message.recorded_at.ToMicroseconds()
            number = public_position if event.public else None
            assert row == [position, number, event.id, event.type, event.bucket, micros, entry.command_id]
    assert not list(rows)
    assert (verdict.head.position, verdict.head.public_position) == (position, public_position)
    assert verdict.head.recorded_at == (time if verdict.events else head.recorded_at)


@given(BATCHES, HEADS, TIMES)
@example([Entry(command_id="c", remember=True)], Head("log"), NOON)
@example([Entry(command_id="c1", events=BARE.events), Entry(command_id="c2")], Head("log"), NOON)
def test_a_receipt_is_what_the_message_says(entries: list[Entry], head: Head, now: dt.datetime) -> None:
    verdict = judged(entries, head, now)
    position, public_position = head.position, head.public_position
    for entry, outcome in accepted(entries, verdict.outcomes):
        position += len(entry.events)
        published = sum(event.public for event in entry.events)
        public_position += published
        message = Receipt(
            command_id=entry.command_id,
            log_id=head.log_id,
            position=position,
            event_ids=[event.id for event in entry.events],
            recorded_at=stamp(max(now, head.recorded_at or now) if position > head.position else head.recorded_at),
            token=encode_token({head.log_id: position}),
            public_position=public_position if published else 0,
        )
        assert outcome.receipt == message
        assert outcome.encoded == message.SerializeToString(deterministic=True)
        assert (outcome.position, outcome.token, outcome.response) == (message.position, message.token, entry.response)
        *_, stored, _ = verdict.commands.get(entry.command_id, (None, None))
        assert stored == (outcome.encoded if entry.events or entry.remember else None)
