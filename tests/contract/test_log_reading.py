"""What every log promises to those who read it: everything, once, in order, as soon as it is there."""

from __future__ import annotations

import asyncio
import datetime as dt
import random
import time
import uuid
from collections.abc import Sequence

import pytest

from ceqs.errors import CeqsError, Conflict
from ceqs.log import (
    ALL,
    BEYOND,
    MAX_EVENT_BYTES,
    MAX_SLICE_BYTES,
    Condition,
    Entry,
    Log,
    LogReader,
    NewEvent,
    Query,
    QueryItem,
    Span,
    StoredEvent,
    _select_sqlite,
    open_log,
    open_reader,
)
from ceqs.v1.events_pb2 import ReadResponse, RecordedEvent

TYPES = ("shop.Placed", "shop.Shipped", "shop.Paid")
TAGS = ("order:1", "order:2", "product:1", "product:2")


def entry(*events: NewEvent, condition: Condition | None = None) -> Entry:
    return Entry(command_id=str(uuid.uuid4()), events=events, condition=condition)


def event(*tags: str, kind: str = TYPES[0], public: bool = False, payload: bytes = b"") -> NewEvent:
    return NewEvent(id=str(uuid.uuid4()), type=kind, payload=payload, tags=tags, public=public)


def any_event(dice: random.Random) -> NewEvent:
    tags = dice.sample(TAGS, dice.randint(0, len(TAGS)))
    return event(*tags, kind=dice.choice(TYPES), public=dice.random() < 0.4)


def any_query(dice: random.Random) -> Query:
    def some(texts: Sequence[str]) -> frozenset[str]:
        return frozenset(dice.sample(texts, dice.randint(0, 2)))

    return Query(tuple(QueryItem(some(TYPES), some(TAGS)) for _ in range(dice.randint(0, 3))))


def fits(query: Query, candidate: NewEvent) -> bool:
    if not query.items:
        return True
    return any(
        (not item.types or candidate.type in item.types) and all(tag in candidate.tags for tag in item.tags)
        for item in query.items
    )


