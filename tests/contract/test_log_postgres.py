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

from ceqs.errors import Conflict, DuplicateCommand, Expired, LogReplaced, LogUnavailable, Misconfigured, Unavailable
from ceqs.log import (
    BEYOND,
    Appended,
    Condition,
    Entry,
    Keep,
    Log,
    NewEvent,
    Published,
    StateKey,
    Wanted,
    _postgres,
    _rows_postgres,
    _sql,
    open_log,
    open_reader,
)
from ceqs.log._connect_postgres import lock_key, schema
from ceqs.log._driver_postgres import execute
from ceqs.log._select_postgres import PostgresReads
from ceqs.model import ALL, Query, QueryItem
from ceqs.testing import eventually

RIVAL = "INSERT INTO events VALUES ($1, NULL, 'rival', 'shop.Placed', 0, 1, 'rival', '')"


def entry(command_id: str, *, assigned: bool = False) -> Entry:
    return Entry(
        command_id=command_id, assigned=assigned, events=(NewEvent(id=command_id, type="shop.Placed", payload=b""),)
    )


async def quiet(log: Log) -> int:
    """Append alone until the next batch is expected to find the log as the last one left it; give the head."""
    head = (await log.head()).position
    for _ in range(_postgres._QUIET + 1):
        head = (await log.append(entry(f"quiet {head}"))).position
    return head


def noted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Give the statements that are executed from now on, as they come."""
    statements: list[str] = []

    def noting(driver: Any, statement: str, *values: object) -> str:
        statements.append(statement)
        return execute(driver, statement, *values)

    for module in (_postgres, _rows_postgres):
        monkeypatch.setattr(module, "execute", noting)
    return statements


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
    log = await open_log(postgres, name)
    statements = noted(monkeypatch)
    keep = Keep(state="Meter", tag="meter:1", fingerprint="f", events=1, body=b"")
    event = NewEvent(id="e1", type="shop.Placed", payload=b"", tags=("meter:1",))
    kept = Entry(command_id="c1", events=(event,), condition=Condition(ALL, 0), keeps=keep)
    await log.append_all([kept, entry("c2")])
    (statement,) = (one for one in statements if "INSERT" in one)
    assert re.findall(r"INSERT INTO (\w+)", statement) == ["events", "tags", "states", "commands"]
    assert [event.position for event in (await log.read()).events] == [1, 2]
    await log.close()


async def test_a_quiet_log_is_appended_to_in_one_journey(
    postgres: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lock, look, insert and commit are one statement; whoever asks for an id is told by it as well."""
    log = await open_log(postgres, name)
    head = await quiet(log)
    statements = noted(monkeypatch)
    keep = Keep(state="Meter", tag="meter:1", fingerprint="f", events=1, body=b"body")
    query = Query((QueryItem(frozenset({"shop.Placed"}), frozenset({"meter:1"})),))
    event = NewEvent(id="e1", type="shop.Placed", payload=b"", tags=("meter:1",), public=True)
    kept = Entry(command_id="c1", content_hash=b"1", events=(event,), condition=Condition(query, head), keeps=keep)
    nothing = Entry(command_id="c2", content_hash=b"2", response=b"said", remember=True)
    outcomes = await log.append_all([kept, nothing, entry("c3")])
    assert statements == [_rows_postgres.APPEND]
    await log.append(entry("c4"))
    assert statements == [_rows_postgres.APPEND] * 2
    assert [outcome.receipt.position for outcome in outcomes] == [head + 1, head + 1, head + 2]  # type: ignore[union-attr]
    await log.close()
    again = await open_log(postgres, name)
    assert (await again.head()).public_position == 1
    assert [event.position for event in (await again.read(query=query)).events] == [head + 1]
    assert [event.position for event in (await again.read(after=head)).events] == [head + 1, head + 2, head + 3]
    (found,) = await again.kept([StateKey("Meter", "meter:1", "f")])
    assert found
    assert (found.position, found.body) == (head + 1, b"body")
    said = await again.append(replace(nothing, events=kept.events))
    assert (said.response, said.repeated) == (b"said", True)
    await again.close()


async def test_a_log_that_others_write_is_not_taken_to_be_as_it_was_left(postgres: str, name: str) -> None:
    first, second = await open_log(postgres, name), await open_log(postgres, name)
    head = await quiet(first)
    theirs = await second.append(entry("theirs"))
    assert theirs.position == head + 1
    late, patient = await first.append_all([replace(entry("late"), condition=Condition(ALL, head)), entry("patient")])
    assert isinstance(late, Conflict)
    assert isinstance(patient, Appended)
    assert patient.position == head + 2
    # What appends nothing has no position to collide with, and no id.
    head = await quiet(first)
    await second.append(entry("theirs again"))
    (nothing,) = await first.append_all([Entry(command_id="nothing", condition=Condition(ALL, head))])
    assert isinstance(nothing, Conflict)
    # A retry that has gone to the other process.
    head = await quiet(first)
    assert (await second.append(entry("twin"))).position == head + 1
    assert (await first.append(entry("twin"))).receipt.position == head + 1
    assert [event.position for event in (await first.read()).events] == list(range(1, head + 2))
    await first.close()
    await second.close()


