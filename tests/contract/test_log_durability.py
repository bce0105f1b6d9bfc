"""What is acknowledged stays: through an orderly end, through kill -9, and whoever attacks the tables."""

from __future__ import annotations

import asyncio
import sqlite3
import sys
import uuid
from contextlib import closing
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from ceqs.errors import LogUnavailable, Misconfigured
from ceqs.log import Entry, NewEvent, Published, open_log, open_reader
from ceqs.v1.events_pb2 import RecordedEvent

WRITE_FOR_EVER = """
import asyncio, itertools, sys
from ceqs.log import Entry, NewEvent, open_log

async def main(url, name, writers):
    log = await open_log(url, name)
    async def write(writer):
        for i in itertools.count():
            id = f"{writer}-{i}"
            placed = NewEvent(id=id, type="shop.Placed", payload=id.encode(), tags=(f"order:{id}",), public=i % 2 == 0)
            appended = await log.append(Entry(command_id=id, events=(placed,)))
            print(id, appended.receipt.position, flush=True)
    await asyncio.gather(*map(write, writers))

asyncio.run(main(sys.argv[1], sys.argv[2], sys.argv[3:]))
"""


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/log.db"
    return str(request.getfixturevalue("postgres"))


def entry(command_id: str = "", *, derived: bool = False) -> Entry:
    command_id = command_id or str(uuid.uuid4())
    event = NewEvent(id=command_id, type="shop.Placed", payload=command_id.encode(), tags=("order:1",), public=True)
    return Entry(command_id=command_id, events=(event,), derived=derived)


async def test_a_log_that_is_opened_again_is_the_same(url: str, name: str) -> None:
    log = await open_log(url, name)
    appended = [await log.append(entry(f"c{i}")) for i in range(5)]
    before, events = await log.head(), (await log.read()).events
    await log.close()
    log = await open_log(url, name)
    assert await log.head() == before
    assert (await log.read()).events == events
    assert (await log.append(entry("c3"))).receipt == appended[3].receipt
    assert (await log.append(entry())).receipt.position == 6
    await log.close()


async def test_what_was_acknowledged_survives_kill_9_and_no_command_happens_twice(url: str, name: str) -> None:
    several = 2 if url.startswith("postgresql") else 1
    for round_number in range(2):
        processes = [
            await asyncio.create_subprocess_exec(
                *[sys.executable, "-c", WRITE_FOR_EVER, url, name],
                *[f"{round_number}.{process}.{writer}" for writer in range(8)],
                stdout=asyncio.subprocess.PIPE,
            )
            for process in range(several)
        ]
        acknowledged: dict[str, int] = {}
        for process in processes:
            assert process.stdout
            for _ in range(60):
                command_id, position = (await process.stdout.readline()).split()
                acknowledged[command_id.decode()] = int(position)
        for process in processes:
            process.kill()
            assert process.stdout
            for line in (await process.stdout.read()).splitlines():
                if len(parts := line.split()) == 2:
                    acknowledged[parts[0].decode()] = int(parts[1])
            await process.wait()

        log = await open_log(url, name)
        head = await log.head()
        events = [RecordedEvent.FromString(s.envelope) for s in (await log.read(limit=100_000)).events]
        assert [e.position for e in events] == list(range(1, head.position + 1))
        assert [e.public_position for e in events if e.public_position] == list(range(1, head.public_position + 1))
        stored = {e.command_id: e.position for e in events}
        assert len(stored) == len(events), "a command happened twice"
        assert acknowledged.items() <= stored.items()
        for known, known_position in acknowledged.items():
            again = await log.append(entry(known))
            assert (again.receipt.position, again.repeated) == (known_position, True)
        assert (await log.head()).position == head.position
        await log.close()


