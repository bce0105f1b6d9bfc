"""What every log promises, in memory, on SQLite and on PostgreSQL."""

from __future__ import annotations

import asyncio
import datetime as dt
import itertools
import time
import uuid
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import pytest

from ceqs.contract import decode_token
from ceqs.errors import Conflict, DuplicateCommand, Expired, Invalid, LogUnavailable, Overloaded
from ceqs.log import (
    MAX_EVENT_BYTES,
    MAX_EVENT_TAGS,
    MAX_TAG_BYTES,
    Appended,
    Condition,
    Entry,
    Log,
    NewEvent,
    Query,
    QueryItem,
    open_log,
)
from ceqs.v1.events_pb2 import RecordedEvent

T = TypeVar("T")
NOON = dt.datetime(2026, 1, 2, 12, tzinfo=dt.UTC)


def event(*tags: str, kind: str = "shop.Placed", public: bool = False, payload: bytes = b"") -> NewEvent:
    return NewEvent(id=str(uuid.uuid4()), type=kind, payload=payload, tags=tags, public=public)


def entry(
    *events: NewEvent,
    command_id: str = "",
    content: bytes = b"",
    condition: Condition | None = None,
    derived: bool = False,
    response: bytes = b"",
    expires: float | None = None,
    remember: bool = False,
) -> Entry:
    return Entry(
        command_id=command_id or str(uuid.uuid4()),
        content_hash=content,
        derived=derived,
        events=events,
        condition=condition,
        response=response,
        expires=expires,
        remember=remember,
    )


def about(*tags: str, types: Sequence[str] = ()) -> Query:
    return Query((QueryItem(frozenset(types), frozenset(tags)),))


async def together(*work: Awaitable[T]) -> list[T | BaseException]:
    """Queue everything before the writer wakes, so that it goes into one batch."""
    return await asyncio.gather(*work, return_exceptions=True)


async def recorded(log: Log, *, public: bool = False) -> list[RecordedEvent]:
    found, after = list[RecordedEvent](), 0
    while (part := await log.read(after=after, public=public)).events:
        found += [RecordedEvent.FromString(stored.envelope) for stored in part.events]
        after = part.through
    return found


def ticking() -> Callable[[], dt.datetime]:
    """A clock that moves at every look: one time means one batch."""
    seconds = itertools.count()
    return lambda: NOON + dt.timedelta(seconds=next(seconds))


async def test_an_empty_log_has_a_head_and_no_events(log: Log) -> None:
    head = await log.head()
    assert (head.log_id, head.epoch) == (log.log_id, 1)
    assert (head.position, head.public_position, head.recorded_at) == (0, 0, None)
    for public in (False, True):
        part = await log.read(public=public)
        assert (list(part.events), part.through) == ([], 0)


async def test_an_event_is_read_as_it_was_appended(url: str, name: str) -> None:
    log = await open_log(url, name, clock=lambda: NOON)
    placed = NewEvent(
        id=str(uuid.uuid4()), type="shop.Placed", payload=b"\0\xff", tags=("a:1",), public=True, bucket=7, version=3
    )
    command = Entry(
        command_id="c1",
        events=(placed,),
        causation_id="cause",
        correlation_id="correlation",
        causation_depth=2,
        actor="ann\u00e9",
        traceparent="00-1-2-03",
    )
    await log.append(command)
    (stored,) = (await log.read()).events
    assert (stored.position, stored.public_position, stored.type) == (1, 1, "shop.Placed")
    expected = RecordedEvent(
        id=placed.id,
        position=1,
        public_position=1,
        type="shop.Placed",
        payload=b"\0\xff",
        command_id="c1",
        causation_id="cause",
        correlation_id="correlation",
        actor="ann\u00e9",
        traceparent="00-1-2-03",
        schema_version=3,
        bucket=7,
        causation_depth=2,
    )
    expected.recorded_at.FromDatetime(NOON)
    assert RecordedEvent.FromString(stored.envelope) == expected
    await log.close()


