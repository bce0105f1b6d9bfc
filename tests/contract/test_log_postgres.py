"""What may happen between a log and its PostgreSQL: a commit whose outcome nobody has heard."""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from dataclasses import replace
from functools import partial
from typing import Any

import asyncpg
import pytest
from sqlalchemy import make_url

from ceqs.errors import Conflict, Expired, LogUnavailable, Misconfigured
from ceqs.log import (
    Appended,
    Condition,
    Entry,
    Keep,
    NewEvent,
    Published,
    Wanted,
    _rows_postgres,
    open_log,
    open_reader,
)
from ceqs.log._driver_postgres import execute
from ceqs.log._postgres import lock_key, schema
from ceqs.model import ALL, Query, QueryItem
from ceqs.testing import eventually


def entry(command_id: str, *, assigned: bool = False) -> Entry:
    return Entry(
        command_id=command_id, assigned=assigned, events=(NewEvent(id=command_id, type="shop.Placed", payload=b""),)
    )


async def waits_for_the_lock(task: asyncio.Task[Any], other: asyncpg.Connection[Any]) -> None:
    """Wait until somebody waits for a log's lock, or the task is done without."""

    async def waits() -> bool:
        waiting = "SELECT true FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND pid <> pg_backend_pid()"
        return bool(await other.fetchval(waiting)) or task.done()

    await eventually(waits)


@pytest.mark.parametrize(
    ("cut_before", "cut_after", "delay"), [(1, 0, 0), (0, 1, 0), (2, 0, 0), (0, 1, 0.5), (1, 1, 0)]
)
async def test_a_commit_whose_answer_is_lost_happens_once(
    proxy: Any, through: str, name: str, cut_before: int, cut_after: int, delay: float
) -> None:
    log = await open_log(through, name)
    await log.append(entry("c0"))
    proxy.cut_before, proxy.cut_after, proxy.delay = cut_before, cut_after, delay
    outcomes = await asyncio.gather(*(log.append(entry(f"c{i}", assigned=i % 2 > 0)) for i in range(1, 9)))
    assert proxy.cuts == cut_before + cut_after
    assert [o.receipt.position for o in outcomes] == list(range(2, 10))
    events = (await log.read()).events
    assert [s.position for s in events] == list(range(1, 10))
    assert (await log.append(entry("c9"))).receipt.position == 10
    await log.close()


async def test_a_commit_that_is_always_lost_is_resolved_before_anybody_is_answered(
    proxy: Any, through: str, postgres: str, name: str
) -> None:
    log = await open_log(through, name)
    proxy.cut_before = 5
    with pytest.raises(LogUnavailable):
        await log.append(entry("c1"))
    assert await log.find("c1", b"") is None
    proxy.cut_before, proxy.cut_after = 2, 1
    assert (await log.append(entry("c2"))).receipt.position == 1
    # The last attempt's commit is not answered, but done.
    proxy.cut_before, proxy.cut_after = 4, 1
    assert (await log.append(entry("c3"))).receipt.position == 2
    assert proxy.cut_before == proxy.cut_after == 0
    await log.close()


async def test_while_the_server_cannot_be_reached_the_log_says_so_and_recovers(
    proxy: Any, through: str, name: str
) -> None:
    log = await open_log(through, name)
    await log.append(entry("c1"))
    proxy.cut_before, proxy.refuse = 1, True
    waiting = asyncio.create_task(log.append(entry("c2")))
    done, _ = await asyncio.wait([waiting], timeout=1)
    assert not done, "the outcome is unknown: nobody must be answered"
    proxy.refuse = False
    with contextlib.suppress(LogUnavailable):  # or an attempt has come through
        await waiting
    assert (await log.append(entry("c2"))).receipt.position == 2
    assert len((await log.read()).events) == 2
    await log.close()


async def test_a_killed_backend_costs_nothing(postgres: str, name: str) -> None:
    log = await open_log(postgres, name)
    killer = await asyncpg.connect(postgres)
    outcomes: list[Appended] = []

    async def write(writer: int) -> None:
        for i in range(60):
            outcomes.append(await log.append(entry(f"{writer}-{i}")))

    def went_on(since: int) -> bool:
        return writing.done() or len(outcomes) > since + 20

    writing = asyncio.gather(*map(write, range(8)))
    killed = 0
    while not writing.done():
        progress = len(outcomes)
        killed += await killer.fetchval(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_locks WHERE locktype = 'advisory' AND granted"
        )
        await eventually(partial(went_on, progress))
    await writing
    await killer.close()
    assert killed > 0
    assert sorted(o.receipt.position for o in outcomes) == list(range(1, 481))
    assert [s.position for s in (await log.read()).events] == list(range(1, 481))
    await log.close()