async def test_a_commit_is_on_disk_and_no_lock_outlives_its_owner_however_the_database_is_set(
    url: str, name: str
) -> None:
    """What neither a killed process nor a killed database shows: it takes a power cut, or a machine that vanishes."""
    on_sqlite = url.startswith("sqlite")
    setting = "ALTER DATABASE postgres {} synchronous_commit"
    if not on_sqlite:
        other = await asyncpg.connect(url)
        await other.execute(setting.format("SET") + " = off")
    log = await open_log(url, name)
    asked = (
        ["PRAGMA synchronous", "PRAGMA journal_mode"]
        if on_sqlite
        else ["SHOW synchronous_commit", "SHOW idle_in_transaction_session_timeout"]
    )

    def ask(connection: Any, dialect: Any) -> list[Any]:
        return [dialect.rows(connection, statement, {})[0][0] for statement in asked]

    try:
        assert await log._store.work(ask) == ([2, "wal"] if on_sqlite else ["on", "15s"])  # type: ignore[attr-defined]
    finally:
        await log.close()
        if not on_sqlite:
            await other.execute(setting.format("RESET"))
            await other.close()


async def test_a_reader_waits_for_no_log(url: str, name: str) -> None:
    with pytest.raises(LogUnavailable, match="no log"):
        await open_reader(url, name)


async def test_a_closed_log_is_not_read(url: str, name: str) -> None:
    log = await open_log(url, name)
    reader = await open_reader(url, name)
    await reader.close()
    await log.close()
    for closed in (reader, log):
        with pytest.raises(LogUnavailable, match="closed"):
            await closed.read()


async def test_a_log_whose_end_nobody_waits_for_ends_all_the_same(url: str, name: str) -> None:
    log = await open_log(url, name)
    event = NewEvent(id="e1", type="shop.Placed", payload=b"")
    appending = asyncio.create_task(log.append(Entry(command_id="c1", events=(event,))))
    closing = asyncio.create_task(log.close())
    await asyncio.sleep(0)
    closing.cancel()
    await asyncio.wait([closing])
    assert (await appending).position == 1
    await log.close()
    again = await open_log(url, name)
    assert (await again.head()).position == 1
    await again.close()


async def test_a_log_ends_behind_all_that_waits_for_it(url: str, name: str) -> None:
    log = await open_log(url, name)
    asked = [asyncio.create_task(log.published(f"Publisher{i}", Published(1, i + 1))) for i in range(4)]
    await asyncio.sleep(0)
    await log.close()
    assert [told.result().position for told in asked if told.done()] == [1, 2, 3, 4]
    again = await open_log(url, name)
    assert len(await again.publishers()) == 4
    await again.close()


# Attacks. Each statement is tried by itself on a log of two events, whose second command has a derived id and whose
# commands are promised to be remembered for three days.

