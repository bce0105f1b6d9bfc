"""The file of a log: one writer, and precise words for a file that is none."""

from __future__ import annotations

import asyncio
import sqlite3
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from ceqs.errors import Conflict, LogReplaced, Misconfigured
from ceqs.log import Condition, Entry, NewEvent, Published, Query, QueryItem, open_log, open_reader
from ceqs.log._judge import Verdict
from ceqs.log._ledger import Dialect
from ceqs.log._prepare import Prepared
from ceqs.log._sqlite import SqliteStore
from ceqs.log._worker import Worker
from ceqs.log._writer import Judged

ENTRY = Entry(command_id="c1", events=(NewEvent(id="e1", type="shop.Placed", payload=b""),))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "orders" / "log.db"


async def test_a_second_writer_is_refused_and_told_the_file(path: Path) -> None:
    log = await open_log(f"sqlite:///{path}", "orders")
    with pytest.raises(Misconfigured, match=rf"{path} is being written by another process"):
        await open_log(f"sqlite:///{path}", "orders")
    code = "import asyncio, sys; from ceqs.log import open_log; asyncio.run(open_log(sys.argv[1], 'orders'))"
    other = await asyncio.create_subprocess_exec(
        *[sys.executable, "-c", code, f"sqlite:///{path}"], stderr=asyncio.subprocess.PIPE
    )
    _, said = await other.communicate()
    assert other.returncode == 1
    assert f"{path} is being written by another process".encode() in said
    await log.append(ENTRY)
    await log.close()
    await (await open_log(f"sqlite:///{path}", "orders")).close()


async def test_a_writer_that_died_leaves_no_lock(path: Path) -> None:
    code = """
import asyncio, os, signal, sys
from ceqs.log import open_log
async def main():
    await open_log(sys.argv[1], 'orders')
    os.kill(os.getpid(), signal.SIGKILL)
asyncio.run(main())
"""
    dead = await asyncio.create_subprocess_exec(sys.executable, "-c", code, f"sqlite:///{path}")
    assert await dead.wait() == -9
    log = await open_log(f"sqlite:///{path}", "orders")
    assert (await log.append(ENTRY)).receipt.position == 1
    await log.close()


async def test_missing_directories_are_made(path: Path) -> None:
    log = await open_log(f"sqlite:///{path}", "orders")
    assert path.exists()
    await log.close()


async def test_the_file_is_written_ahead_and_in_full(path: Path) -> None:
    log = await open_log(f"sqlite:///{path}", "orders")
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    await log.close()


async def test_a_file_that_is_no_database_is_refused_and_left_alone(path: Path) -> None:
    path.parent.mkdir(parents=True)
    path.write_bytes(b"dear diary, " * 1000)
    for opening in (open_log, open_reader):
        with pytest.raises(Misconfigured, match=rf"{path} is not a SQLite database"):
            await opening(f"sqlite:///{path}", "orders")
    assert path.read_bytes() == b"dear diary, " * 1000


async def test_a_database_of_something_else_is_refused_and_left_alone(path: Path) -> None:
    path.parent.mkdir(parents=True)
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE diary (line TEXT)")
    with pytest.raises(Misconfigured, match="is a database of something else"):
        await open_log(f"sqlite:///{path}", "orders")
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("SELECT name FROM sqlite_master").fetchall() == [("diary",)]


async def test_the_log_of_another_context_is_refused(path: Path) -> None:
    await (await open_log(f"sqlite:///{path}", "orders")).close()
    for opening in (open_log, open_reader):
        with pytest.raises(Misconfigured, match="is the log of 'orders', not of 'inventory'"):
            await opening(f"sqlite:///{path}", "inventory")


async def test_a_directory_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no directory")
    with pytest.raises(Misconfigured, match=rf"{tmp_path}/file cannot be written: "):
        await open_log(f"sqlite:///{tmp_path}/file/log.db", "orders")
    with pytest.raises(Misconfigured, match=rf"{tmp_path}/file/deeper cannot be written: "):
        await open_log(f"sqlite:///{tmp_path}/file/deeper/log.db", "orders")


