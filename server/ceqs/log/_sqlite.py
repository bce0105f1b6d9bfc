"""The log on SQLite: one writing connection on a thread of its own, readers that only read."""

from __future__ import annotations

import asyncio
import datetime as dt
import fcntl
import os
import sqlite3
import time
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, cast
from urllib.parse import quote

from sqlalchemy import URL, Connection, NullPool, create_engine, event, inspect
from sqlalchemy.exc import DatabaseError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import AsyncAdaptedQueuePool

from ceqs.errors import LogUnavailable, Misconfigured
from ceqs.log import _guards, inline
from ceqs.log._follower import Follower
from ceqs.log._histories import SqliteHistories
from ceqs.log._judge import CommandRow, Verdict, settle
from ceqs.log._ledger import HEAD, SQLITE, Found, Index, SqlLedger, stored, to_head
from ceqs.log._prepare import Prepared
from ceqs.log._recent import Recent
from ceqs.log._rows_sqlite import Rows, insert, make_view, rows_of
from ceqs.log._select_sqlite import SqliteReads
from ceqs.log._sql import OutcomeUnknown, SqlLog, Step, Untold
from ceqs.log._sql_reader import FAILURES, SqlReader
from ceqs.log._tables import create, identify
from ceqs.log._tagging import Tagging
from ceqs.log._types import Head
from ceqs.log._worker import Worker
from ceqs.log._writer import Judged

_T = TypeVar("_T")

_READERS = 4
_TIDY = 200
"""After about how many pages they go from the log that is written ahead to where they belong.

After 1,000, SQLite does it itself, in the midst of a commit: so it is where no batches are appended.
"""
_BEGIN = "BEGIN IMMEDIATE"


async def open_sqlite_log(path: Path, name: str, *, clock: Callable[[], dt.datetime], max_waiting: int) -> SqlLog:
    """Open or create the log in a file for writing; see open_log."""
    store, head = await open_sqlite_store(path, name, clock=clock)
    # Only this process writes, so nobody needs to look whether another one did.
    engine, follower = _reading_engine(path), Follower(head)
    histories, reads = SqliteHistories(_uri(path)), SqliteReads(_uri(path))
    return SqlLog(name, head, engine, follower, histories, reads, store=store, max_waiting=max_waiting, alone=True)


async def open_sqlite_store(path: Path, name: str, *, clock: Callable[[], dt.datetime]) -> tuple[SqliteStore, Head]:
    """Open what writes the log in a file."""
    store = SqliteStore(path, name, clock)
    return store, await store.open()


async def open_sqlite_reader(path: Path, name: str) -> SqlReader:
    """Open the log in a file for reading; see open_reader."""
    if not path.exists():  # noqa: ASYNC240  # once, at start-up
        raise LogUnavailable(f"there is no log at {path} yet: start the server of {name!r}")
    engine = _reading_engine(path)
    try:
        async with engine.connect() as connection:
            head = await connection.run_sync(identify, name, str(path))
    except FAILURES as error:
        await engine.dispose()
        raise _unfit(path, error) from error
    except BaseException:
        await engine.dispose()
        raise
    if head is None:
        await engine.dispose()
        raise LogUnavailable(f"there is no log in {path} yet: start the server of {name!r}")
    histories = SqliteHistories(_uri(path))
    follower = Follower(head, _poll(histories))
    found = path.stat().st_ino  # noqa: ASYNC240  # once, at start-up
    reads = SqliteReads(_uri(path))
    return SqlReader(name, head, engine, follower, histories, reads, in_place=lambda: _inode(path) == found)


def _inode(path: Path) -> int:
    try:
        return path.stat().st_ino
    except FileNotFoundError:
        return 0