async def test_reading_with_a_filter_equals_filtering_everything(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    # Smaller than the log, so that a filtered read on SQLite goes on where nothing matches.
    monkeypatch.setattr(_select_sqlite, "WINDOW", 20)
    dice = random.Random(5)
    events = [any_event(dice) for _ in range(150)]
    await log.append(entry(*events))
    everything = (await log.read()).events
    for _ in range(150):
        query, public, limit = any_query(dice), dice.random() < 0.5, dice.choice([1, 3, 1000])
        backwards = dice.random() < 0.5
        counted = [s for s in everything if s.public_position] if public else list(everything)
        head = len(counted)
        after, until = dice.randint(0, head), dice.choice([None, dice.randint(0, head + 2)])

        def number(stored: StoredEvent, public: bool = public) -> int:
            return stored.public_position if public else stored.position

        last = head if until is None else until
        expected = [s for s in counted if after < number(s) <= last and fits(query, events[s.position - 1])]
        if backwards:
            expected.reverse()
        span = Span(
            after=after,
            until=BEYOND if until is None else until,
            limit=limit,
            query=query,
            public=public,
            backwards=backwards,
        )
        part = await log.read(after=after, until=until, limit=limit, query=query, public=public, backwards=backwards)
        assert list(part.events) == expected[: len(part.events)]
        assert len(part.events) <= limit
        assert bool(part.events) == bool(expected)
        batch = await log.read_batch(span)
        read = ReadResponse.FromString(batch.data).events
        assert [e.SerializeToString() for e in read] == [s.envelope for s in part.events]
        assert (batch.events, batch.through) == (len(part.events), part.through)
        # Going on from there gives the rest, and ends with the span.
        found = list(part.events)
        rest = span.beyond(part.through)
        while (
            not rest.is_empty
            and (
                part := await log.read(
                    after=rest.after,
                    until=min(rest.until, head),
                    query=query,
                    public=public,
                    backwards=backwards,
                )
            ).events
        ):
            found += part.events
            rest = rest.beyond(part.through)
        assert found == expected
        if not rest.is_empty:
            assert part.through == (rest.after + 1 if backwards else max(rest.after, min(rest.until, head)))


async def test_many_types_are_read_in_order(log: Log) -> None:
    kinds = [f"shop.Type{i}" for i in range(300)]
    await log.append(entry(*(event(kind=kind) for kind in kinds)))
    query = Query((QueryItem(types=frozenset(kinds[::2])), QueryItem(types=frozenset(kinds[::3]))))
    part = await log.read(query=query, backwards=True)
    assert [s.type for s in part.events] == [k for i, k in enumerate(kinds) if i % 2 == 0 or i % 3 == 0][::-1]


async def test_a_time_is_found(url: str, name: str) -> None:
    """By searching, without an index of times; also where many events have one time, and at both ends."""
    begin = dt.datetime(2010, 12, 1, 8, 26, tzinfo=dt.UTC)
    now = begin
    log = await open_log(url, name, clock=lambda: now)
    assert await log.position_before(begin) == 0
    dice = random.Random(9)
    times: list[tuple[dt.datetime, bool]] = []
    for _ in range(30):
        now += dt.timedelta(microseconds=dice.choice([0, 1, 1000]))
        events = [any_event(dice) for _ in range(dice.randint(1, 5))]
        await log.append(entry(*events))
        times += [(now, one.public) for one in events]
    asked = {at + dt.timedelta(microseconds=step) for at, _ in times for step in (-1, 0, 1)}
    for one in [*asked, dt.datetime.min.replace(tzinfo=dt.UTC), dt.datetime.max.replace(tzinfo=dt.UTC)]:
        assert await log.position_before(one) == sum(at < one for at, _ in times)
        assert await log.position_before(one, public=True) == sum(at < one for at, public in times if public)
    await log.close()


async def test_tags_of_recorded_events_are_told(log: Log) -> None:
    dice = random.Random(10)
    events = [any_event(dice) for _ in range(40)]
    await log.append(entry(*events))
    told = await log.tagged([TAGS[0], TAGS[2], "order:3"], 5, 30)
    assert sorted(tuple(one) for one in told) == sorted(
        (position, tag)
        for position, one in enumerate(events, 1)
        for tag in (TAGS[0], TAGS[2])
        if tag in one.tags and 5 < position <= 30
    )
    assert list(await log.tagged([], 0, 40)) == []


async def test_conditions_equal_searching_everything(log: Log) -> None:
    dice = random.Random(6)
    events = [any_event(dice) for _ in range(80)]
    await log.append(entry(*events))
    conditions = [Condition(any_query(dice), after=dice.randint(60, 81)) for _ in range(200)]
    outcomes = await asyncio.gather(
        *(log.append(entry(condition=condition)) for condition in conditions), return_exceptions=True
    )
    for condition, outcome in zip(conditions, outcomes, strict=True):
        moved = any(fits(condition.query, e) for e in events[condition.after :])
        assert isinstance(outcome, Conflict) == moved, condition


async def test_conditions_within_a_batch_equal_searching_everything(log: Log) -> None:
    dice = random.Random(7)
    entries = [entry(any_event(dice), condition=Condition(any_query(dice), after=0)) for _ in range(60)]
    outcomes = await asyncio.gather(*map(log.append, entries), return_exceptions=True)
    accepted: list[NewEvent] = []
    for one, outcome in zip(entries, outcomes, strict=True):
        assert one.condition
        moved = any(fits(one.condition.query, e) for e in accepted)
        assert isinstance(outcome, Conflict) == moved
        accepted += () if moved else one.events
    assert 1 < len(accepted) < 60


@pytest.mark.parametrize("public", [True, False])
async def test_a_read_ends_at_its_limit_or_its_size(log: Log, public: bool) -> None:
    half = MAX_EVENT_BYTES - 1000
    sizes = half, half, 10, half, half, 10, 10
    await log.append(entry(*(event("order:1", payload=b"x" * size, public=public) for size in sizes)))
    for query in (ALL, Query((QueryItem(tags=frozenset({"order:1"})),))):
        for backwards, expected in ((False, [3, 4]), (True, [5, 2])):
            span, counts = Span(query=query, public=public, backwards=backwards, until=7), list[int]()
            while not span.is_empty:
                batch = await log.read_batch(span)
                assert len(batch.data) <= MAX_SLICE_BYTES
                assert len(ReadResponse.FromString(batch.data).events) == batch.events
                counts.append(batch.events)
                span = span.beyond(batch.through)
            assert counts == expected
            part = await log.read(query=query, public=public, backwards=backwards)
            assert len(part.events) == expected[0]
        assert [s.position for s in (await log.read(after=2, limit=2, query=query)).events] == [3, 4]


async def test_the_bytes_by_which_events_are_longer_in_a_batch_count_too(log: Log) -> None:
    await log.append(entry(*(event(payload=b"x" * 1000) for _ in range(1000))))
    batch = await log.read_batch(Span(limit=2000))
    assert MAX_SLICE_BYTES * 0.99 < len(batch.data) <= MAX_SLICE_BYTES


async def test_nothing_is_read_beyond_the_head(log: Log) -> None:
    await log.append(entry(event(public=True)))
    for public in (True, False):
        part = await log.read(after=7, public=public)
        assert (list(part.events), part.through) == ([], 7)


async def test_waiting_ends_when_an_event_is_appended(log: Log) -> None:
    assert await log.wait(0, 0.01) == 0
    waiting = [asyncio.create_task(log.wait(0, 30)) for _ in range(100)]
    await asyncio.sleep(0)
    await log.append(entry(event()))
    assert await asyncio.gather(*waiting) == [1] * 100
    assert await log.wait(0, 30) == 1
    started = time.monotonic()
    assert await log.wait(1, 0.05) == 1
    assert 0.04 < time.monotonic() - started < 5


async def test_waiting_for_public_events_ends_with_one_and_not_with_another(log: Log) -> None:
    waiting = asyncio.create_task(log.wait(0, 30, public=True))
    for position in (1, 2):
        await log.append(entry(event()))
        assert await log.wait(position - 1, 30) == position
    assert await log.wait(0, 0.05, public=True) == 0
    assert not waiting.done()
    await log.append(entry(event(public=True)))
    assert await waiting == 1


async def test_a_reader_elsewhere_is_woken(url: str, name: str) -> None:
    if url == "memory:":
        with pytest.raises(CeqsError, match="hand on the one"):
            await open_reader(url, name)
        return
    log = await open_log(url, name)
    reader = await open_reader(url, name)
    assert (reader.name, reader.log_id) == (name, log.log_id)
    for position in range(1, 20):
        waiting = asyncio.create_task(reader.wait(position - 1, 30))
        await asyncio.sleep(0.003 * (position % 3))
        await log.append(entry(event()))
        assert await waiting == position
        assert (await reader.head()).position == position
    public = asyncio.create_task(reader.wait(0, 30, public=True))
    await log.append(entry(event(public=True)))
    assert await public == 1
    await reader.close()
    await log.close()


async def test_a_live_reader_sees_every_position_once_in_order(url: str, name: str) -> None:
    """The race that plain sequences lose: a position must not show before all lower ones are there to be read."""
    several = 3 if url.startswith("postgresql") else 1
    logs = [await open_log(url, name) for _ in range(several)]
    reader: LogReader = logs[0] if url == "memory:" else await open_reader(url, name)
    writers, appends = 24, 40

    async def write(number: int) -> None:
        dice = random.Random(number)
        for _ in range(appends):
            await logs[number % several].append(entry(*(any_event(dice) for _ in range(dice.randint(1, 3)))))
            await asyncio.sleep(dice.random() * 0.004)

    async def follow(reader: LogReader, *, public: bool) -> list[int]:
        seen, after, head = list[int](), 0, 0
        while not writing.done() or (await reader.head()).position > head:
            head = await reader.wait(head, 0.1)
            while (part := await reader.read(after=after, limit=50, public=public)).events:
                seen += [s.public_position if public else s.position for s in part.events]
                after = part.through
        return seen

    async def follow_filtered() -> list[int]:
        """A filtered reader goes on after what was examined, which must not lie beyond what could be seen."""
        query = Query((QueryItem(types=frozenset({TYPES[0]})), QueryItem(tags=frozenset({TAGS[0]}))))
        seen, after = list[int](), 0
        while not writing.done() or (await reader.head()).position > after:
            part = await reader.read(after=after, query=query)
            seen += [s.position for s in part.events]
            after = part.through
            await asyncio.sleep(0.001)
        return seen

    writing = asyncio.gather(*map(write, range(writers)))
    private, own, public, filtered = await asyncio.gather(
        follow(reader, public=False), follow(logs[0], public=False), follow(reader, public=True), follow_filtered()
    )
    await writing
    head = await reader.head()
    assert head.position >= writers * appends
    assert private == own == list(range(1, head.position + 1))
    assert public == list(range(1, head.public_position + 1))
    query = Query((QueryItem(types=frozenset({TYPES[0]})), QueryItem(tags=frozenset({TAGS[0]}))))
    assert filtered == [s.position for s in (await reader.read(query=query, limit=10_000)).events]
    times, after = list[tuple[int, int]](), 0
    while (part := await reader.read(after=after)).events:
        stamps = [RecordedEvent.FromString(s.envelope).recorded_at for s in part.events]
        times += [(stamp.seconds, stamp.nanos) for stamp in stamps]
        after = part.through
    assert times == sorted(times)
    if reader is not logs[0]:
        await reader.close()
    for log in logs:
        await log.close()
