"""What was decided upon a batch that is on its way to the disk is judged, and lies ready, before that is there."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ceqs.errors import Conflict, Expired, LogUnavailable
from ceqs.log import BEYOND, Appended, Condition, Entry, Log, NewEvent, Progress, Query, QueryItem, _sqlite, open_log
from ceqs.log import _sql as sql
from ceqs.log._prepare import prepare
from ceqs.log._rows_sqlite import Rows
from ceqs.log._sqlite import SqliteStore
from ceqs.testing import eventually

TYPE = "shop.Placed"


def of(tag: str) -> Query:
    return Query((QueryItem(frozenset({TYPE}), frozenset({tag})),))


def placing(number: int, tag: str = "a", after: int | None = None, *, assigned: bool = True) -> Entry:
    events = (NewEvent(id=f"e{number}", type=TYPE, payload=b"", tags=(tag,)),)
    condition = None if after is None else Condition(of(tag), after)
    return Entry(command_id=f"c{number}", events=events, condition=condition, assigned=assigned)


class Disk:
    """Lets a transaction end when it is told to; fails as many as it is told to, before or after they are stored."""

    def __init__(self) -> None:
        self._turns = threading.Semaphore(0)
        self.arrived = 0
        self.failing: list[bool] = []
        """Whether each of the next ones is stored nevertheless."""
        self._commit = SqliteStore.commit_transaction

    def commit(self, connection: sqlite3.Connection) -> None:
        self.arrived += 1
        assert self._turns.acquire(timeout=10)
        stored = self.failing.pop(0) if self.failing else None
        if stored is not False:
            self._commit(connection)
        if stored is not None:
            raise sqlite3.OperationalError("disk I/O error")

    def let(self, transactions: int) -> None:
        self._turns.release(transactions)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    made = Disk()
    monkeypatch.setattr(SqliteStore, "commit_transaction", staticmethod(made.commit))
    monkeypatch.setattr(sql, "_PAUSES", (0.0, 0.0))
    return made


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "log.db"


@pytest.fixture
async def log(path: Path, disk: Disk) -> AsyncIterator[Log]:
    opened = await open_log(f"sqlite:///{path}", "orders")
    yield opened
    disk.let(100)
    await opened.close()


async def append(
    log: Log, *entries: Entry, upon: Progress | None = None, judged: bool = True
) -> tuple[Progress, asyncio.Task[Sequence[object]]]:
    """Append entries upon others; they are judged by then, if they can be before the others are recorded."""
    progress = Progress(upon)
    task: asyncio.Task[Sequence[object]] = asyncio.ensure_future(log.append_all(entries, progress))
    if judged:
        await asyncio.wait_for(progress.judged.wait(), 10)
    else:
        await asyncio.sleep(0.05)
        assert not progress.judged.is_set()
    assert not task.done()
    return progress, task


async def positions(log: Log) -> list[int]:
    return [event.position for event in (await log.read(limit=1000, until=BEYOND)).events]


def meanwhile(happens: Callable[[], bool]) -> None:
    """Wait for what happens without the loop."""
    end = time.monotonic() + 10
    while not happens():
        assert time.monotonic() < end
        time.sleep(0.001)


async def test_the_next_batch_is_recorded_without_waiting_for_the_loop(disk: Disk, log: Log) -> None:
    first, one = await append(log, placing(1))
    second, two = await append(log, placing(2, after=1), upon=first)
    disk.let(1)
    meanwhile(lambda: disk.arrived == 2)
    await asyncio.wait_for(one, 10)
    assert not two.done(), "nothing is answered before it is on the disk"
    assert await positions(log) == [1]
    disk.let(1)
    (appended,) = await two
    assert isinstance(appended, Appended)
    assert (appended.position, await positions(log)) == (2, [1, 2])
    assert second.upon is None, "or it would keep all those before it"


async def test_what_was_not_decided_upon_it_waits_and_shares_a_transaction(disk: Disk, log: Log) -> None:
    _, one = await append(log, placing(1))
    _, two = await append(log, placing(2), judged=False)
    _, three = await append(log, placing(3), judged=False)
    disk.let(1)
    await asyncio.wait_for(one, 10)
    await eventually(lambda: disk.arrived == 2)
    disk.let(1)
    await asyncio.gather(two, three)
    assert (disk.arrived, await positions(log)) == (2, [1, 2, 3])


async def test_where_it_has_to_be_asked_the_next_batch_waits(disk: Disk, log: Log) -> None:
    """Whether an id that was given is known already, only the database knows; and the thread is at work with it."""
    first, one = await append(log, placing(1))
    _, two = await append(log, placing(2, after=1, assigned=False), upon=first, judged=False)
    disk.let(2)
    assert [type(outcome) for outcomes in await asyncio.gather(one, two) for outcome in outcomes] == [Appended] * 2
    assert await positions(log) == [1, 2]


async def test_what_was_refused_upon_it_is_told_when_it_is_recorded(disk: Disk, log: Log) -> None:
    first, one = await append(log, placing(1))
    _, two = await append(log, placing(2, after=0), upon=first, judged=False)
    disk.let(2)
    (refused,) = await two
    assert one.done()
    assert isinstance(refused, Conflict)


@pytest.mark.parametrize("stored", [False, True])
async def test_where_it_fails_nothing_is_recorded_that_was_decided_upon_it(disk: Disk, log: Log, stored: bool) -> None:
    first, one = await append(log, placing(1))
    _, two = await append(log, placing(2, after=1), placing(3, "b"), upon=first)
    disk.failing = [stored]
    disk.let(10)
    (appended,) = await one
    assert isinstance(appended, Appended)
    assert [type(outcome) for outcome in await two] == [Conflict] * 2
    assert await positions(log) == [1]
    assert (await log.append(placing(4, after=1))).position == 2


async def test_where_it_fails_for_good_nothing_is_left_of_either(disk: Disk, log: Log) -> None:
    first, one = await append(log, placing(1))
    _, two = await append(log, placing(2, after=1), upon=first)
    disk.failing = [False, False]
    disk.let(10)
    (failed,), (void,) = await asyncio.gather(one, two)
    assert isinstance(failed, LogUnavailable)
    assert isinstance(void, Conflict)
    assert (await positions(log), (await log.head()).position) == ([], 0)
    third, three = await append(log, placing(3, after=0))
    (appended,) = await three
    assert isinstance(appended, Appended)
    assert (appended.position, third.recorded) == (1, True)


async def test_after_what_could_not_be_inserted_it_is_asked_how_the_log_stands(
    disk: Disk, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise sqlite3.OperationalError("disk full")

    disk.let(10)
    with monkeypatch.context() as full:
        full.setattr(_sqlite, "insert", fail)
        with pytest.raises(LogUnavailable, match="disk full"):
            await log.append(placing(1))
    progress, task = await append(log, placing(2))
    (appended,) = await task
    assert isinstance(appended, Appended)
    assert (appended.position, progress.recorded) == (1, True)


async def test_a_batch_whose_own_commit_fails_is_committed_once(disk: Disk, log: Log) -> None:
    for stored in (False, True):
        start = (await log.head()).position
        first, one = await append(log, placing(start + 1))
        _, two = await append(log, placing(start + 2, after=start + 1), upon=first)
        disk.let(1)
        await asyncio.wait_for(one, 10)
        disk.failing = [stored]
        disk.let(2)
        (appended,) = await two
        assert isinstance(appended, Appended)
        assert appended.position == start + 2
    assert await positions(log) == [1, 2, 3, 4]


class Thread:
    """The thread that records, before it does."""

    def __init__(self) -> None:
        self.arrived, self.free = threading.Event(), threading.Event()

    def wait(self) -> None:
        self.arrived.set()
        assert self.free.wait(10)


@pytest.fixture
async def thread(log: Log, disk: Disk, monkeypatch: pytest.MonkeyPatch) -> Thread:
    """It knows how the log stands, and is held up."""
    disk.let(1)
    await log.append(placing(0))
    held, record = Thread(), SqliteStore._record

    def held_up(store: SqliteStore, parts: Sequence[Rows]) -> None:
        held.wait()
        record(store, parts)

    monkeypatch.setattr(SqliteStore, "_record", held_up)
    return held


def write_beside(path: Path, position: int) -> None:
    """Write an event of "b" as no process of ours does."""
    with closing(sqlite3.connect(path)) as stranger:
        stranger.execute(f"INSERT INTO events VALUES ({position}, NULL, 'theirs', '{TYPE}', 0, 0, 'x', x'')")
        stranger.execute(f"INSERT INTO tags VALUES (1, 'b', {position}, '{TYPE}')")
        stranger.commit()


async def test_where_somebody_else_wrote_meanwhile_both_are_judged_again(
    disk: Disk, log: Log, path: Path, thread: Thread
) -> None:
    """Though the second finds the file as the first one has found it."""
    first, one = await append(log, placing(1))
    _, two = await append(log, placing(2, after=2), upon=first)
    meanwhile(thread.arrived.is_set)
    write_beside(path, 2)
    thread.free.set()
    disk.let(10)
    (appended,) = await one
    assert isinstance(appended, Appended)
    assert appended.position == 3
    (void,) = await two
    assert isinstance(void, Conflict)
    assert await positions(log) == [1, 2, 3]


async def test_nothing_goes_ahead_that_was_decided_upon_what_is_judged_otherwise_by_now(
    disk: Disk, log: Log, path: Path, thread: Thread
) -> None:
    first, one = await append(log, placing(1), placing(2, "b", after=0))
    assert [type(outcome) for outcome in first.outcomes] == [Appended] * 2
    meanwhile(thread.arrived.is_set)
    write_beside(path, 2)
    thread.free.set()
    await eventually(lambda: disk.arrived == 2)
    _, two = await append(log, placing(3, "b", after=3), upon=first, judged=False)
    disk.let(10)
    assert [type(outcome) for outcome in await one] == [Appended, Conflict]
    (void,) = await two
    assert isinstance(void, Conflict)
    assert await positions(log) == [1, 2, 3]


async def test_where_both_fail_before_they_are_committed_the_second_waits_for_the_first(
    disk: Disk, log: Log, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody holds the file: the first one has the first turn once it is free."""
    monkeypatch.setattr(sql, "_PAUSES", (0.0, 0.02, 0.1, 0.3, 0.6))
    transaction, failures = SqliteStore._transaction, [1, 2, 3]

    def locked(store: SqliteStore, *, known: bool) -> sqlite3.Connection:
        if failures:
            failures.pop()
            raise sqlite3.OperationalError("database is locked")
        return transaction(store, known=known)

    disk.let(100)
    await log.append(placing(0, "z"))
    monkeypatch.setattr(SqliteStore, "_transaction", locked)
    first, one = await append(log, placing(1, after=0))
    _, two = await append(log, placing(2, "b"), placing(3, after=2), upon=first)
    (appended,), void = await asyncio.gather(one, two)
    assert isinstance(appended, Appended)
    assert [type(outcome) for outcome in void] == [Conflict] * 2
    assert await positions(log) == [1, 2]