class SqliteStore:
    """The writing connection. It inserts, and waits for the disk, on a thread of its own, one batch after the other.

    One task at a time may ask for anything, and beside it one for what goes ahead, which needs nothing but the thread.
    """

    def __init__(self, path: Path, name: str, clock: Callable[[], dt.datetime]) -> None:
        self._path = path
        self._name = name
        self._clock = clock
        self._worker = Worker(f"ceqs-log-{name}")
        url = URL.create("sqlite", database=str(path))
        self._engine = create_engine(url, poolclass=NullPool, connect_args={"check_same_thread": False})
        event.listen(self._engine, "connect", configure)
        event.listen(self._engine, "connect", _make_view)
        event.listen(self._engine, "begin", _begin)
        self.tagging = Tagging(name)
        self._recent = Recent()
        self._log_id = ""
        self._left: Found | None = None
        """How this process leaves the log if the thread succeeds; None where it does not know, and while it judges."""
        self._version: int | None = None
        """Of the database, as SQLite counts for this connection what others have committed."""
        self._written = 0
        """About how many pages have been written ahead."""
        self._busy: asyncio.Future[Any] | None = None
        """Is done when the thread has done the batch, checkpoint or step that it was given last.

        Until then, the connection is the thread's.
        """
        self._connection: Connection | None = None
        self._lock: int | None = None

    async def open(self) -> Head:
        """Take the right to write, create the log where there is none, and give its head."""
        try:
            return await self._worker.do(self._open)
        except BaseException:
            await self.close()
            raise

    async def attempt(self, batch: Sequence[Prepared], judged: Judged, *, again: bool) -> Verdict:
        """Settle a batch in one transaction; see Store."""
        left, self._left = self._left, None
        if left:
            with suppress(Untold):  # then it is asked how the log stands
                return await self._record_all(batch, judged, left, again=again)
        if self._busy:
            await asyncio.wait([self._busy])
        return await self._record_all(batch, judged, None, again=again)

    async def ahead(self, batch: Sequence[Prepared], judged: Judged) -> Verdict:
        """Settle a batch upon one that is on its way to the disk; see Store."""
        left, self._left = self._left, None
        if left is None:
            raise Untold
        return await self._record_all(batch, judged, left, again=False)

    async def _record_all(
        self, batch: Sequence[Prepared], judged: Judged, left: Found | None, *, again: bool
    ) -> Verdict:
        # A thread waits for a busy loop after every statement. So what has to be asked is asked here, and inserting and
        # committing are the thread's, which work beside the loop. Of what stores nothing, even the commit waits for no
        # disk.
        verdict, index = self._settle(batch, left, again=again)
        if not verdict.events and not verdict.commands:
            self._begun()
            self._record(())
            self._left = verdict.head, index
            return verdict
        recorded = self._busy = self._worker.do(self._record, rows_of(verdict))
        self._written += 5 + len(verdict.events)
        if self._written >= _TIDY:
            self._busy, self._written = self._worker.do(self._tidy_up), 0
        self._left = verdict.head, index
        self._recent.leave(verdict)
        judged(verdict.outcomes)
        try:
            await recorded
        except BaseException:
            self._left = None
            self._recent.forget()
            raise
        return verdict

    async def known(self, command_ids: Collection[str]) -> Mapping[str, CommandRow]:
        """Give those of the commands that are stored; see Store."""
        return await self.work(partial(stored, command_ids=command_ids))

    async def work(self, step: Step[_T], *, locked: bool = True) -> _T:  # nobody else writes
        """Execute a step in a transaction of its own; see Store."""
        self._left = None
        self._busy = done = self._worker.do(self._work, step)
        # Whoever asked may give up; the connection is the thread's all the same.
        return await asyncio.shield(done)

    def holding(self, keys: Collection[str]) -> AbstractAsyncContextManager[None]:  # see Store
        """Keep nobody waiting: no other process writes."""
        return nullcontext()

    async def close(self) -> None:
        """Give up the connection and the lock."""
        await self._worker.do(self._close)
        self._worker.close()

    def _open(self) -> Head:
        self._lock = take_lock(self._path)
        try:
            with self._connected().begin():
                head = identify(self._connected(), self._name, str(self._path))
                if head is None:
                    if inspect(self._connected()).get_table_names():
                        raise Misconfigured(f"{self._path} is a database of something else")
                    create(self._connected(), self._name, _guards.SQLITE)
                    head = to_head(self._connected().execute(HEAD).one())
                self._log_id = head.log_id
                return head
        except SQLAlchemyError as error:
            raise _unfit(self._path, error) from error

    def _settle(self, batch: Sequence[Prepared], left: Found | None, *, again: bool) -> tuple[Verdict, Index]:
        """Judge a batch, by what is known of the log if that is enough: see Untold."""
        try:
            found = left or SQLITE.head(self._begun(known=False))
            ledger = SqlLedger(self._begun, SQLITE, found, self._name, self._log_id, self.tagging, self._recent)
            return settle(ledger, batch, again=again, now=self._clock(), monotonic=time.monotonic()), found[1]
        except BaseException:
            if not self._is_busy():
                self._disconnect()
            raise

    def _is_busy(self) -> bool:
        return self._busy is not None and not self._busy.done()

    def _begun(self, *, known: bool = True) -> sqlite3.Connection:
        """Give the connection, in a transaction. Raises Untold as _transaction does, or while the thread is at work."""
        if self._is_busy():
            raise Untold
        return self._transaction(known=known)

    def _transaction(self, *, known: bool) -> sqlite3.Connection:
        """Begin a transaction if there is none; give the connection.

        Raises Untold, unless nothing is taken as `known`, where somebody else has committed since this process did, and
        on a new connection, such as is made where what was to be recorded before has failed.
        """
        driver = self._driver()
        if not driver.in_transaction:
            driver.execute(_BEGIN)
            (version,) = driver.execute("PRAGMA data_version").fetchone()
            same, self._version = version == self._version, version
            if known and not same:
                driver.rollback()
                raise Untold
        return driver

    def _record(self, parts: Sequence[Rows]) -> None:
        """Record what was judged by what is known. Raises Untold where the log is not left so: see _transaction."""
        try:
            connection = self._transaction(known=True)
            for rows in parts:
                insert(connection, rows)
            try:
                self.commit_transaction(connection)
            except sqlite3.Error as error:
                raise OutcomeUnknown(str(error)) from error
        except BaseException:
            self._disconnect()
            raise

    def _tidy_up(self) -> None:
        """Do in good time what SQLite would do in the midst of a commit: by now, that is answered."""
        try:
            self.checkpoint(self._driver())
        except Exception:  # noqa: BLE001
            # Nothing is lost. Where the disk is full, or broken, the next transaction says so.
            self._disconnect()

    @staticmethod
    def checkpoint(connection: sqlite3.Connection) -> None:
        """Bring what was written ahead where it belongs, as far as nobody reads what is there."""
        connection.execute("PRAGMA wal_checkpoint(PASSIVE)").close()

    @staticmethod
    def commit_transaction(connection: sqlite3.Connection) -> None:
        """Commit: the step whose failure leaves the outcome unknown."""
        # Unlike an executed COMMIT, this gives the interpreter's lock up once, and waits for it once.
        connection.commit()

    def _work(self, step: Step[_T]) -> _T:
        try:
            with self._connected().begin():
                return step(self._driver(), SQLITE)
        except BaseException:
            self._disconnect()
            raise

    def _connected(self) -> Connection:
        if self._connection is None:
            self._connection = self._engine.connect()
        return self._connection

    def _driver(self) -> sqlite3.Connection:
        return cast("sqlite3.Connection", self._connected().connection.driver_connection)

    def _disconnect(self) -> None:
        connection, self._connection, self._version = self._connection, None, None
        if connection is not None:
            connection.invalidate()
            connection.close()

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def configure(connection: Any, _: object = None) -> None:
    """Make a connection one that writes a log: what it commits is on disk."""
    # Transactions begin where SQLAlchemy says so, not at the driver's first INSERT.
    connection.isolation_level = None
    mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
    if mode != "wal":
        raise Misconfigured(f"SQLite cannot write ahead here (journal mode {mode!r}): use a local file system")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA fullfsync = ON")
    connection.execute("PRAGMA recursive_triggers = ON")
    # Of the rows that one statement has inserted before it fails, SQLite keeps what was there: not in a file.
    connection.execute("PRAGMA temp_store = MEMORY")


