"""A SQLite connection that works on the event loop's own thread.

aiosqlite sends each step of each statement to a thread and back, which costs several times what SQLite needs to find or
write a row, and more where the loop is busy: the thread waits for the interpreter's lock after every step. So short
statements run on the loop, and what waits for the disk, the commit, on a thread.
"""

from __future__ import annotations

import asyncio
import sqlite3
from typing import Any, Self


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
        """End the transaction, on a thread. Whoever is cancelled meanwhile waits for it: then nobody else uses it."""
        commit = asyncio.ensure_future(asyncio.to_thread(self._conn.commit))
        try:
            await asyncio.shield(commit)
        finally:
            await asyncio.wait([commit])

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


async def connect(uri: str) -> InlineConnection:
    """Open the database at a `file:` URI; transactions are begun by who uses it."""
    return InlineConnection(sqlite3.connect(uri, uri=True, timeout=10, isolation_level=None, check_same_thread=False))
