"""For how long every log remembers commands: as was promised to each of them, and never shorter."""

from __future__ import annotations

import datetime as dt
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing, suppress

import asyncpg
import pytest

from ceqs.errors import DuplicateCommand, Misconfigured
from ceqs.log import Entry, Log, NewEvent, open_log
from ceqs.log._retention import DAY, PURGED, Promise, is_promised


class Clock:
    """A clock that stands where the test says: so many days ago."""

    def __init__(self) -> None:
        self.days_ago = 0.0

    def __call__(self) -> dt.datetime:
        return dt.datetime.now(dt.UTC) - dt.timedelta(days=self.days_ago)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def log(url: str, name: str, clock: Clock) -> AsyncIterator[Log]:
    log = await open_log(url, name, clock=clock)
    yield log
    await log.close()


def entry(command_id: str, *, derived: bool = False, content: bytes = b"") -> Entry:
    event = NewEvent(id=command_id, type="shop.Placed", payload=b"")
    return Entry(command_id=command_id, content_hash=content, events=(event,), derived=derived)


async def record(log: Log, clock: Clock, days_ago: float, command_id: str, *, derived: bool = False) -> None:
    clock.days_ago = days_ago
    await log.append(entry(command_id, derived=derived))
    clock.days_ago = 0


async def forgotten(log: Log) -> int:
    found, after = 0, ""
    while True:
        done = await log.purge(after=after)
        found, after = found + done.forgotten, done.next
        if not after:
            return found


async def knows(log: Log, command_id: str) -> bool:
    return await log.find(command_id, b"") is not None


async def test_commands_are_remembered_for_ever_unless_something_else_is_promised(log: Log, clock: Clock) -> None:
    await record(log, clock, 40_000, "c1")
    assert await log.remembers() is None
    assert await forgotten(log) == 0
    assert await knows(log, "c1")


async def test_a_command_is_forgotten_when_its_promise_has_lapsed_and_not_before(log: Log, clock: Clock) -> None:
    await log.remember(30)
    await record(log, clock, 30.1, "old")
    await record(log, clock, 29.9, "young")
    first = await log.find("young", b"")
    dry = await log.purge(dry_run=True)
    assert (dry.examined, dry.forgotten, dry.next) == (2, 1, "")
    assert await knows(log, "old")
    assert await forgotten(log) == 1
    assert not await knows(log, "old")
    again = await log.append(entry("young"))
    assert first is not None
    assert (again.repeated, again.receipt) == (True, first.receipt)
    with pytest.raises(DuplicateCommand):
        await log.append(entry("young", content=b"other"))
    assert not (await log.append(entry("old"))).repeated
    assert [event.position for event in (await log.read()).events] == [1, 2, 3], "events are for ever"


async def test_ids_that_the_platform_derived_are_never_forgotten(log: Log, clock: Clock) -> None:
    await log.remember(1)
    await record(log, clock, 9_000, "ceqs:derived", derived=True)
    await record(log, clock, 9_000, "chosen")
    assert await forgotten(log) == 1
    assert (await log.append(entry("ceqs:derived", derived=True))).repeated


async def test_a_shorter_promise_is_refused_unless_it_is_asked_for(log: Log, clock: Clock) -> None:
    await record(log, clock, 0, "c1")
    with pytest.raises(Misconfigured, match="promises to remember commands for ever, and for 30 days is shorter"):
        await log.remember(30)
    await log.remember(30, shorten=True)
    with pytest.raises(Misconfigured, match="for 30 days, and for 1 day is shorter"):
        await log.remember(1)
    assert await log.remembers() == 30


async def test_a_shorter_promise_holds_for_the_commands_to_come(log: Log, clock: Clock) -> None:
    await log.remember(100)
    await record(log, clock, 60, "promised 100 days")
    await log.remember(30, shorten=True)
    await record(log, clock, 50, "promised 30 days")
    assert await forgotten(log) == 1
    assert await knows(log, "promised 100 days")
    assert not await knows(log, "promised 30 days")


async def test_what_was_promised_for_ever_is_kept_for_ever(log: Log, clock: Clock) -> None:
    await record(log, clock, 9_000, "promised nothing else")
    await log.remember(1, shorten=True)
    await record(log, clock, 8_000, "promised a day")
    assert await forgotten(log) == 1
    assert await knows(log, "promised nothing else")


