"""The log on PostgreSQL: any number of writing processes, in turn under an advisory lock."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from functools import partial
from typing import NoReturn, TypeVar

from sqlalchemy import Connection, make_url, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from ceqs.errors import LogUnavailable, Misconfigured
from ceqs.log import _guards
from ceqs.log._connect_postgres import LOCK, READING, WRITING, engine_for, lock_key, opening, place, schema
from ceqs.log._driver_postgres import Driver, driver_of, execute
from ceqs.log._follower import Follower
from ceqs.log._histories import Found as History
from ceqs.log._histories import read_histories
from ceqs.log._holding_postgres import Holders
from ceqs.log._judge import CommandRow, Verdict, settle
from ceqs.log._kept import read_kept
from ceqs.log._ledger import HEAD, POSTGRES, Found, Index, SqlLedger, stored, to_head
from ceqs.log._prepare import Prepared
from ceqs.log._recent import Recent
from ceqs.log._rows_postgres import APPEND, APPENDED, APPENDING, appended, insert_verdict
from ceqs.log._select_postgres import PostgresReads, connected
from ceqs.log._shared import Shared
from ceqs.log._sql import OutcomeUnknown, SqlLog, Step, Untold
from ceqs.log._sql_reader import FAILURES, SqlReader
from ceqs.log._tables import create, identify
from ceqs.log._tagging import Tagging
from ceqs.log._types import Head, Kept, StateKey, Wanted
from ceqs.log._writer import Judged

_T = TypeVar("_T")
_R = TypeVar("_R")

_READERS = 4
_QUIET = 8
"""After how many batches that nobody came in between of the next one is taken to find the log as the last has left it.