CHANGES_OF_EVENTS = [
    "UPDATE events SET envelope = 'x' WHERE position = 1",
    "UPDATE events SET recorded_at = recorded_at + 1",
    "UPDATE events SET position = 7 WHERE position = 2",
    "DELETE FROM events WHERE position = 2",
    "DELETE FROM events",
]
CHANGES_OF_COMMANDS = [
    "UPDATE commands SET receipt = 'x'",
    "UPDATE commands SET derived = false",
    "DELETE FROM commands WHERE command_id = 'c1'",
    "DELETE FROM commands WHERE command_id = 'c2'",
    "DELETE FROM commands",
]
CHANGES_OF_PROMISES = [
    "UPDATE promises SET days = 1",
    "DELETE FROM promises",
]
CHANGES_OF_META = [
    "DELETE FROM meta",
    "UPDATE meta SET name = 'other'",
    "UPDATE meta SET epoch = 0",
    "UPDATE meta SET schema_version = 0",
]
CHANGES = [*CHANGES_OF_EVENTS, *CHANGES_OF_COMMANDS, *CHANGES_OF_PROMISES, *CHANGES_OF_META]
EVENT = "(position, public_position, id, type, bucket, recorded_at, command_id, envelope)"
SQLITE_ATTACKS = [
    f"INSERT OR REPLACE INTO events {EVENT} VALUES (1, 1, 'x', 'x', 0, 0, 'x', x'00')",
    f"INSERT OR REPLACE INTO events {EVENT} VALUES (3, 1, 'x', 'x', 0, 0, 'x', x'00')",
    f"INSERT INTO events {EVENT} VALUES (4, NULL, 'x', 'x', 0, 0, 'x', x'00')",
    f"INSERT INTO events {EVENT} VALUES (3, 4, 'x', 'x', 0, 0, 'x', x'00')",
    "INSERT INTO promises VALUES (-1, 1)",
    "INSERT OR REPLACE INTO promises SELECT since, 1 FROM promises",
    "REPLACE INTO commands SELECT command_id, x'00', derived, 9, recorded_at, receipt, response FROM commands",
    "UPDATE OR REPLACE events SET position = 1 WHERE position = 2",
    "REPLACE INTO meta SELECT one, 'other', log_id, epoch, schema_version, tag_generation, tagging FROM meta",
]
POSTGRES_ATTACKS = [
    "TRUNCATE events",
    "TRUNCATE events, commands, tags, meta CASCADE",
    "TRUNCATE commands",
    "TRUNCATE meta",
    "TRUNCATE promises",
    "INSERT INTO promises SELECT since, 1 FROM promises",
    f"INSERT INTO events {EVENT} VALUES (1, 1, 'x', 'x', 0, 0, 'x', '')",
    f"INSERT INTO events {EVENT} SELECT 1, 1, 'x', 'x', 0, 0, 'x', '' ON CONFLICT (position) DO UPDATE SET id = 'x'",
    "MERGE INTO events USING (SELECT 1) AS s ON true WHEN MATCHED THEN DELETE",
    "SET session_replication_role = replica; DELETE FROM events",
]


async def test_the_sqlite_tables_refuse_every_change(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/log.db"
    log = await open_log(url, "orders")
    await log.remember(3)
    await log.append(entry("c1"))
    await log.append(entry("c2", derived=True))
    before = (await log.read()).events
    with closing(sqlite3.connect(tmp_path / "log.db", isolation_level=None)) as attacker:
        for attack in [*CHANGES_OF_EVENTS, *CHANGES_OF_COMMANDS, *CHANGES_OF_META, *SQLITE_ATTACKS]:
            with pytest.raises(sqlite3.IntegrityError):
                attacker.execute(attack)
    assert (await log.read()).events == before
    assert (await log.append(entry("c2", derived=True))).repeated
    await log.close()


async def test_the_postgres_tables_refuse_every_change(postgres: str, name: str) -> None:
    log = await open_log(postgres, name)
    await log.remember(3)
    await log.append(entry("c1"))
    await log.append(entry("c2", derived=True))
    before = (await log.read()).events
    attacker = await asyncpg.connect(postgres, server_settings={"search_path": f"ceqs_{name}"})
    for attack in [*CHANGES, *POSTGRES_ATTACKS]:
        with pytest.raises(asyncpg.IntegrityConstraintViolationError):
            await attacker.execute(attack)
    await attacker.close()
    assert (await log.read()).events == before
    assert (await log.append(entry("c2", derived=True))).repeated
    await log.close()


async def test_a_newer_schema_is_refused(url: str, name: str, tmp_path: Path) -> None:
    log = await open_log(url, name)
    await log.close()
    upgrade = "UPDATE meta SET schema_version = 99"
    if url.startswith("sqlite"):
        with closing(sqlite3.connect(tmp_path / "log.db", isolation_level=None)) as database:
            database.execute(upgrade)
    else:
        connection = await asyncpg.connect(url, server_settings={"search_path": f"ceqs_{name}"})
        await connection.execute(upgrade)
        await connection.close()
    for opening in (open_log, open_reader):
        with pytest.raises(Misconfigured, match=r"schema version 99, this ceqs knows up to 4: upgrade ceqs"):
            await opening(url, name)
