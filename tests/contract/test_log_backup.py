"""Backups: taken while the log is written, complete or not there at all, restored as another log."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from ceqs.contract import new_id
from ceqs.errors import DuplicateCommand, LogReplaced, LogUnavailable, Misconfigured
from ceqs.log import Condition, Entry, Log, NewEvent, Query, QueryItem, backup_log, open_log, open_reader, restore_log
from ceqs.testing import eventually

A = Query((QueryItem(frozenset({"T"}), frozenset({"a:1"})),))


def entry(command_id: str, *, events: int = 2, **fields: Any) -> Entry:
    made = (
        NewEvent(id=new_id(), type="T", payload=b"p", tags=("a:1", "é:2"), public=n % 2 == 1) for n in range(events)
    )
    return Entry(command_id=command_id, content_hash=b"h", events=tuple(made), **fields)


async def recorded(log: Any) -> list[Any]:
    found: list[Any] = []
    while part := (await log.read(after=len(found), limit=500)).events:
        found += part
    return found


@pytest.fixture
def url(url: str) -> str:
    if url == "memory:":
        pytest.skip("a log in memory cannot be backed up")
    return url


async def test_a_backup_taken_under_load_is_the_log_at_one_moment(
    url: str, name: str, tmp_path: Path, log: Log
) -> None:
    async def load() -> None:
        for number in range(10**9):
            await log.append(entry(f"c{number}"))

    async def beyond(position: int) -> bool:
        return (await log.head()).position > position

    for number in range(100):
        await log.append(entry(f"b{number}", events=20))
    loading = asyncio.create_task(load())
    try:
        await eventually(lambda: beyond(2020))
        reports: list[tuple[int, int]] = []
        made = await backup_log(url, name, tmp_path / "backup.db", lambda *report: reports.append(report))
        before = (await log.head()).position
        await eventually(lambda: beyond(before))  # it goes on
    finally:
        loading.cancel()
    assert made.head.log_id == log.log_id
    assert reports[-1][0] == reports[-1][1] > 0
    assert list(tmp_path.glob("backup*")) == [tmp_path / "backup.db"], "one file, and nothing half done"
    backup = await open_reader(f"sqlite:///{tmp_path}/backup.db", name)
    assert await recorded(backup) == (await recorded(log))[: made.head.position]
    assert made.head.position >= 2020
    await backup.close()


@pytest.mark.parametrize("store", ["sqlite", "postgres"])
async def test_a_restored_log_has_everything_and_is_another_log(
    url: str, name: str, tmp_path: Path, store: str, request: pytest.FixtureRequest
) -> None:
    """From either database into either."""
    log = await open_log(url, name)
    await log.remember(30)
    for number in range(30):
        await log.append(entry(f"c{number}"))
    await log.begin_epoch()
    file = tmp_path / "backup.db"
    made = await backup_log(url, name, file)
    into = f"sqlite:///{tmp_path}/restored.db" if store == "sqlite" else str(request.getfixturevalue("postgres"))
    if into == url:
        # The log goes on after the backup; what is restored is the log as it was.
        await log.append(entry("later"))
        with pytest.raises(Misconfigured, match="has 62 events, which the restored one would replace"):
            await restore_log(into, name, file)
    kept = (await recorded(log))[:60]
    restored = await restore_log(into, name, file, replace=into == url)
    again = await open_log(into, name)
    head = await again.head()
    assert head == restored.head
    assert (head.position, head.public_position, head.epoch) == (60, 30, 3)
    assert head.log_id not in {made.head.log_id, log.log_id}
    assert await recorded(again) == kept
    assert len((await again.read(query=A)).events) == 60, "found by its tags"
    assert await again.remembers() == 30
    with pytest.raises(DuplicateCommand):
        await again.append(Entry(command_id="c7", content_hash=b"other"))
    assert (await again.append(entry("c7"))).repeated
    await again.append(entry("new", condition=Condition(A, 60)))
    if into == url:
        with pytest.raises(LogReplaced):
            await log.append(entry("d", condition=Condition(A, 62)))
        with pytest.raises(LogReplaced):
            await log.head()
    await log.close()
    await again.close()


async def test_the_guards_of_a_restored_log_are_those_of_any(
    url: str, name: str, tmp_path: Path, database: Any
) -> None:
    log = await open_log(url, name)
    await log.append(entry("c"))
    await log.close()
    await backup_log(url, name, tmp_path / "backup.db")
    await restore_log(url, name, tmp_path / "backup.db", replace=True)
    for attack in (
        "DELETE FROM events",
        "UPDATE events SET type = 'X'",
        "DELETE FROM meta",
        "UPDATE meta SET epoch = 0",
    ):
        with pytest.raises(Exception, match=r"immutable|keeps its name"):
            await database.run(attack)
    with closing(sqlite3.connect(tmp_path / "backup.db")) as backup, pytest.raises(sqlite3.Error, match="immutable"):
        backup.execute("DELETE FROM events")


async def test_a_restore_goes_beyond_the_epoch_of_the_log_that_it_replaces(url: str, name: str, tmp_path: Path) -> None:
    log = await open_log(url, name)
    await backup_log(url, name, tmp_path / "backup.db")
    await log.begin_epoch(after=8)
    await log.close()
    assert (await restore_log(url, name, tmp_path / "backup.db")).head.epoch == 10


async def test_a_restore_that_fails_changes_nothing(url: str, name: str, tmp_path: Path) -> None:
    log = await open_log(url, name)
    await log.append(entry("c"))
    head = await log.head()
    await log.close()
    await backup_log(url, name, tmp_path / "backup.db")

    def fail(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        await restore_log(url, name, tmp_path / "backup.db", fail, replace=True)
    again = await open_log(url, name)
    assert await again.head() == head
    await again.close()
    with pytest.raises(KeyboardInterrupt):
        await backup_log(url, name, tmp_path / "other.db", fail)
    assert not list(tmp_path.glob("other*"))


async def test_what_is_no_backup_of_the_log_is_refused(url: str, name: str, tmp_path: Path) -> None:
    log = await open_log(url, name)
    await log.append(entry("c", events=200))
    await log.close()
    file = tmp_path / "backup.db"
    await backup_log(url, name, file)
    with pytest.raises(Misconfigured, match="is there already"):
        await backup_log(url, name, file)
    with pytest.raises(Misconfigured, match="there is no backup"):
        await restore_log(url, name, tmp_path / "none.db", replace=True)
    with pytest.raises(Misconfigured, match=f"is the log of '{name}', not of 'other'"):
        await restore_log(url, "other", file, replace=True)
    (tmp_path / "text.db").write_text("no database, but text that is long enough to be looked at" * 20)
    with pytest.raises(Misconfigured, match="cannot be read"):
        await restore_log(url, name, tmp_path / "text.db", replace=True)
    data = bytearray(file.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 8192] = bytes(8192)
    (tmp_path / "broken.db").write_bytes(data)
    with pytest.raises(Misconfigured, match=r"is broken|cannot be read"):
        await restore_log(url, name, tmp_path / "broken.db", replace=True)
    absent = f"sqlite:///{tmp_path}/absent.db" if url.startswith("sqlite") else url
    with pytest.raises(LogUnavailable, match="there is no log"):
        await backup_log(absent, "absent", tmp_path / "absent.backup")


async def test_a_log_in_sqlite_is_not_restored_under_its_server(name: str, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/log.db"
    log = await open_log(url, name)
    await backup_log(url, name, tmp_path / "backup.db")
    with pytest.raises(Misconfigured, match="is being written by another process"):
        await restore_log(url, name, tmp_path / "backup.db", replace=True)
    await log.close()


async def test_a_reader_of_sqlite_that_is_open_meanwhile_sees_the_restored_log_at_once(
    name: str, tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path}/log.db"
    log = await open_log(url, name)
    await log.append(entry("c"))
    await backup_log(url, name, tmp_path / "backup.db")
    await log.append(entry("d"))
    await log.close()
    reader = await open_reader(url, name)
    assert (await reader.head()).position == 4
    await restore_log(url, name, tmp_path / "backup.db", replace=True)
    with pytest.raises(LogReplaced):
        await reader.head()
    await reader.close()


async def test_a_log_that_is_broken_is_put_aside_for_its_backup(name: str, tmp_path: Path) -> None:
    url, path = f"sqlite:///{tmp_path}/log.db", tmp_path / "log.db"
    log = await open_log(url, name)
    await log.append(entry("c"))
    await log.close()
    await backup_log(url, name, tmp_path / "backup.db")
    path.write_bytes(b"what a disk may leave behind" * 400)
    with pytest.raises(Misconfigured, match="restore with --replace"):
        await restore_log(url, name, tmp_path / "backup.db")
    await restore_log(url, name, tmp_path / "backup.db", replace=True)
    again = await open_log(url, name)
    assert (await again.head()).position == 2
    assert (tmp_path / "log.db.broken").exists()
    await again.close()
