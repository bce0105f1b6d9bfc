"""Opening a log by its url."""

from __future__ import annotations

import asyncio
import datetime as dt
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from ceqs.errors import Misconfigured
from ceqs.log._interface import Log, LogReader
from ceqs.log._memory import MemoryLog
from ceqs.log._types import MAX_WAITING_ENTRIES, Retagged
from ceqs.model import EventDecoder

if TYPE_CHECKING:
    from ceqs.log._backup import Copied, Report
    from ceqs.log._sql import Store


def utc_now() -> dt.datetime:
    """Give the time."""
    return dt.datetime.now(dt.UTC)


async def open_log(
    url: str, name: str, *, clock: Callable[[], dt.datetime] = utc_now, max_waiting: int = MAX_WAITING_ENTRIES
) -> Log:
    """Open the log of a context for writing, and create it where there is none.

    `url` is `memory:`, `sqlite:////absolute/path/log.db` or `postgresql://user@host:port/database`; `clock` gives aware
    times; `max_waiting` entries may wait for their transaction.

    Raises Misconfigured where the place is unfit or another process writes the log, LogUnavailable where it cannot be
    reached.
    """
    scheme = _scheme(url, name)
    if scheme == "memory":
        return MemoryLog(name, clock=clock, max_waiting=max_waiting)
    if scheme == "sqlite":
        from ceqs.log._sqlite import open_sqlite_log

        return await open_sqlite_log(_path(url), name, clock=clock, max_waiting=max_waiting)
    if scheme == "postgresql":
        from ceqs.log._postgres import open_postgres_log

        return await open_postgres_log(url, name, clock=clock, max_waiting=max_waiting)
    raise Misconfigured(_unknown(url))


async def open_reader(url: str, name: str) -> LogReader:
    """Open the log of a context for reading only.

    Raises Misconfigured where the place is unfit, LogUnavailable where there is no log yet.
    """
    scheme = _scheme(url, name)
    if scheme == "memory":
        raise Misconfigured("a log in memory has no readers but its own: hand on the one that open_log gave")
    if scheme == "sqlite":
        from ceqs.log._sqlite import open_sqlite_reader

        return await open_sqlite_reader(_path(url), name)
    if scheme == "postgresql":
        from ceqs.log._postgres import open_postgres_reader

        return await open_postgres_reader(url, name)
    raise Misconfigured(_unknown(url))


async def retag_log(
    url: str,
    name: str,
    decoder: EventDecoder,
    *,
    anew: bool = False,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> Retagged:
    """Tag the events of a log as a decoder's contract annotates them, where that has changed; or in any case `anew`.

    On PostgreSQL, servers may go on meanwhile; on SQLite, none may write the log. `report` hears again and again up to
    which position events are tagged, and where the head stands. Ended at any point, it goes on there the next time.

    Raises Misconfigured where the log holds an event that the contract does not declare or a value that cannot be a
    tag, or where a server writes a log in SQLite; LogUnavailable where there is no log. The tags are then as they were.
    """
    from ceqs.log._retag import retag

    store: Store
    await (await open_reader(url, name)).close()
    if _scheme(url, name) == "sqlite":
        from ceqs.log._sqlite import open_sqlite_store

        try:
            store, _ = await open_sqlite_store(_path(url), name, clock=utc_now)
        except Misconfigured as error:
            raise Misconfigured(
                f"{error.message}. Stop it first: on SQLite nothing else may write meanwhile"
            ) from error
    else:
        from ceqs.log._postgres import open_postgres_store

        store, _ = await open_postgres_store(url, name, clock=utc_now)
    try:
        return await retag(store, decoder, anew=anew, report=report)
    finally:
        await store.close()


async def backup_log(url: str, name: str, file: Path, report: Report = lambda done, total: None) -> Copied:
    """Copy a log as it is at one moment into a file, whoever goes on writing it.

    The file is a log in SQLite, whichever database it came from; it appears when it is complete. `report` hears how
    much is done, of how much. Raises Misconfigured where the file is there or cannot be written, LogUnavailable where
    there is no log.
    """
    if _scheme(url, name) == "sqlite":
        from ceqs.log._backup_sqlite import backup_sqlite_log

        return await asyncio.to_thread(backup_sqlite_log, _path(url), name, file, report)
    if _scheme(url, name) == "postgresql":
        from ceqs.log._backup_postgres import backup_postgres_log

        return await backup_postgres_log(url, name, file, report)
    raise Misconfigured(_unknown(url))


async def restore_log(
    url: str, name: str, file: Path, report: Report = lambda done, total: None, *, replace: bool = False
) -> Copied:
    """Put what a backup holds in the place of a log, as another log: with a new id, and a new epoch of its streams.

    Whoever has the old log open is told LogReplaced. On SQLite, no server may write it meanwhile. Interrupted, it has
    changed nothing. Raises Misconfigured where the backup is broken or of another log, or where there is a log with
    events and nobody asked to `replace` it.
    """
    if _scheme(url, name) == "sqlite":
        from ceqs.log._backup_sqlite import restore_sqlite_log

        return await asyncio.to_thread(restore_sqlite_log, _path(url), name, file, report, replace=replace)
    if _scheme(url, name) == "postgresql":
        from ceqs.log._backup_postgres import restore_postgres_log

        return await restore_postgres_log(url, name, file, report, replace=replace)
    raise Misconfigured(_unknown(url))


def _scheme(url: str, name: str) -> str:
    if not re.fullmatch(r"[a-z][a-z0-9_]{0,49}", name):
        raise Misconfigured(f"{name!r} is no name for a log: use a-z, 0-9 and _, at most 50, a letter first")
    return url.partition(":")[0].partition("+")[0]


def _path(url: str) -> Path:
    """`sqlite:///` and a path; with the fourth slash it is absolute."""
    path = url.partition(":///")[2]
    if not path:
        raise Misconfigured(_unknown(url))
    return Path(path).absolute()


def _unknown(url: str) -> str:
    return f"{url!r} is no log: use memory:, sqlite:////absolute/path/log.db or postgresql://user@host:port/database"