async def test_a_receipt_says_what_was_recorded_where_and_when(url: str, name: str) -> None:
    log = await open_log(url, name, clock=lambda: NOON)
    events = (event(public=True), event(public=True), event())
    appended = await log.append(entry(*events, command_id="c1", response=b"answer"))
    receipt = appended.receipt
    assert (receipt.command_id, receipt.log_id) == ("c1", log.log_id)
    assert (receipt.position, receipt.public_position) == (3, 2)
    assert list(receipt.event_ids) == [e.id for e in events]
    assert receipt.recorded_at.ToDatetime(dt.UTC) == NOON
    assert decode_token(receipt.token) == {log.log_id: 3}
    assert (appended.response, appended.repeated) == (b"answer", False)
    await log.close()


async def test_a_command_without_events_stores_nothing_and_its_receipt_names_the_head(log: Log) -> None:
    first = (await log.append(entry(command_id="c0"))).receipt
    assert (first.position, first.HasField("recorded_at")) == (0, False)
    placed = (await log.append(entry(event(public=True)))).receipt
    appended = await log.append(entry(command_id="c0"))
    assert (appended.receipt.position, appended.receipt.public_position, appended.repeated) == (1, 0, False)
    assert appended.receipt.recorded_at == placed.recorded_at
    assert not appended.receipt.event_ids
    assert (await log.head()).position == 1
    assert await log.find("c0", b"") is None


async def test_a_command_without_events_is_remembered_on_demand(log: Log) -> None:
    first = await log.append(entry(command_id="c0", remember=True, response=b"no change"))
    again = await log.append(entry(event(), command_id="c0"))
    assert (again.receipt, again.response, again.repeated) == (first.receipt, b"no change", True)
    assert (await log.head()).position == 0


async def test_both_numbers_have_no_gap(log: Log) -> None:
    for size in (1, 3, 2):
        await together(*(log.append(entry(event(public=i % 2 == 0), event(public=i % 3 == 0))) for i in range(size)))
    events = await recorded(log)
    assert [e.position for e in events] == list(range(1, 13))
    public = [e for e in events if e.public_position]
    assert [e.public_position for e in public] == list(range(1, len(public) + 1))
    assert await recorded(log, public=True) == public
    head = await log.head()
    assert (head.position, head.public_position) == (12, len(public))


# Conditions


async def test_a_condition_holds_until_a_matching_event_comes_after_it(log: Log) -> None:
    await log.append(entry(event("order:1")))
    for _ in range(2):
        await log.append(entry(event("order:2"), condition=Condition(about("order:1"), after=1)))
    await log.append(entry(event("order:1"), condition=Condition(about("order:1"), after=1)))
    with pytest.raises(Conflict):
        await log.append(entry(event("order:1"), condition=Condition(about("order:1"), after=3)))
    assert (await log.head()).position == 4


async def test_a_condition_is_judged_where_there_is_no_event_to_append(log: Log) -> None:
    await log.append(entry(event("order:1")))
    await log.append(entry(condition=Condition(about("order:1"), after=1)))
    with pytest.raises(Conflict):
        await log.append(entry(condition=Condition(about("order:1"), after=0)))


async def test_of_two_overlapping_conditions_in_one_batch_the_first_passes(url: str, name: str) -> None:
    log = await open_log(url, name, clock=ticking())
    first, second, other = await together(
        log.append(entry(event("order:1", "product:1"), condition=Condition(about("order:1"), after=0))),
        log.append(entry(event("product:1"), condition=Condition(about("product:1", types=["shop.Placed"]), after=0))),
        log.append(entry(event("order:2"), condition=Condition(about("order:2"), after=0))),
    )
    assert isinstance(first, Appended)
    assert isinstance(second, Conflict)
    assert isinstance(other, Appended)
    assert first.receipt.recorded_at == other.receipt.recorded_at, "they were to share a batch"
    assert [first.receipt.position, other.receipt.position] == [1, 2]
    await log.close()