async def test_a_directory_in_the_files_place_is_refused(path: Path) -> None:
    path.mkdir(parents=True)
    with pytest.raises(Misconfigured, match=rf"{path} cannot be opened"):
        await open_log(f"sqlite:///{path}", "orders")


async def test_an_empty_file_becomes_a_log(path: Path) -> None:
    path.parent.mkdir(parents=True)
    path.touch()
    log = await open_log(f"sqlite:///{path}", "orders")
    assert (await log.append(ENTRY)).receipt.position == 1
    await log.close()


async def test_readers_leave_the_checkpoint_to_the_writer(path: Path) -> None:
    log = await open_log(f"sqlite:///{path}", "orders")
    await log.append(ENTRY)
    ahead = path.with_name("log.db-wal").stat().st_size
    for _ in range(3):
        reader = await open_reader(f"sqlite:///{path}", "orders")
        assert len((await reader.read()).events) == 1
        await reader.close()
    assert path.with_name("log.db-wal").stat().st_size == ahead > 0
    await log.close()


async def test_the_log_is_read_while_no_server_runs(path: Path) -> None:
    log = await open_log(f"sqlite:///{path}", "orders")
    await log.append(ENTRY)
    await log.close()
    reader = await open_reader(f"sqlite:///{path}", "orders")
    assert len((await reader.read()).events) == 1
    await reader.close()


async def test_a_reader_reads_on_when_the_server_comes_back(path: Path) -> None:
    log = await open_log(f"sqlite:///{path}", "orders")
    reader = await open_reader(f"sqlite:///{path}", "orders")
    for position in range(1, 4):
        event = NewEvent(id=f"e{position}", type="shop.Placed", payload=b"")
        await log.append(Entry(command_id=f"c{position}", events=(event,)))
        assert await reader.wait(position - 1, 30) == position
        await log.close()
        log = await open_log(f"sqlite:///{path}", "orders")
    await reader.close()
    await log.close()


@pytest.mark.parametrize("url", ["sqlite:", "sqlite:///", "mysql://host/x", "", "orders.db"])
async def test_a_url_of_no_log_is_refused(url: str) -> None:
    for opening in (open_log, open_reader):
        with pytest.raises(Misconfigured, match="is no log: use memory:, sqlite:///"):
            await opening(url, "orders")


@pytest.mark.parametrize("name", ["", "Orders", "a.b", "a*", "1a", "a b", "x" * 51, 'a"; DROP SCHEMA x'])
async def test_a_name_that_is_no_name_is_refused(name: str) -> None:
    with pytest.raises(Misconfigured, match="is no name for a log"):
        await open_log("memory:", name)


@pytest.mark.parametrize("assigned", [True, False])
@pytest.mark.parametrize("stored", [True, False])
async def test_a_commit_that_fails_is_done_again_on_a_new_connection_and_once(
    path: Path, monkeypatch: pytest.MonkeyPatch, stored: bool, assigned: bool
) -> None:
    log = await open_log(f"sqlite:///{path}", "orders")
    commit, attempt, failures, attempts = SqliteStore.commit_transaction, SqliteStore.attempt, [1], list[bool]()

    async def count(store: SqliteStore, batch: Sequence[Prepared], judged: Judged, *, again: bool) -> Verdict:
        attempts.append(again)
        return await attempt(store, batch, judged, again=again)

    def fail(connection: sqlite3.Connection) -> None:
        if not failures:
            return commit(connection)
        failures.pop()
        if stored:
            commit(connection)
        raise sqlite3.OperationalError("disk I/O error")

    monkeypatch.setattr(SqliteStore, "commit_transaction", staticmethod(fail))
    monkeypatch.setattr(SqliteStore, "attempt", count)
    appended = await log.append(replace(ENTRY, assigned=assigned))
    assert attempts == [False, True]
    assert (appended.receipt.position, appended.repeated, failures) == (1, stored, [])
    assert len((await log.read()).events) == 1
    await log.close()


