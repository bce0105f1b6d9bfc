"""A SQLite connection that works on the event loop's own thread.

aiosqlite sends each step of each statement to a thread and back, which costs several times what SQLite needs to find or
write a row, and more where the loop is busy: the thread waits for the interpreter's lock after every step. So short
statements run on the loop, and what waits for the disk, the commit, on a thread.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import Callable
from typing import Any, Self
from urllib.parse import quote


class InlineCursor:
    """As much of aiosqlite's cursor as SQLAlchemy uses."""

    def __init__(self, cursor: sqlite3.Cursor) -> None:
        self._cursor = cursor

    def __getattr__(self, name: str) -> Any:
        """Give `description`, `rowcount`, `lastrowid` and the like."""
        return getattr(self._cursor, name)

    async def __aenter__(self) -> Self:
        """Give the cursor."""
        return self

    async def execute(self, *arguments: Any) -> None:
        """Execute a statement."""
        self._cursor.execute(*arguments)

    async def executemany(self, *arguments: Any) -> None:
        """Execute a statement for each set of parameters."""
        self._cursor.executemany(*arguments)

    async def fetchall(self) -> list[Any]:
        """Give all rows."""
        return self._cursor.fetchall()

    async def close(self) -> None:
        """Close the cursor."""
        self._cursor.close()


class InlineConnection:
    """As much of aiosqlite's connection as SQLAlchemy uses."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection: sqlite3.Connection | None = connection

    @property
    def _conn(self) -> sqlite3.Connection:
        if self._connection is None:
            raise ValueError("no active connection")
        return self._connection

    def cursor(self) -> InlineCursor:
        """Give a new cursor."""
        return InlineCursor(self._conn.cursor())

    async def create_function(self, *arguments: Any, **options: Any) -> None:
        """Make a Python function known to SQL."""
        self._conn.create_function(*arguments, **options)

    async def commit(self) -> None:
        """End the transaction, on a thread."""
        await _on_thread(self._conn.commit)

    async def rollback(self) -> None:
        """Undo the transaction."""
        self._conn.rollback()

    async def close(self) -> None:
        """Close the connection."""
        self.stop()

    def stop(self) -> None:
        """Close the connection, at once."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


MUCH = 4 * 1024 * 1024
"""Bytes of a write-ahead log, from which on they are carried to the database."""


class LazyConnection(InlineConnection):
    """A connection that writes what a power cut may take: its commits wait for no disk, and end on the loop too.

    What does wait, carrying the write-ahead log to the database and beginning it anew, is done on a thread.
    """

    def __init__(self, connection: sqlite3.Connection, path: str) -> None:
        super().__init__(connection)
        self._log = f"{path}-wal"
        self._begins = True
        for pragma in (
            "journal_mode = WAL",
            "synchronous = NORMAL",
            "wal_autocheckpoint = 0",
            "journal_size_limit = 0",
        ):
            connection.execute(f"PRAGMA {pragma}").close()

    async def commit(self) -> None:
        """End the transaction."""
        if self._begins:
            await super().commit()
        else:
            self._conn.commit()
        self._begins = self._length() > MUCH
        if self._begins:
            await _on_thread(self._carry)

    def _length(self) -> int:
        try:
            return os.stat(self._log).st_size
        except FileNotFoundError:
            return 0

    def _carry(self) -> None:
        self._conn.execute("PRAGMA wal_checkpoint(PASSIVE)").close()


STEPS = 20_000
"""How many steps of SQLite's virtual machine, about a millisecond, a reading statement may take on the loop."""


class ReadingCursor(InlineCursor):
    """A cursor that reads: what takes long on the loop is interrupted, and begun again on a thread."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        super().__init__(connection.cursor())
        self._connection = connection
        self._rows: list[Any] = []

    async def execute(self, *arguments: Any) -> None:
        """Execute a statement, and take its rows."""
        self._connection.set_progress_handler(_interrupt, STEPS)
        try:
            self._read(*arguments)
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_INTERRUPT:
                raise
            self._connection.set_progress_handler(None, 0)
            await _on_thread(self._read, *arguments)
        finally:
            self._connection.set_progress_handler(None, 0)

    async def fetchall(self) -> list[Any]:
        """Give all rows."""
        rows, self._rows = self._rows, []
        return rows

    async def fetchmany(self, size: int | None = None) -> list[Any]:
        """Give the next rows, one where no number is given."""
        rows, self._rows = self._rows[: size or 1], self._rows[size or 1 :]
        return rows

    async def fetchone(self) -> Any:
        """Give the next row, None after the last."""
        return next(iter(await self.fetchmany()), None)

    def _read(self, *arguments: Any) -> None:
        self._cursor.execute(*arguments)
        self._rows = self._cursor.fetchall()


def _interrupt() -> int:
    return 1


class ReadingConnection(InlineConnection):
    """A connection that is only read: see ReadingCursor."""

    def cursor(self) -> ReadingCursor:
        """Give a new cursor."""
        return ReadingCursor(self._conn)


async def connect_reading(uri: str) -> ReadingConnection:
    """Open the database at a `file:` URI for reading."""
    return ReadingConnection(_open(f"{uri}?mode=ro"))


async def connect(uri: str) -> InlineConnection:
    """Open the database at a `file:` URI; transactions are begun by who uses it."""
    return InlineConnection(_open(uri))


async def connect_lazily(path: str) -> LazyConnection:
    """Open the database in a file to write what can be made again; transactions are begun by who uses it."""
    return LazyConnection(_open(f"file:{quote(path)}"), path)


async def _on_thread(work: Callable[..., object], *arguments: Any) -> None:
    """Do what takes long. Whoever is cancelled meanwhile waits for it: then nobody else uses the connection."""
    done = asyncio.ensure_future(asyncio.to_thread(work, *arguments))
    try:
        await asyncio.shield(done)
    finally:
        await asyncio.wait([done])


def _open(uri: str) -> sqlite3.Connection:
    return sqlite3.connect(uri, uri=True, timeout=10, isolation_level=None, check_same_thread=False)