Where it does not, it has told what it did not record, and what was decided upon that is decided again.
"""
BESIDE_TABLES = (*_guards.POSTGRES, APPENDING)
"""Makes what the schema of a log has beside its tables."""
_HIDDEN = text("SELECT 1 FROM pg_namespace WHERE nspname = :schema AND NOT has_schema_privilege(oid, 'USAGE')")


async def open_postgres_log(url: str, name: str, *, clock: Callable[[], dt.datetime], max_waiting: int) -> SqlLog:
    """Open or create the log in a database for writing; see open_log."""
    store, head = await open_postgres_store(url, name, clock=clock)
    engine = engine_for(url, name, READING, _READERS)
    histories, reads = _PostgresHistories(engine), PostgresReads(engine)
    follower = Follower(head, _poll(reads))
    return SqlLog(name, head, engine, follower, histories, reads, store=store, max_waiting=max_waiting)


async def open_postgres_store(url: str, name: str, *, clock: Callable[[], dt.datetime]) -> tuple[_PostgresStore, Head]:
    """Open what writes the log in a database."""
    store = _PostgresStore(url, name, clock)
    try:
        with opening(url):
            return store, await store.open()
    except BaseException:
        await store.close()
        raise


async def open_postgres_reader(url: str, name: str) -> SqlReader:
    """Open the log in a database for reading; see open_reader."""
    engine = engine_for(url, name, READING, _READERS)
    try:
        with opening(url):
            async with engine.connect() as connection:
                head = await connection.run_sync(identify, name, place(url, name))
                if head is None and (await connection.execute(_HIDDEN, {"schema": schema(name)})).first():
                    grant = f"GRANT pg_read_all_data TO {make_url(url).username}"
                    raise Misconfigured(f"{place(url, name)} is closed to this user: {grant}")
        if head is None:
            raise LogUnavailable(f"there is no log in {place(url, name)} yet: start the server of {name!r}")
    except BaseException:
        await engine.dispose()
        raise
    histories, reads = _PostgresHistories(engine), PostgresReads(engine)
    return SqlReader(name, head, engine, Follower(head, _poll(reads)), histories, reads)


class _PostgresStore:
    """The writing connection."""

    def __init__(self, url: str, name: str, clock: Callable[[], dt.datetime]) -> None:
        self._engine = engine_for(url, name, WRITING, 1)
        self._holders = Holders(url, name)
        self._name = name
        self._key = lock_key(name)
        self._clock = clock
        self.tagging = Tagging(name)
        self._recent = Recent()
        self._log_id = ""
        self._left: Found | None = None
        """How this process has left the log."""
        self._quiet = 0
        """So many batches in a row have found it so."""
        self._astray = False
        """Whether a statement that appends at once may still come to the database, though nobody waits for it."""
        self._connection: AsyncConnection | None = None

    async def open(self) -> Head:
        """Create the log where there is none, and give its head."""
        async with self._engine.begin() as connection:
            await connection.execute(LOCK, {"key": self._key})
            return await connection.run_sync(self._open)

    def _open(self, connection: Connection) -> Head:
        place = f"the schema {schema(self._name)}"
        head = identify(connection, self._name, place)
        if head is None:
            connection.exec_driver_sql(f"CREATE SCHEMA IF NOT EXISTS {schema(self._name)}")
            create(connection, self._name, BESIDE_TABLES)
            head = to_head(connection.execute(HEAD).one())
        self._log_id = head.log_id
        return head

    async def attempt(self, batch: Sequence[Prepared], judged: Judged, *, again: bool) -> Verdict:
        """Settle a batch in one transaction; see Store."""
        if self._left and self._quiet >= _QUIET:
            with suppress(Untold):
                return await self._attempt_at_once(batch, judged, self._left, again=again)
        async with self._writing() as connection:
            verdict, index = await connection.run_sync(
                self._begun, partial(self._settle, judged=judged, again=again), batch
            )
            await self._commit(connection)
        self._leave(verdict, index)
        self._astray = False
        return verdict

    async def _attempt_at_once(self, batch: Sequence[Prepared], judged: Judged, left: Found, *, again: bool) -> Verdict:
        """Settle a batch in one journey, upon the log as it was left.

        Raises Untold where too little of it is known, it is not as it was left, or somebody else is writing.
        """
        if self._connection is None or not await self._connection.run_sync(_is_open):
            raise Untold
        ledger = _Remembered(_untold, POSTGRES, left, self._name, self._log_id, self.tagging, self._recent)
        verdict = self._judge(ledger, batch, judged, again=again)
        values = appended(self._key, left, ledger.new, verdict)
        self._astray = True
        async with self._writing() as connection:
            done = await self._commit(connection, APPEND, *values)
        self._astray = False
        if done != APPENDED:
            raise Untold
        self._leave(verdict, left[1])
        return verdict

    async def _commit(self, connection: AsyncConnection, statement: str = "COMMIT", *values: object) -> str:
        try:
            return await connection.run_sync(self.commit_transaction, statement, *values)
        except FAILURES as error:
            raise OutcomeUnknown(str(error)) from error

    async def ahead(self, batch: Sequence[Prepared], judged: Judged) -> Verdict:
        """Raise Untold: other processes write as well; see Store."""
        raise Untold

    def _settle(
        self, driver: Driver, batch: Sequence[Prepared], judged: Judged, *, again: bool
    ) -> tuple[Verdict, Index]:
        found = POSTGRES.head(driver)
        self._quiet = self._quiet + 1 if found == self._left else 0
        ledger = SqlLedger(lambda: driver, POSTGRES, found, self._name, self._log_id, self.tagging, self._recent)
        verdict = self._judge(ledger, batch, judged, again=again)
        insert_verdict(driver, verdict)
        return verdict, found[1]

    def _judge(self, ledger: SqlLedger[Driver], batch: Sequence[Prepared], judged: Judged, *, again: bool) -> Verdict:
        verdict = settle(ledger, batch, again=again, now=self._clock(), monotonic=time.monotonic())
        judged(verdict.outcomes)
        return verdict

    def _leave(self, verdict: Verdict, index: Index) -> None:
        """Note how the log is left."""
        self._recent.leave(verdict)
        self._left = verdict.head, index

    async def known(self, command_ids: Collection[str]) -> Mapping[str, CommandRow]:
        """Give those of the commands that are stored; see Store."""
        return await self.work(partial(stored, command_ids=command_ids))

    async def work(self, step: Step[_R], *, locked: bool = True) -> _R:
        """Execute a step in a transaction of its own; see Store."""
        async with self._writing() as connection:
            done = await connection.run_sync(self._begun, step, POSTGRES, locked=locked)
            await connection.run_sync(self.commit_transaction)
        self._astray = self._astray and not locked
        return done

    def holding(self, keys: Collection[str]) -> AbstractAsyncContextManager[None]:
        """Keep other processes waiting that hold any of the keys; see Log."""
        return self._holders.holding(keys)

    async def close(self) -> None:
        """Give up the connections."""
        if self._connection is not None:
            await self._connection.close()
            self._connection = None
        await self._holders.close()
        await self._engine.dispose()

    def _begun(
        self, connection: Connection, work: Callable[[Driver, _T], _R], argument: _T, *, locked: bool = True
    ) -> _R:
        """Work in a new transaction, which holds the log's lock if it is to be `locked`; it is to be committed."""
        driver = driver_of(connection)
        # A statement of its own: the next one's snapshot then has everything that was committed under the lock.
        lock = f"SELECT pg_advisory_xact_lock({self._key})" if locked else ""
        execute(driver, f"BEGIN ISOLATION LEVEL READ COMMITTED; {lock}")
        if locked and self._astray:
            # Nobody is told that it was not recorded while it may be: by now it is, or is not as it expects the log.
            execute(driver, "UPDATE meta SET tagging = tagging + 1")
        return work(driver, argument)

    @staticmethod
    def commit_transaction(connection: Connection, statement: str = "COMMIT", *values: object) -> str:
        """Execute what commits, and give what it has done: the step whose failure leaves the outcome unknown."""
        return execute(driver_of(connection), statement, *values)

    @asynccontextmanager
    async def _writing(self) -> AsyncGenerator[AsyncConnection]:
        """Give the connection for a transaction, which ends with it where anything fails."""
        if self._connection is None:
            self._connection = await self._engine.connect()
        connection = self._connection
        try:
            yield connection
        except BaseException:
            self._connection = None
            await connection.invalidate()
            await connection.close()
            raise


class _Remembered(SqlLedger[Driver]):
    """The log as this process has left it."""

    new: Collection[str] = ()
    """The ids of commands that are to be new: whether they are is for the transaction that relies on it."""

    def commands(self, command_ids: Collection[str]) -> Mapping[str, CommandRow]:
        """Take them to be new."""
        self.new = command_ids
        return {}


def _untold() -> NoReturn:
    raise Untold


def _is_open(connection: Connection) -> bool:
    return not driver_of(connection).driver_connection.is_closed()


class _PostgresHistories(Shared[Wanted, History]):
    """Reads together what is asked for at the same time: a statement costs a journey to the database and back."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        super().__init__(self.read)

    async def read(self, wanted: Sequence[Wanted]) -> Sequence[History]:
        """Read several at once."""
        async with connected(self._engine) as connection:
            return await connection.run_sync(lambda own: read_histories(driver_of(own), POSTGRES, wanted))

    async def kept(self, wanted: Sequence[StateKey]) -> Sequence[Kept | None]:
        """Read kept states."""
        async with connected(self._engine) as connection:
            return await connection.run_sync(lambda own: read_kept(driver_of(own), POSTGRES, wanted))


def _poll(reads: PostgresReads) -> Callable[[], Awaitable[Head]]:
    async def poll() -> Head:
        return to_head(await reads.head())

    return poll