def _make_view(connection: Any, _: object) -> None:
    make_view(connection)


def _begin(connection: Connection) -> None:
    connection.exec_driver_sql(_BEGIN)


def take_lock(path: Path) -> int:
    """Take the right to write: an exclusive lock on a file beside the database, which ends with the process."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise Misconfigured(f"{path.parent} cannot be written: {error.strerror}") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(lock)
        raise Misconfigured(f"{path} is being written by another process: one server writes a log") from error
    return lock


def _uri(path: Path) -> str:
    # A read-only connection never checkpoints: that is the writer's alone.
    return f"file:{quote(str(path))}?mode=ro"


def _reading_engine(path: Path) -> AsyncEngine:
    return create_async_engine(
        "sqlite+aiosqlite://",
        async_creator=lambda: inline.connect(_uri(path)),
        poolclass=AsyncAdaptedQueuePool,
        pool_size=_READERS,
    )


def _poll(histories: SqliteHistories) -> Callable[[], Awaitable[Head]]:
    """Give a function that looks where the head stands.

    It asks the database each time: its files change before a commit can be seen, and the disk may take its time
    between the two, so that who looks at the files alone misses the last commit.
    """

    async def poll() -> Head:
        return histories.head()

    return poll


def _unfit(path: Path, error: Exception) -> Exception:
    """Give the error that says what is wrong with a file."""
    said = str(getattr(error, "orig", error))
    if isinstance(error, DatabaseError) and "not a database" in said:
        return Misconfigured(f"{path} is not a SQLite database")
    if "unable to open" in said or "readonly" in said:
        return Misconfigured(f"{path} cannot be opened: {said}")
    return LogUnavailable(f"{path} cannot be read: {said}")