ORDER = Query((QueryItem(tags=frozenset({"order:1"})),))
THEIRS = (
    "INSERT INTO events VALUES (2, NULL, 'theirs', 'shop.Placed', 0, 0, 'x', x'')",
    "INSERT INTO tags VALUES (1, 'order:1', 2, 'shop.Placed')",
)


def event(number: int, *, assigned: bool = False) -> Entry:
    tagged = NewEvent(id=f"e{number}", type="shop.Placed", payload=b"", tags=("order:1",))
    return Entry(command_id=f"c{number}", events=(tagged,), assigned=assigned)


# Of an id that is assigned, the log is not asked: nothing is, until the batch is inserted.
@pytest.fixture(params=[False, True], ids=["given", "assigned"])
def numbered(request: pytest.FixtureRequest) -> Callable[[int], Entry]:
    return partial(event, assigned=request.param)


def write_beside(path: Path, *statements: str) -> None:
    """Write to the log's file as no process of ours does."""
    with closing(sqlite3.connect(path)) as stranger:
        for statement in statements:
            stranger.execute(statement)
        stranger.commit()


async def test_where_the_log_stands_is_read_only_where_somebody_else_may_have_moved_it(
    path: Path, monkeypatch: pytest.MonkeyPatch, numbered: Callable[[int], Entry]
) -> None:
    log = await open_log(f"sqlite:///{path}", "orders")
    head, reads = Dialect.head, list[int]()

    def count(dialect: Dialect[Any], connection: Any) -> Any:
        reads.append(1)
        return head(dialect, connection)

    monkeypatch.setattr(Dialect, "head", count)
    for number in range(1, 5):
        assert (await log.append(numbered(number))).position == number
    assert len(reads) == 1
    write_beside(path, "INSERT INTO publishers VALUES ('somebody', 1, 0)")
    await log.append(numbered(5))
    assert len(reads) == 2
    await log.close()


async def test_what_a_stranger_appends_to_the_file_is_neither_overwritten_nor_overlooked(
    path: Path, numbered: Callable[[int], Entry]
) -> None:
    log = await open_log(f"sqlite:///{path}", "orders")
    await log.append(numbered(1))
    write_beside(path, *THEIRS)
    with pytest.raises(Conflict):
        await log.append(replace(numbered(3), condition=Condition(ORDER, 1), events=()))
    with pytest.raises(Conflict):
        await log.append(replace(numbered(3), condition=Condition(ORDER, 1)))
    assert (await log.append(replace(numbered(3), condition=Condition(ORDER, 2)))).position == 3
    await log.close()


async def test_a_generation_of_tags_that_comes_from_outside_counts_at_once(
    path: Path, numbered: Callable[[int], Entry]
) -> None:
    log = await open_log(f"sqlite:///{path}", "orders")
    await log.append(numbered(1))
    write_beside(path, "UPDATE meta SET tag_generation = 2")
    await log.append(numbered(2))
    with closing(sqlite3.connect(path)) as stranger:
        assert stranger.execute("SELECT generation, position FROM tags").fetchall() == [(1, 1), (2, 2)]
    await log.close()


async def test_a_log_that_is_another_one_by_now_is_not_appended_to(
    path: Path, numbered: Callable[[int], Entry]
) -> None:
    log = await open_log(f"sqlite:///{path}", "orders")
    await log.append(numbered(1))
    write_beside(path, "UPDATE meta SET log_id = 'restored'")
    with pytest.raises(LogReplaced):
        await log.append(numbered(2))
    await log.close()


async def test_an_epoch_that_this_process_begins_is_not_forgotten_by_what_it_appends_next(path: Path) -> None:
    log = await open_log(f"sqlite:///{path}", "orders")
    await log.append(event(1))
    await log.begin_epoch()
    await log.append(event(2))
    assert ((await log.head()).position, (await log.head()).epoch) == (2, 2)
    await log.close()