async def test_what_is_void_does_not_go_ahead_with_others(disk: Disk, log: Log) -> None:
    failed, one = await append(log, placing(1))
    disk.failing = [False]
    disk.let(2)
    await one
    assert not failed.recorded, "it was judged again"
    first, two = await append(log, placing(2, "b"))
    three = asyncio.ensure_future(log.append_all([placing(3, "b", after=2)], Progress(first)))
    void = asyncio.ensure_future(log.append_all([placing(4, after=1)], Progress(failed)))
    disk.let(10)
    found = await asyncio.gather(two, three, void)
    assert [type(outcome) for (outcome,) in found] == [Appended, Appended, Conflict]
    assert await positions(log) == [1, 2, 3]


async def test_nothing_goes_ahead_that_was_decided_upon_what_is_void(disk: Disk, log: Log) -> None:
    first, one = await append(log, placing(1))
    second, two = await append(log, placing(2, after=1), upon=first)
    three = asyncio.ensure_future(log.append_all([placing(3, "z"), placing(4, after=2)], Progress(second)))
    await asyncio.sleep(0.02)
    disk.failing = [False]
    disk.let(10)
    found = await asyncio.gather(one, two, three)
    assert [type(outcome) for outcomes in found for outcome in outcomes] == [Appended] + [Conflict] * 3
    assert await positions(log) == [1]