async def test_a_longer_promise_holds_for_what_is_there_as_well(log: Log, clock: Clock) -> None:
    await log.remember(10)
    await record(log, clock, 20, "c1")
    await log.remember(30)
    assert await forgotten(log) == 0
    await log.remember(10, shorten=True)
    assert await forgotten(log) == 0, "it was promised 30 days meanwhile"
    await log.remember(None)
    assert await log.remembers() is None


@pytest.mark.parametrize("days", [0, -1, 36_501])
async def test_a_promise_of_no_sense_is_refused(log: Log, days: int) -> None:
    with pytest.raises(Misconfigured, match="for 1 to 36500 days or for ever"):
        await log.remember(days)


async def test_a_purge_goes_on_where_its_last_step_ended(log: Log, clock: Clock) -> None:
    await log.remember(1)
    clock.days_ago = 2
    many = [entry(f"{i:05}") for i in range(PURGED + 10)]
    for first in range(0, len(many), 200):
        await log.append_all(many[first : first + 200])
    clock.days_ago = 0
    step = await log.purge()
    assert (step.examined, step.forgotten, step.next) == (PURGED, PURGED, f"{PURGED - 1:05}")
    step = await log.purge(after=step.next)
    assert (step.examined, step.forgotten, step.next) == (10, 10, "")


async def test_a_promise_outlasts_the_process_and_binds_the_next(url: str, name: str) -> None:
    if url == "memory:":
        pytest.skip("nothing outlasts the process")
    log = await open_log(url, name)
    await log.remember(30)
    await log.append(entry("c1"))
    await log.close()
    log = await open_log(url, name)
    assert await log.remembers() == 30
    with pytest.raises(Misconfigured):
        await log.remember(7)
    await log.close()


async def test_two_processes_have_one_promise(postgres: str, name: str) -> None:
    one, other = await open_log(postgres, name), await open_log(postgres, name)
    await one.remember(30)
    await one.append(entry("c1"))
    assert await other.remembers() == 30
    with pytest.raises(Misconfigured):
        await other.remember(7)
    await one.close()
    await other.close()


PROMISES = [[], [(0, 5)], [(0, None), (50, 5)], [(20, 9), (50, 5), (60, 7)], [(0, 1), (10, None), (70, 3)], [(0, 40)]]


@pytest.mark.parametrize("promises", PROMISES, ids=str)
async def test_the_databases_rule_is_that_of_the_code(
    url: str, name: str, promises: list[tuple[int, int | None]]
) -> None:
    """Attack the table at every age: exactly what the code would forget can be deleted. Times in days."""
    if url == "memory:":
        pytest.skip("no database")
    log = await open_log(url, name)
    now = int(dt.datetime.now(dt.UTC).timestamp() * 1_000_000)
    start = now - 100 * DAY - DAY // 2
    ages = range(0, 100, 3)
    statements = [f"INSERT INTO promises VALUES ({start + since * DAY}, {days or 'NULL'})" for since, days in promises]
    statements += [f"INSERT INTO commands VALUES ('{age}', '', false, 1, {start + age * DAY}, '', '')" for age in ages]
    deletions = [f"DELETE FROM commands WHERE command_id = '{age}'" for age in ages]
    if url.startswith("sqlite"):
        with closing(sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)) as database:
            for statement in statements:
                database.execute(statement)
            for deletion in deletions:
                with suppress(sqlite3.IntegrityError):
                    database.execute(deletion)
            kept = {row[0] for row in database.execute("SELECT command_id FROM commands")}
    else:
        connection = await asyncpg.connect(url, server_settings={"search_path": f"ceqs_{name}"})
        for statement in statements:
            await connection.execute(statement)
        for deletion in deletions:
            with suppress(asyncpg.RestrictViolationError):
                await connection.execute(deletion)
        kept = {row[0] for row in await connection.fetch("SELECT command_id FROM commands")}
        await connection.close()
    made = [Promise(start + since * DAY, days) for since, days in promises]
    assert kept == {str(age) for age in ages if is_promised(start + age * DAY, made, now)}
    await log.close()