async def test_32_writers_on_one_boundary_lose_nothing(log: Log) -> None:
    boundary = about("counter:1", types=["shop.Counted"])

    async def count() -> int:
        conflicts = 0
        while True:
            seen = await log.read(query=boundary)
            number = len(seen.events) + 1
            counted = event("counter:1", kind="shop.Counted", payload=str(number).encode())
            try:
                await log.append(entry(counted, condition=Condition(boundary, after=seen.through)))
            except Conflict:
                conflicts += 1
            else:
                return conflicts

    conflicts = await asyncio.gather(*(count() for _ in range(32)))
    assert [int(e.payload) for e in await recorded(log)] == list(range(1, 33))
    assert sum(conflicts) > 0, "the writers were to meet"


# Command ids


async def test_a_repeated_command_gets_its_first_receipt_and_answer(log: Log) -> None:
    first = await log.append(entry(event(), command_id="c1", content=b"x", response=b"first"))
    await log.append(entry(event()))
    again = await log.append(entry(event(), command_id="c1", content=b"x", response=b"second"))
    assert (again.receipt, again.response, again.repeated) == (first.receipt, b"first", True)
    assert (await log.head()).position == 2


async def test_a_repeated_command_is_known_before_its_boundary_or_deadline_is_judged(log: Log) -> None:
    condition = Condition(about("order:1"), after=0)
    first = await log.append(entry(event("order:1"), command_id="c1", condition=condition))
    again = await log.append(
        entry(event("order:1"), command_id="c1", condition=condition, expires=time.monotonic() - 1)
    )
    assert again.receipt == first.receipt


async def test_a_command_id_stands_for_one_content(log: Log) -> None:
    await log.append(entry(event(), command_id="c1", content=b"x"))
    with pytest.raises(DuplicateCommand):
        await log.append(entry(event(), command_id="c1", content=b"y"))
    with pytest.raises(DuplicateCommand):
        await log.append(entry(command_id="c1", content=b"y"))
    assert (await log.head()).position == 1


async def test_for_a_derived_id_the_first_receipt_wins_whatever_the_content(log: Log) -> None:
    first = await log.append(entry(event(), command_id="ceqs:1", content=b"x", derived=True))
    again = await log.append(entry(event(), command_id="ceqs:1", content=b"y", derived=True))
    assert again.receipt == first.receipt
    found = await log.find("ceqs:1", b"z", derived=True)
    assert found
    assert found.receipt == first.receipt


async def test_twins_in_one_batch_give_one_event_and_one_receipt(url: str, name: str) -> None:
    log = await open_log(url, name, clock=ticking())
    first, twin, stranger = await together(
        log.append(entry(event(), command_id="c1", content=b"x")),
        log.append(entry(event(), command_id="c1", content=b"x")),
        log.append(entry(event(), command_id="c1", content=b"y")),
    )
    assert isinstance(first, Appended)
    assert isinstance(twin, Appended)
    assert isinstance(stranger, DuplicateCommand)
    assert (twin.receipt, first.repeated, twin.repeated) == (first.receipt, False, True)
    assert (await log.head()).position == 1
    await log.close()


async def test_an_accepted_command_is_found(log: Log) -> None:
    assert await log.find("c1", b"x") is None
    first = await log.append(entry(event(), command_id="c1", content=b"x", response=b"answer"))
    found = await log.find("c1", b"x")
    assert found
    assert (found.receipt, found.response, found.repeated) == (first.receipt, b"answer", True)
    with pytest.raises(DuplicateCommand):
        await log.find("c1", b"y")


# What is refused, and what a caller's end changes


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        (event(payload=b"x" * (MAX_EVENT_BYTES + 1)), "524289 bytes"),
        (event(*(f"t:{i}" for i in range(MAX_EVENT_TAGS + 1))), "65 tags"),
        (event(*(f"{i:03}:{'x' * 508}" for i in range(17))), "more than 8192 bytes"),
        (event(*(f"{i:03}:{'é' * 254}" for i in range(17))), "more than 8192 bytes"),
        (event("order:a\0b"), "NUL"),
        (event("order:\ud800"), "Unicode"),
    ],
)
async def test_an_event_beyond_the_limits_fails_alone(log: Log, bad: NewEvent, says: str) -> None:
    good, refused, after = await together(
        log.append(entry(event())), log.append(entry(event(), bad)), log.append(entry(event()))
    )
    assert isinstance(good, Appended)
    assert isinstance(refused, Invalid)
    assert says in str(refused)
    assert isinstance(after, Appended)
    assert (await log.head()).position == 2


