"""Entries that were decided in sequence and are appended at once: each knows what those before it append."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Sequence
from dataclasses import replace

import asyncpg
import pytest

from ceqs.errors import CeqsError, Conflict, DuplicateCommand, Invalid, OutOfRange
from ceqs.log import (
    MAX_BATCH_ENTRIES,
    Appended,
    Condition,
    Entry,
    Log,
    NewEvent,
    Progress,
    Query,
    QueryItem,
    Wanted,
    _connect_postgres,
    _holding_postgres,
    open_log,
)
from ceqs.testing import eventually

TYPE = "shop.Placed"


def placing(*tags: str, after: int | None = 0, command_id: str = "", payload: bytes = b"") -> Entry:
    """An entry with one event of these tags, decided on their events up to `after`."""
    query = Query(tuple(QueryItem(frozenset({TYPE}), frozenset({tag})) for tag in tags))
    event = NewEvent(id=str(uuid.uuid4()), type=TYPE, payload=payload, tags=tags)
    condition = None if after is None else Condition(query, after)
    return Entry(command_id=command_id or str(uuid.uuid4()), events=(event,), condition=condition)


def kinds(outcomes: Sequence[Appended | CeqsError]) -> list[type]:
    return [type(outcome) for outcome in outcomes]


async def test_entries_in_sequence_build_on_each_other(log: Log) -> None:
    outcomes = await log.append_all([placing("a"), placing("a"), placing("a", "b"), placing("b")])
    assert kinds(outcomes) == [Appended] * 4
    assert [outcome.receipt.position for outcome in outcomes if isinstance(outcome, Appended)] == [1, 2, 3, 4]


async def test_what_builds_on_a_refused_entry_conflicts_and_nothing_else_does(log: Log) -> None:
    await log.append(placing("z", command_id="used", payload=b"other"))
    sequence = [
        placing("a", after=1),
        replace(placing("a", "b", after=1, command_id="used"), content_hash=b"another"),
        placing("b", after=1),
        placing("a", after=1),
        placing("c", after=1),
    ]
    outcomes = await log.append_all(sequence)
    assert kinds(outcomes) == [Appended, DuplicateCommand, Conflict, Conflict, Appended]
    assert (await log.head()).position == 3


async def test_what_builds_on_a_repeated_entry_conflicts(log: Log) -> None:
    once = placing("a", command_id="once")
    await log.append(once)
    again, built, other = await log.append_all([once, placing("a", after=1), placing("b", after=1)])
    assert isinstance(again, Appended)
    assert again.repeated
    assert isinstance(built, Conflict)
    assert isinstance(other, Appended)


async def test_what_builds_on_a_conflicting_entry_conflicts_too(log: Log) -> None:
    await log.append(placing("a"))
    outcomes = await log.append_all([placing("a", "b", after=0), placing("b", after=1), placing("c", after=1)])
    assert kinds(outcomes) == [Conflict, Conflict, Appended]


async def test_an_entry_beyond_the_limits_fails_alone_and_with_what_builds_on_it(log: Log) -> None:
    outcomes = await log.append_all([placing("a", payload=b"x" * 600_000), placing("a"), placing("b")])
    assert kinds(outcomes) == [Invalid, Conflict, Appended]


async def test_sequences_that_share_a_transaction_are_judged_against_each_other(log: Log) -> None:
    ours, theirs, single = await asyncio.gather(
        log.append_all([placing("a"), placing("a"), placing("x")]),
        log.append_all([placing("b"), placing("a"), placing("b")]),
        log.append_all([placing("b", after=0)]),
    )
    assert kinds(ours) == [Appended] * 3
    assert kinds(theirs) == [Appended, Conflict, Appended]
    assert kinds(single) == [Conflict]


async def test_a_sequence_is_appended_in_one_transaction_or_not_at_all(log: Log) -> None:
    with pytest.raises(ValueError, match="257 entries"):
        await log.append_all([placing("a")] * (MAX_BATCH_ENTRIES + 1))
    outcomes = await log.append_all([placing(f"t:{i}") for i in range(MAX_BATCH_ENTRIES)])
    times = {o.receipt.recorded_at.ToNanoseconds() for o in outcomes if isinstance(o, Appended)}
    assert len(outcomes) == MAX_BATCH_ENTRIES
    assert len(times) == 1


async def test_a_decision_on_what_the_log_does_not_hold_is_refused(log: Log) -> None:
    """As a log looks that was restored from an older backup."""
    future, other = await log.append_all([placing("a", after=7), placing("b")])
    assert isinstance(future, OutOfRange)
    assert isinstance(other, Appended)


async def test_what_is_told_before_it_is_recorded_is_what_it_is_recorded_as(log: Log, url: str) -> None:
    first, second = Progress(), Progress()
    appending = asyncio.create_task(log.append_all([placing("a"), placing("b"), placing("a", after=7)], first))
    appending.add_done_callback(lambda _: first.judged.set())
    await first.judged.wait()
    told, told_early = first.outcomes, not appending.done()
    assert told_early == (url != "memory:"), "what is in memory takes no time to be recorded"
    second.upon = first
    upon = log.append_all([placing("b", after=2), placing("c", after=2)], second)
    outcomes, built = await asyncio.gather(appending, upon)
    if told_early:
        assert (told, first.recorded) == (outcomes, True)
    assert kinds(outcomes) == [Appended, Appended, OutOfRange]
    assert kinds(built) == [Appended, Appended] if told_early else [Conflict, Conflict]
    assert (await log.head()).position == (4 if told_early else 2)


async def test_nothing_is_appended_that_was_decided_upon_what_was_not_recorded_so(log: Log) -> None:
    outcomes = await log.append_all([placing("a"), placing("b", after=None)], Progress(Progress()))
    assert kinds(outcomes) == [Conflict] * 2
    assert (await log.head()).position == 0
    await log.append(placing("a"))


async def test_several_histories_are_read_at_one_moment(log: Log) -> None:
    await log.append_all([placing("a"), placing("b"), placing("a", "b"), placing("c")])

    def of(*tags: str) -> Query:
        return Query(tuple(QueryItem(frozenset({TYPE}), frozenset({tag})) for tag in tags))

    both = Query((QueryItem(frozenset(), frozenset({"a", "b"})),))
    wanted = [Wanted(0, of("a")), Wanted(1, of("a")), Wanted(0, of("b", "c")), Wanted(0, of("d")), Wanted(0, both)]
    parts = await log.read_all([*wanted, Wanted(2, Query())])
    assert [[event.position for event in part.events] for part in parts] == [[1, 3], [3], [2, 3, 4], [], [3], [3, 4]]
    assert [part.through for part in parts] == [4] * 6
    assert await log.read_all([]) == []


async def test_who_holds_a_key_keeps_others_waiting_that_hold_it(url: str, name: str, log: Log) -> None:
    if not url.startswith("postgresql"):
        pytest.skip("one process writes this log, so there is nobody to wait for")
    theirs = await open_log(url, name)
    order: list[str] = []

    async def hold(log: Log, who: str, *keys: str) -> None:
        async with log.holding(keys):
            order.append(who)

    async with log.holding(["a", "b"]):
        waiting = asyncio.create_task(hold(theirs, "theirs", "b", "c"))
        await hold(theirs, "another key", "d")
        # The log's own lock is not held: whoever appends does not wait.
        await theirs.append(placing("a"))
        order.append("ours")
    await waiting
    assert order == ["another key", "ours", "theirs"]
    await theirs.close()


async def test_keys_are_taken_in_one_order_so_that_no_two_wait_for_each_other(url: str, name: str, log: Log) -> None:
    if not url.startswith("postgresql"):
        pytest.skip("one process writes this log, so there is nobody to wait for")
    numbers = {_connect_postgres.key_of(f"{_connect_postgres.schema(name)}/{key}"): key for key in "abcde"}
    first, *_, last = sorted(numbers)
    rival = await asyncpg.connect(url)
    await rival.execute("SELECT pg_advisory_lock($1)", last)

    async def hold() -> None:
        async with log.holding([numbers[number] for number in sorted(numbers, reverse=True)]):
            pass

    holding = asyncio.create_task(hold())

    async def is_taken() -> bool:
        return not await rival.fetchval("SELECT pg_try_advisory_xact_lock($1)", first)

    await eventually(is_taken)
    await rival.close()
    await holding


async def test_a_key_that_is_held_for_too_long_is_waited_for_in_vain(
    url: str, name: str, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not url.startswith("postgresql"):
        pytest.skip("one process writes this log, so there is nobody to wait for")
    monkeypatch.setitem(_holding_postgres._SETTINGS, "lock_timeout", "50ms")
    theirs = await open_log(url, name)
    async with log.holding(["a"]), theirs.holding(["a"]):
        await theirs.append(placing("a"))
    async with theirs.holding(["a"]):
        pass
    await theirs.close()