@pytest.mark.parametrize("ticks", range(6))
async def test_nothing_goes_ahead_that_was_decided_upon_what_expired_when_it_was_tried_again(
    disk: Disk, log: Log, ticks: int
) -> None:
    """However many turns of the loop after the failure it arrives."""
    first, one = await append(log, replace(placing(1), expires=time.monotonic() + 0.05))
    meanwhile(lambda: disk.arrived == 1)
    time.sleep(0.05)  # so that it expires without the loop
    disk.failing = [False]
    disk.let(20)
    store: Any = log._store  # type: ignore[attr-defined]
    meanwhile(lambda: store._connection is None)
    for _ in range(ticks):
        await asyncio.sleep(0)
    two = asyncio.ensure_future(log.append_all([placing(3, "z"), placing(4, after=1)], Progress(first)))
    (expired,), void = await asyncio.gather(one, two)
    assert isinstance(expired, Expired)
    assert [type(outcome) for outcome in void] == [Conflict] * 2
    assert await positions(log) == []


async def test_what_goes_ahead_of_a_checkpoint_waits_for_it(
    disk: Disk, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = threading.Event()
    monkeypatch.setattr(SqliteStore, "checkpoint", staticmethod(lambda _: free.wait(10)))
    monkeypatch.setattr(_sqlite, "_TIDY", 1)
    first, one = await append(log, placing(1))
    disk.let(1)
    await asyncio.wait_for(one, 10)
    second, two = await append(log, placing(2, after=1), upon=first)
    _, three = await append(log, placing(3, after=2, assigned=False), upon=second, judged=False)
    disk.let(10)
    assert disk.arrived == 1
    free.set()
    await asyncio.gather(two, three)
    assert await positions(log) == [1, 2, 3]


async def test_a_checkpoint_that_fails_costs_no_batch(disk: Disk, log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: sqlite3.Connection) -> None:
        raise sqlite3.OperationalError("disk full")

    monkeypatch.setattr(SqliteStore, "checkpoint", staticmethod(fail))
    monkeypatch.setattr(_sqlite, "_TIDY", 1)
    first, one = await append(log, placing(1))
    _, two = await append(log, placing(2, after=1), upon=first)
    disk.let(10)
    assert [type(outcome) for (outcome,) in await asyncio.gather(one, two)] == [Appended] * 2
    assert await positions(log) == [1, 2]


async def test_a_refusal_ahead_is_not_told_upon_what_somebody_else_has_changed(
    disk: Disk, log: Log, path: Path
) -> None:
    """What refuses stores nothing, so only a transaction tells it that it is behind; nor does the next one trust it."""
    disk.let(10)
    await log.append(placing(0))
    await log.append(placing(1))
    write_beside(path, 3)
    store: Any = log._store  # type: ignore[attr-defined]
    deciding = Entry(command_id="c2", assigned=True, condition=Condition(of("b"), 2))
    with pytest.raises(sql.Untold):
        await store.ahead([prepare([deciding])], lambda _: None)
    (refused,) = await log.append_all([deciding])
    assert isinstance(refused, Conflict)


async def test_whoever_gives_up_on_a_maintenance_step_leaves_the_connection_to_it(
    disk: Disk, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, free = threading.Event(), threading.Event()

    def step(*_: object) -> None:
        begun.set()
        assert free.wait(10)
        raise RuntimeError("the step fails")

    transaction, begun_here = SqliteStore._transaction, list[bool]()

    def noted(store: SqliteStore, *, known: bool) -> sqlite3.Connection:
        begun_here.append(not free.is_set())
        return transaction(store, known=known)

    monkeypatch.setattr(SqliteStore, "_transaction", noted)
    disk.let(10)
    store: Any = log._store  # type: ignore[attr-defined]
    leaving = asyncio.ensure_future(store.work(step))
    await eventually(begun.is_set)
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    appending = asyncio.ensure_future(log.append(placing(1)))
    await asyncio.sleep(0.02)
    free.set()
    assert (await appending).position == 1
    assert not any(begun_here)


async def test_what_failed_is_not_taken_for_what_somebody_else_wrote(disk: Disk, log: Log, path: Path) -> None:
    _, one = await append(log, placing(1))
    disk.failing = [False, False]
    disk.let(10)
    (failed,) = await one
    assert isinstance(failed, LogUnavailable)
    write_beside(path, 1)
    (refused,) = await log.append_all([placing(2, "b", after=0)])
    assert isinstance(refused, Conflict)


async def test_what_a_maintenance_step_changes_meanwhile_is_not_overlooked(disk: Disk, log: Log) -> None:
    first, one = await append(log, placing(1))
    _, two = await append(log, placing(2, after=1), upon=first)
    begun = asyncio.ensure_future(log.begin_epoch())
    disk.let(2)
    await asyncio.gather(one, two)
    assert (await begun).epoch == 2
    disk.let(1)
    await log.append(placing(3))
    head = await log.head()
    assert (head.position, head.epoch) == (3, 2)


async def test_more_than_one_batch_ahead_is_not_begun(disk: Disk, log: Log) -> None:
    first, one = await append(log, placing(1))
    second, two = await append(log, placing(2, after=1), upon=first)
    _, three = await append(log, placing(3, after=2), upon=second, judged=False)
    disk.let(10)
    await asyncio.gather(one, two, three)
    assert await positions(log) == [1, 2, 3]


async def test_a_log_that_is_closed_records_what_it_was_given(disk: Disk, path: Path) -> None:
    log = await open_log(f"sqlite:///{path}", "orders")
    _, one = await append(log, placing(1))
    closing_log = asyncio.ensure_future(log.close())
    await asyncio.sleep(0)
    disk.failing = [False]
    disk.let(10)
    (appended,), _ = await asyncio.gather(one, closing_log)
    assert isinstance(appended, Appended)
    again = await open_log(f"sqlite:///{path}", "orders")
    assert await positions(again) == [1]
    await again.close()