@pytest.mark.parametrize("command_id", ["", "c" * 201, "é" * 101], ids=["none", "long", "long in bytes"])
async def test_a_command_id_beyond_the_limits_is_refused(log: Log, command_id: str) -> None:
    with pytest.raises(Invalid, match="1 to 200 bytes long"):
        await log.append(Entry(command_id=command_id, events=(event(),)))
    assert (await log.append(entry(event(), command_id="é" * 100))).receipt.position == 1


@pytest.mark.parametrize("events", [[event()] * 10_001, [event(payload=b"x" * MAX_EVENT_BYTES)] * 33])
async def test_a_command_with_too_much_to_record_fails_alone(log: Log, events: list[NewEvent]) -> None:
    refused, good = await together(log.append(entry(*events)), log.append(entry(event())))
    assert isinstance(refused, Invalid)
    assert "split it" in str(refused)
    assert isinstance(good, Appended)


async def test_an_event_at_the_limits_is_recorded(log: Log) -> None:
    tag = MAX_TAG_BYTES // MAX_EVENT_TAGS
    large = event(*(f"{i:02}:{'x' * (tag - 3)}" for i in range(MAX_EVENT_TAGS)), payload=b"x" * MAX_EVENT_BYTES)
    await log.append(entry(large))
    (found,) = await recorded(log)
    assert found.payload == large.payload


@pytest.mark.parametrize("command_id", ["", "x" * 201, "a\0b", "\udfff"])
async def test_a_command_id_that_cannot_be_kept_is_refused(log: Log, command_id: str) -> None:
    with pytest.raises(Invalid):
        await log.append(Entry(command_id=command_id, events=(event(),)))


async def test_a_command_whose_deadline_has_passed_appends_nothing(log: Log) -> None:
    late, early = await together(
        log.append(entry(event(), expires=time.monotonic())), log.append(entry(event(), expires=time.monotonic() + 60))
    )
    assert isinstance(late, Expired)
    assert isinstance(early, Appended)
    assert (await log.head()).position == 1


async def test_a_cancelled_caller_cancels_nobody_elses_command(log: Log) -> None:
    leaving = asyncio.create_task(log.append(entry(event(), command_id="leaving")))
    staying = asyncio.create_task(log.append(entry(event(), command_id="staying")))
    await asyncio.sleep(0)
    leaving.cancel()
    assert (await staying).receipt.position == 2
    assert [e.command_id for e in await recorded(log)] == ["leaving", "staying"]


async def test_a_full_queue_is_refused_at_once(url: str, name: str) -> None:
    log = await open_log(url, name, max_waiting=3)
    outcomes = await together(*(log.append(entry(event())) for _ in range(5)))
    assert [type(o) for o in outcomes] == [Appended] * 3 + [Overloaded] * 2
    assert (await log.append(entry(event()))).receipt.position == 4
    await log.close()


async def test_closing_stores_what_was_queued_and_takes_no_more(url: str, name: str) -> None:
    log = await open_log(url, name)
    waiting = [asyncio.create_task(log.append(entry(event()))) for _ in range(300)]
    await asyncio.sleep(0)
    await log.close()
    assert sorted([(await task).receipt.position for task in waiting]) == list(range(1, 301))
    with pytest.raises(LogUnavailable):
        await log.append(entry(event()))
    with pytest.raises(LogUnavailable):
        await log.wait(0, 1)


async def test_recorded_time_never_goes_back(url: str, name: str) -> None:
    times = [NOON, NOON - dt.timedelta(hours=1), NOON + dt.timedelta(microseconds=1), NOON]
    log = await open_log(url, name, clock=iter(times).__next__)
    for _ in times:
        await log.append(entry(event()))
    found = [e.recorded_at.ToDatetime(dt.UTC) for e in await recorded(log)]
    assert found == [NOON, NOON, times[2], times[2]]
    assert (await log.head()).recorded_at == times[2]
    await log.close()
