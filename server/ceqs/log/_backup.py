"""Backing a log up while its server runs, and restoring it.

A backup is one file: the log as SQLite holds it, whichever database it came from. So it needs no tool but ceqs, can be
looked into with anything that reads SQLite, and is restored into either database. It is taken from one snapshot,
without keeping anybody waiting, and appears under its name only when it is complete.

A restored log is another log: it gets a new id, and its streams a new epoch, by which everybody who followed the old
one notices that positions do not mean any more what they meant.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Generator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias
from urllib.parse import quote

from sqlalchemy import NullPool, StaticPool, create_engine
from sqlalchemy.exc import DatabaseError

from ceqs.errors import Misconfigured
from ceqs.log._guards import SQLITE as GUARDS
from ceqs.log._identity import new_log_id, next_epoch
from ceqs.log._schema import metadata
from ceqs.log._tables import identify
from ceqs.log._types import Head

Report: TypeAlias = Callable[[int, int], None]
"""Hears how much is done, of how much; in a unit of the database's."""

PAGES = 2_000
"""How many pages of SQLite are copied between two reports."""


@dataclass(frozen=True, slots=True)
class Copied:
    """A backup, or what was restored from one: the head of the log that is there now."""

    head: Head
    size: int
    """In bytes."""


def read_backup(file: Path, name: str) -> Head:
    """Give the head of the log that a backup holds. Raises Misconfigured where it is none of that log, or broken."""
    if not file.is_file():
        raise Misconfigured(f"there is no backup {file}")
    head = peek(file, name)
    if head is None:
        raise Misconfigured(f"{file} is no backup of a log")
    with closing(read_only(file)) as connection:
        ((broken,),) = connection.execute("PRAGMA quick_check(1)").fetchall()
        ((events,),) = connection.execute("SELECT count(*) FROM events").fetchall()
    if broken != "ok":
        raise Misconfigured(f"{file} is broken: {broken}")
    if events != head.position:
        raise Misconfigured(f"{file} is broken: it has {events} events, and its last position is {head.position}")
    return head


def peek(file: Path, name: str) -> Head | None:
    """Give the head of the log that a SQLite file holds; None where it holds none. Raises Misconfigured."""
    engine = create_engine("sqlite://", creator=lambda: read_only(file), poolclass=NullPool)
    try:
        with engine.connect() as connection:
            return identify(connection, name, str(file))
    except (sqlite3.Error, DatabaseError) as error:
        raise Misconfigured(f"{file} cannot be read: {getattr(error, 'orig', error)}") from error
    finally:
        engine.dispose()


def refuse_to_replace(name: str, present: Head | None, *, replace: bool) -> None:
    """Raise Misconfigured where a log with events would be replaced, and nobody asked for that."""
    if present and present.position and not replace:
        raise Misconfigured(
            f"the log of {name} has {present.position} events, which the restored one would replace. Back it up first "
            f"(ceqs log backup {name} FILE), then restore with --replace"
        )


def renewed(backup: Head, present: Head | None) -> Head:
    """Give the head of the log that is restored from a backup: another log than both that one and the present one."""
    return replace(backup, log_id=new_log_id(), epoch=next_epoch(backup, present.epoch if present else 0))


@contextmanager
def appearing(file: Path) -> Generator[Path]:
    """Give where to write a file that gets its name when it is complete and on disk.

    Raises Misconfigured where there is such a file already, or it cannot be written.
    """
    part = file.with_name(f"{file.name}.part")
    if file.exists():
        raise Misconfigured(f"{file} is there already: choose another name")
    try:
        part.unlink(missing_ok=True)
        yield part
        _sync(part)
        part.rename(file)
        _sync(file.parent)
    except OSError as error:
        raise Misconfigured(f"{file} cannot be written: {error.strerror}") from error
    finally:
        part.unlink(missing_ok=True)


def copy_pages(source: Path, target: sqlite3.Connection, report: Report) -> None:
    """Copy a database as it is at one moment, whoever goes on writing it. The target gets it in one transaction."""
    connection = read_only(source)
    try:
        # Without this, every commit of the writer would begin the copy anew.
        connection.execute("BEGIN")
        connection.execute("SELECT count(*) FROM meta").fetchall()
        connection.backup(target, pages=PAGES, progress=lambda _, left, total: report(total - left, total))
    finally:
        connection.close()


@contextmanager
def file_of_its_own(file: Path) -> Generator[sqlite3.Connection]:
    """Open a database that nobody else opens, and leave it as a single file."""
    connection = sqlite3.connect(file, isolation_level=None)
    try:
        yield connection
        connection.execute("PRAGMA journal_mode = DELETE")
    finally:
        connection.close()


def lay(connection: sqlite3.Connection) -> None:
    """Create the tables of a log, without what guards them."""
    engine = create_engine("sqlite://", creator=lambda: connection, poolclass=StaticPool)
    metadata.create_all(engine, checkfirst=False)


def guard(connection: sqlite3.Connection) -> None:
    """Create the triggers that guard the tables of a log."""
    for trigger in GUARDS:
        connection.execute(trigger)


def read_only(file: Path) -> sqlite3.Connection:
    """Open a SQLite file that is not to be changed."""
    return sqlite3.connect(f"file:{quote(str(file))}?mode=ro", uri=True, isolation_level=None, check_same_thread=False)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