async def test_what_stores_nothing_does_not_wait_for_the_thread(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = await open_log(f"sqlite:///{path}", "orders")
    await log.append(event(1))
    with monkeypatch.context() as patched:
        patched.delattr(Worker, "do")
        assert (await log.append(Entry(command_id="c2", condition=Condition(ORDER, 1)))).position == 1
        with pytest.raises(Conflict):
            await log.append(replace(event(3), condition=Condition(ORDER, 0)))
    assert (await log.append(event(4))).position == 2
    await log.close()


async def test_what_is_written_ahead_is_brought_where_it_belongs(path: Path) -> None:
    log = await open_log(f"sqlite:///{path}", "orders")
    for number in range(1, 301):
        await log.append(event(number, assigned=True))
    # Each transaction writes several pages of 4 KiB.
    assert Path(f"{path}-wal").stat().st_size < 2_000_000
    await log.close()


async def test_so_it_is_where_nothing_is_appended(path: Path) -> None:
    log = await open_log(f"sqlite:///{path}", "orders")
    for number in range(1, 1501):
        await log.published("somebody", Published(1, number))
    assert Path(f"{path}-wal").stat().st_size < 5_000_000
    await log.close()


NOTHING = Entry("c2", condition=Condition(ORDER, 1))


@pytest.mark.parametrize("asks", [event(2), NOTHING, replace(NOTHING, assigned=True)], ids=["id", "both", "nothing"])
async def test_no_answer_waits_for_that_and_whoever_asks_the_log_meanwhile_waits_without_the_loop(
    path: Path, monkeypatch: pytest.MonkeyPatch, asks: Entry
) -> None:
    log = await open_log(f"sqlite:///{path}", "orders")
    go_on, checkpoint = threading.Event(), SqliteStore.checkpoint

    def wait(connection: sqlite3.Connection) -> None:
        assert go_on.wait(10)
        checkpoint(connection)

    monkeypatch.setattr("ceqs.log._sqlite._TIDY", 1)
    monkeypatch.setattr(SqliteStore, "checkpoint", staticmethod(wait))
    await asyncio.wait_for(log.append(event(1, assigned=True)), 5)
    asking = asyncio.ensure_future(log.append(asks))
    await asyncio.wait([asking], timeout=0.1)
    assert not asking.done()
    go_on.set()
    assert (await asyncio.wait_for(asking, 5)).position == 1 + len(asks.events)
    await log.close()


async def test_the_connection_is_not_dropped_while_that_is_done(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = await open_log(f"sqlite:///{path}", "orders")
    go_on, checkpoint, done = threading.Event(), SqliteStore.checkpoint, list[int]()

    def wait(connection: sqlite3.Connection) -> None:
        assert go_on.wait(10)
        checkpoint(connection)
        done.append(1)

    def fail(*_: object, **__: object) -> None:
        raise ArithmeticError

    monkeypatch.setattr("ceqs.log._sqlite._TIDY", 1)
    monkeypatch.setattr(SqliteStore, "checkpoint", staticmethod(wait))
    await log.append(event(1, assigned=True))
    with monkeypatch.context() as patched:
        patched.setattr("ceqs.log._sqlite.settle", fail)
        with pytest.raises(ArithmeticError):
            await log.append(event(2, assigned=True))
    go_on.set()
    assert (await log.append(event(2, assigned=True))).position == 2
    assert done
    await log.close()


async def test_where_that_fails_the_log_goes_on(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = await open_log(f"sqlite:///{path}", "orders")
    monkeypatch.setattr("ceqs.log._sqlite._TIDY", 1)
    failed = list[int]()

    def fail(_: sqlite3.Connection) -> None:
        failed.append(1)
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(SqliteStore, "checkpoint", staticmethod(fail))
    await log.append(event(1, assigned=True))
    write_beside(path, *THEIRS)
    with pytest.raises(Conflict):
        await log.append(replace(event(3, assigned=True), condition=Condition(ORDER, 1)))
    for number in range(3, 6):
        assert (await log.append(event(number, assigned=number < 5))).position == number
    assert failed
    await log.close()