async def test_a_reader_whose_connection_is_lost_says_so_and_goes_on(postgres: str, name: str) -> None:
    log, reader = await open_log(postgres, name), await open_reader(postgres, name)
    waiting = asyncio.create_task(reader.wait(0, 30))
    killer = await asyncpg.connect(postgres)
    while not waiting.done():
        await killer.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'ceqs'")
        await asyncio.sleep(0.01)
    with pytest.raises(LogUnavailable, match="cannot be read"):
        await waiting
    await killer.close()
    await log.append(entry("c1"))
    assert await reader.wait(0, 30) == 1
    assert len((await reader.read()).events) == 1
    await reader.close()
    await log.close()


async def test_a_batch_is_inserted_by_one_statement(postgres: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """While it is executed, the next batch is decided: a second one would wait for that."""
    statements: list[str] = []

    def noted(driver: Any, statement: str, *values: object) -> str:
        statements.append(statement)
        return execute(driver, statement, *values)

    monkeypatch.setattr(_rows_postgres, "execute", noted)
    log = await open_log(postgres, name)
    keep = Keep(state="Meter", tag="meter:1", fingerprint="f", events=1, body=b"")
    event = NewEvent(id="e1", type="shop.Placed", payload=b"", tags=("meter:1",))
    kept = Entry(command_id="c1", events=(event,), condition=Condition(ALL, 0), keeps=keep)
    await log.append_all([kept, entry("c2")])
    assert len(statements) == 1
    assert re.findall(r"INSERT INTO (\w+)", statements[0]) == ["events", "tags", "states", "commands"]
    assert [event.position for event in (await log.read()).events] == [1, 2]
    await log.close()


async def test_a_history_whose_connection_is_lost_is_read_again_on_another(postgres: str, name: str) -> None:
    log = await open_log(postgres, name)
    await log.append(Entry(command_id="c1", events=(NewEvent(id="e1", type="t", payload=b"", tags=("a:1",)),)))
    wanted = Wanted(0, Query((QueryItem(frozenset({"t"}), frozenset({"a:1"})),)))
    killer = await asyncpg.connect(postgres)
    for _ in range(3):
        (found,) = await log.read_all([wanted])
        assert len(found.events) == 1
        await killer.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'ceqs'")
        with contextlib.suppress(LogUnavailable):  # it may have been told in time
            await log.read_all([wanted])
    await killer.close()
    await log.close()


@pytest.mark.parametrize("how", ["read", "read_all"])
async def test_a_read_that_is_cancelled_takes_its_connection_with_it(postgres: str, name: str, how: str) -> None:
    """The driver asks the database to stop, and would fail the next reader meanwhile."""
    log = await open_log(postgres, name)
    await log.append(Entry(command_id="c1", events=(NewEvent(id="e1", type="t", payload=b"", tags=("a:1",)),)))
    query = Query((QueryItem(frozenset({"t"}), frozenset({"a:1"})),))
    other = await asyncpg.connect(postgres, server_settings={"search_path": schema(name)})
    async with other.transaction():
        await other.execute("LOCK TABLE events")
        reading = asyncio.ensure_future(log.read(until=1) if how == "read" else log.read_all([Wanted(0, query)]))
        pid: int | None = None

        async def waits() -> bool:
            nonlocal pid
            pid = await other.fetchval("SELECT pid FROM pg_locks WHERE NOT granted AND relation = 'events'::regclass")
            return pid is not None or reading.done()

        await eventually(waits)
        assert pid
        reading.cancel()
        await asyncio.wait([reading])

    async def gone() -> bool:
        return not await other.fetchval("SELECT count(*) FROM pg_stat_activity WHERE pid = $1", pid)

    await eventually(gone)
    assert len((await log.read(until=1)).events) == len((await log.read_all([Wanted(0, query)]))[0].events) == 1
    await other.close()
    await log.close()


async def test_a_writer_waits_for_the_lock_of_another(postgres: str, name: str) -> None:
    first, second = await open_log(postgres, name), await open_log(postgres, name)
    assert first.log_id == second.log_id
    outcomes = await asyncio.gather(*((first, second)[i % 2].append(entry(f"c{i}")) for i in range(40)))
    assert sorted(o.receipt.position for o in outcomes) == list(range(1, 41))
    twins = await asyncio.gather(first.append(entry("twin")), second.append(entry("twin")))
    assert twins[0].receipt == twins[1].receipt
    await first.close()
    await second.close()


async def test_an_entry_that_expires_while_it_waits_for_the_lock_appends_nothing(postgres: str, name: str) -> None:
    log = await open_log(postgres, name)
    other = await asyncpg.connect(postgres)
    await other.execute("SELECT pg_advisory_lock($1)", lock_key(name))
    expires = time.monotonic() + 1
    late = asyncio.create_task(log.append(replace(entry("late"), expires=expires)))
    patient = asyncio.create_task(log.append(entry("patient")))
    await eventually(lambda: time.monotonic() > expires)
    await other.close()
    with pytest.raises(Expired):
        await late
    assert (await patient).receipt.position == 1
    await log.close()


@pytest.mark.parametrize("events", [1, 0])
async def test_an_entry_waits_for_the_lock_and_is_judged_against_all_that_was_committed_under_it(
    postgres: str, name: str, events: int
) -> None:
    """An entry without events has no position to collide with: its judgement is all that it has."""
    log = await open_log(postgres, name)
    other = await asyncpg.connect(postgres, server_settings={"search_path": schema(name)})
    decided = entry("decided")
    decided = replace(decided, events=decided.events[:events], condition=Condition(ALL, 0))
    transaction = other.transaction()
    await transaction.start()
    await other.execute("SELECT pg_advisory_xact_lock($1)", lock_key(name))
    appending = asyncio.create_task(log.append(decided))
    await waits_for_the_lock(appending, other)
    assert not appending.done()
    await other.execute("INSERT INTO events VALUES (1, NULL, 'e1', 'shop.Placed', 0, 1, 'rival', '')")
    await transaction.commit()
    with pytest.raises(Conflict):
        await appending
    await other.close()
    await log.close()


async def test_what_became_of_a_commit_is_asked_once_its_transaction_cannot_commit_any_more(
    postgres: str, name: str
) -> None:
    log = await open_log(postgres, name)
    zombie = await asyncpg.connect(postgres, server_settings={"search_path": schema(name)})
    transaction = zombie.transaction()
    await transaction.start()
    await zombie.execute("SELECT pg_advisory_xact_lock($1)", lock_key(name))
    await zombie.execute("INSERT INTO commands VALUES ('c1', '', false, 1, 1, '', '')")
    asking = asyncio.create_task(log._store.known(["c1"]))  # type: ignore[attr-defined]
    await waits_for_the_lock(asking, zombie)
    assert not asking.done()
    await transaction.commit()
    assert list(await asking) == ["c1"]
    await zombie.close()
    await log.close()


async def test_what_became_of_a_commit_is_not_asked_in_the_midst_of_another_step(postgres: str, name: str) -> None:
    log = await open_log(postgres, name)
    other = await asyncpg.connect(postgres)
    await other.execute("SELECT pg_advisory_lock($1)", lock_key(name))
    telling = asyncio.create_task(log.published("Publisher", Published(1, 7)))
    await waits_for_the_lock(telling, other)
    asking = asyncio.create_task(log._resolve(["c1"]))  # type: ignore[attr-defined]
    await asyncio.sleep(0.05)
    await other.close()
    assert await telling == Published(1, 7)
    assert await asking == {}
    assert await log.publishers() == ["Publisher"]
    await log.close()


async def test_logs_of_one_database_are_strangers(postgres: str, name: str) -> None:
    orders, inventory = await open_log(postgres, name), await open_log(postgres, name[:-1])
    await orders.append(entry("c1"))
    assert (await inventory.head()).position == 0
    assert orders.log_id != inventory.log_id
    await orders.close()
    await inventory.close()


async def test_openings_at_once_make_one_log(postgres: str, name: str) -> None:
    logs = await asyncio.gather(*(open_log(postgres, name) for _ in range(4)))
    assert len({log.log_id for log in logs}) == 1
    for log in logs:
        await log.close()


async def test_a_server_that_is_not_there_is_named() -> None:
    for opening in (open_log, open_reader):
        with pytest.raises(LogUnavailable, match=r"postgresql://ceqs:\*\*\*@127.0.0.1:1/x cannot be reached"):
            await opening("postgresql://ceqs:secret@127.0.0.1:1/x", "orders")


async def test_a_wrong_password_or_database_is_no_matter_of_waiting(postgres: str) -> None:
    url = make_url(postgres)
    for wrong in (url.set(password="wrong"), url.set(database="nowhere")):
        for opening in (open_log, open_reader):
            with pytest.raises(Misconfigured, match="cannot be used"):
                await opening(wrong.render_as_string(hide_password=False), "orders")