async def test_a_repeated_command_of_a_quiet_log_gets_its_receipt(postgres: str, name: str) -> None:
    log = await open_log(postgres, name)
    first = replace(entry("c1"), content_hash=b"1")
    receipt = (await log.append(first)).receipt
    # What would refuse it does not count, since it is not new.
    for repeated in (first, replace(first, condition=Condition(ALL, 0)), replace(first, events=())):
        head = await quiet(log)
        again, other = await log.append_all([repeated, replace(repeated, content_hash=b"2")])
        assert isinstance(again, Appended)
        assert (again.receipt, again.repeated) == (receipt, True)
        assert isinstance(other, DuplicateCommand)
        assert (await log.head()).position == head
    await log.close()


async def test_what_changes_how_events_are_found_is_seen_by_whoever_appends_to_a_quiet_log(
    postgres: str, name: str
) -> None:
    log = await open_log(postgres, name)
    head = await quiet(log)
    other = await asyncpg.connect(postgres, server_settings={"search_path": schema(name)})
    await other.execute("UPDATE meta SET tag_generation = 7")
    await log.append(Entry(command_id="c1", events=(NewEvent(id="e1", type="t", payload=b"", tags=("a:1",)),)))
    assert [tuple(row) for row in await other.fetch("SELECT generation, position FROM tags")] == [(7, head + 1)]
    log._tagging.rules = {"shop.Placed": "order=1"}  # type: ignore[attr-defined]
    await quiet(log)
    await other.execute("INSERT INTO taggings VALUES ('shop.Placed', 'order=2'); UPDATE meta SET tagging = tagging + 1")
    with pytest.raises(Unavailable, match="retag"):
        await log.append(entry("c2"))
    await other.execute("UPDATE taggings SET rule = 'order=1'; UPDATE meta SET tagging = tagging + 1")
    await quiet(log)
    await other.execute("UPDATE meta SET log_id = 'another'")
    with pytest.raises(LogReplaced):
        await log.append(entry("c3"))
    await other.close()
    await log.close()


async def test_where_somebody_came_in_between_it_takes_a_while_until_the_log_counts_as_quiet_again(
    postgres: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is told too early is decided again: where others write all the time, nothing is told so."""
    first, second = await open_log(postgres, name), await open_log(postgres, name)
    await quiet(first)
    await second.append(entry("theirs"))
    statements = noted(monkeypatch)
    for _ in range(2):
        await first.append(entry(f"ours {len(statements)}"))
        assert statements.count(_rows_postgres.APPEND) == 1
        await first.append(entry(f"ours again {len(statements)}"))
        await second.append(entry(f"theirs {len(statements)}"))
    await quiet(first)
    assert statements.count(_rows_postgres.APPEND) == 1
    await first.append(entry("at last"))
    assert statements.count(_rows_postgres.APPEND) == 2
    await first.close()
    await second.close()


async def test_a_statement_sees_what_was_committed_before_it_whatever_the_database_is_set_to(
    postgres: str, name: str
) -> None:
    other = await asyncpg.connect(postgres)
    await other.execute("ALTER ROLE CURRENT_USER SET default_transaction_isolation TO 'repeatable read'")
    try:
        log = await open_log(postgres, name)
        await log.append(entry("c1"))
        connection = await log._store._connection.get_raw_connection()  # type: ignore[attr-defined]
        found = await connection.driver_connection.fetchval("SHOW default_transaction_isolation")
        assert found == "read committed"
        await log.close()
    finally:
        await other.execute("ALTER ROLE CURRENT_USER RESET default_transaction_isolation")
        await other.close()


async def test_a_lock_that_is_free_again_is_taken(postgres: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    log = await open_log(postgres, name)
    head = await quiet(log)
    other = await asyncpg.connect(postgres)
    await other.execute("SELECT pg_advisory_lock($1)", lock_key(name))
    appending = asyncio.create_task(log.append(entry("c1")))
    await waits_for_the_lock(appending, other)
    assert not appending.done()
    await other.close()
    assert (await appending).position == head + 1
    statements = noted(monkeypatch)
    assert (await log.append(entry("c2"))).position == head + 2
    assert statements == [_rows_postgres.APPEND], "a relay takes it again and again to note what it has published"
    await log.close()


@pytest.mark.parametrize(("cut_before", "cut_after", "delay"), [(1, 0, 0), (0, 1, 0), (0, 1, 0.5)])
async def test_a_journey_whose_answer_is_lost_happens_once(
    proxy: Any, through: str, name: str, cut_before: int, cut_after: int, delay: float
) -> None:
    log = await open_log(through, name)
    head = await quiet(log)
    await log.append(entry("c0"))
    proxy.commit, proxy.cut_before, proxy.cut_after, proxy.delay = b"shop.Placed", cut_before, cut_after, delay
    outcomes = await log.append_all([entry(f"c{i}", assigned=i % 2 > 0) for i in range(1, 5)])
    assert proxy.cuts == 1
    assert [outcome.receipt.position for outcome in outcomes] == list(range(head + 2, head + 6))  # type: ignore[union-attr]
    assert [event.position for event in (await log.read()).events] == list(range(1, head + 6))
    await log.close()


@pytest.mark.parametrize("expires", [True, False])
async def test_what_is_answered_as_not_recorded_is_not_recorded_later(
    postgres: str, name: str, expires: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is lost may have been delayed: it comes when its command has expired, or nobody tries any more."""
    monkeypatch.setattr(_sql, "_PAUSES", (0.0,) * 5)
    log = await open_log(postgres, name)
    head = await quiet(log)
    store = log._store  # type: ignore[attr-defined]
    lost: list[tuple[Any, ...]] = []
    commit = store.commit_transaction

    def lose(connection: Any, *statement: Any) -> str:
        if len(lost) < (1 if expires else 5):
            lost.append(statement)
            raise ConnectionError("lost")
        return str(commit(connection, *statement))

    store.commit_transaction = lose
    late = replace(entry("late"), expires=time.monotonic() + 0.2 if expires else None)
    if expires:
        attempt = store.attempt

        async def slow(*arguments: Any, again: bool) -> Any:
            await eventually(lambda: not again or time.monotonic() > (late.expires or 0))
            return await attempt(*arguments, again=again)

        store.attempt = slow
    with pytest.raises(Expired if expires else LogUnavailable):
        await log.append(late)
    assert lost[0][0] == _rows_postgres.APPEND
    other = await asyncpg.connect(postgres, server_settings={"search_path": schema(name)})
    assert await other.execute(*lost[0]) == "SELECT 0"
    await other.close()
    assert (await log.append(entry("next"))).position == head + 1
    assert await log.find("late", b"") is None
    await log.close()


async def test_a_quiet_log_whose_connection_is_gone_says_so_at_once(proxy: Any, through: str, name: str) -> None:
    """Nothing was sent, so nothing has to be found out before somebody is answered."""
    log = await open_log(through, name)
    head = await quiet(log)
    proxy.refuse = True
    connection = log._store._connection  # type: ignore[attr-defined]
    (await connection.get_raw_connection()).driver_connection.terminate()
    with pytest.raises(LogUnavailable):
        await log.append(entry("c1"))
    proxy.refuse = False
    assert (await log.append(entry("c2"))).position == head + 1
    await log.close()


async def test_what_was_just_appended_is_followed_without_asking_the_database(
    postgres: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = await open_log(postgres, name)
    head = await quiet(log)

    async def read(*_: object) -> None:
        raise AssertionError("the database is asked")

    with monkeypatch.context() as patched:
        patched.setattr(PostgresReads, "read", read)
        found = (await log.read(after=head - 2, until=head)).events
    assert [event.position for event in found] == [head - 1, head]
    # Without an end, what others have written is to be given as well.
    other = await open_log(postgres, name)
    await other.append(entry("theirs"))
    for until in (None, BEYOND, head + 1):
        found = (await log.read(after=head - 1, until=until)).events
        assert [event.position for event in found] == [head, head + 1]
    await other.close()
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
        reading = asyncio.ensure_future(log.read(backwards=True) if how == "read" else log.read_all([Wanted(0, query)]))
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
    assert len((await log.read(backwards=True)).events) == len((await log.read_all([Wanted(0, query)]))[0].events) == 1
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


@pytest.mark.parametrize("is_quiet", [False, True])
async def test_an_entry_that_expires_while_it_waits_for_the_lock_appends_nothing(
    postgres: str, name: str, is_quiet: bool
) -> None:
    log = await open_log(postgres, name)
    head = await quiet(log) if is_quiet else 0
    other = await asyncpg.connect(postgres)
    await other.execute("SELECT pg_advisory_lock($1)", lock_key(name))
    expires = time.monotonic() + 1
    late = asyncio.create_task(log.append(replace(entry("late"), expires=expires)))
    patient = asyncio.create_task(log.append(entry("patient")))
    await eventually(lambda: time.monotonic() > expires)
    await other.close()
    with pytest.raises(Expired):
        await late
    assert (await patient).receipt.position == head + 1
    await log.close()


@pytest.mark.parametrize("is_quiet", [False, True])
@pytest.mark.parametrize("events", [1, 0])
async def test_an_entry_waits_for_the_lock_and_is_judged_against_all_that_was_committed_under_it(
    postgres: str, name: str, events: int, is_quiet: bool
) -> None:
    """An entry without events has no position to collide with: its judgement is all that it has."""
    log = await open_log(postgres, name)
    head = await quiet(log) if is_quiet else 0
    other = await asyncpg.connect(postgres, server_settings={"search_path": schema(name)})
    decided = entry("decided")
    decided = replace(decided, events=decided.events[:events], condition=Condition(ALL, head))
    transaction = other.transaction()
    await transaction.start()
    await other.execute("SELECT pg_advisory_xact_lock($1)", lock_key(name))
    appending = asyncio.create_task(log.append(decided))
    await waits_for_the_lock(appending, other)
    assert not appending.done()
    await other.execute(RIVAL, head + 1)
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
