"""The log in SQL: what SQLite and PostgreSQL have in common."""

from __future__ import annotations

import asyncio
import sqlite3
import uuid
from collections.abc import Collection, Generator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager
from typing import Protocol

import asyncpg
from sqlalchemy import Connection, insert, inspect, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from ceqs.errors import DuplicateCommand, LogUnavailable, Misconfigured
from ceqs.log._follower import Follower
from ceqs.log._histories import Found, Histories, shareable
from ceqs.log._judge import CommandRow, Outcome, Verdict, repeated
from ceqs.log._ledger import HEAD, to_command, to_head
from ceqs.log._prepare import Prepared
from ceqs.log._schema import SCHEMA_VERSION, commands, meta, metadata
from ceqs.log._select import is_filter, select_events
from ceqs.log._shared import Shared
from ceqs.log._types import Appended, Entry, Head, Slice, StoredEvent, Wanted
from ceqs.log._writer import Writer
from ceqs.model import ALL, Query

FAILURES = (SQLAlchemyError, OSError, sqlite3.Error, asyncpg.PostgresError, asyncpg.InterfaceError)
"""What the databases' drivers raise."""
_PAUSES = (0.0, 0.02, 0.1, 0.3, 0.6)
"""Seconds before each attempt to commit a batch."""
_RESOLVE_PAUSE = 0.5


class OutcomeUnknown(Exception):
    """The transaction failed while it was being committed: nobody knows whether it was."""


class Store(Protocol):
    """The one writing connection to a log's database."""

    async def attempt(self, batch: Sequence[Prepared]) -> Verdict:
        """Settle a batch in one transaction under the log's lock.

        Raises OutcomeUnknown where the commit failed, one of FAILURES where something before it did.
        """
        ...

    async def known(self, command_ids: Collection[str]) -> Mapping[str, CommandRow]:
        """Give those of the commands that are stored, once no earlier transaction can store any."""
        ...

    def holding(self, keys: Collection[str]) -> AbstractAsyncContextManager[None]:
        """Keep other processes waiting that hold any of the keys; see Log."""
        ...

    async def close(self) -> None:
        """Give up the connection, and the right to write."""
        ...


class SqlReader:
    """Reads a log from its tables."""

    def __init__(self, name: str, head: Head, engine: AsyncEngine, follower: Follower, histories: Histories) -> None:
        self._name = name
        self._log_id = head.log_id
        self._engine = engine
        self._follower = follower
        self._heads: Shared[None, Head] = Shared(self._read_heads)
        self._histories = histories
        self._closed = False

    @property
    def name(self) -> str:
        """The log's name: the context's."""
        return self._name

    @property
    def log_id(self) -> str:
        """Tells this log from every other of the name."""
        return self._log_id

    async def head(self) -> Head:
        """Say where the log stands."""
        return await self._heads.ask(None)

    async def read(
        self, *, after: int = 0, limit: int = 1000, query: Query = ALL, public: bool = False, until: int | None = None
    ) -> Slice:
        """Read stored events after a position; see LogReader."""
        if until is None and not public and shareable(query):
            with self._reading():
                found = await self._histories.ask(Wanted(after, query))
            if found is not None and len(found.events) < limit:
                return found
        return await self._read(after, limit, query, until, public=public)

    async def read_all(self, wanted: Sequence[Wanted]) -> Sequence[Slice]:
        """Read several histories at once; see LogReader."""
        together = [one for one in wanted if shareable(one.query)]
        with self._reading():
            read = iter(await self._histories.read(together) if together else ())
        found: list[Found] = [next(read) if shareable(one.query) else None for one in wanted]
        return [
            await self._read(one.after, 1000, one.query, None, public=False) if slice_ is None else slice_
            for one, slice_ in zip(wanted, found, strict=True)
        ]

    async def _read(self, after: int, limit: int, query: Query, until: int | None, *, public: bool) -> Slice:
        head: int | None = None
        with self._reading():
            async with self._engine.connect() as connection:
                if is_filter(query):
                    # Looked up first, and a bound of the search: what is recorded in between is not skipped.
                    now = to_head((await connection.execute(HEAD)).one())
                    head = now.public_position if public else now.position
                    until = head if until is None else min(until, head)
                statement = select_events(after, until, limit, query, public=public)
                rows = (await connection.execute(statement)).all()
        found = [StoredEvent(row[0], row[1] or 0, row[2], row[3]) for row in rows]
        complete = not rows or len(rows) == rows[0].found < limit
        if complete and until is not None and head is not None:
            return Slice(found, max(after, until))
        last = found[-1] if found else None
        return Slice(found, (last.public_position if public else last.position) if last else after)

    async def _read_heads(self, asked: Sequence[None]) -> Sequence[Head]:
        with self._reading():
            async with self._engine.connect() as connection:
                return [to_head((await connection.execute(HEAD)).one())] * len(asked)

    async def wait(self, after: int, timeout: float) -> int:  # noqa: ASYNC109  # a bound, not a cancellation
        """Wait until the head's position is beyond `after`; see LogReader."""
        with self._reading():
            return await self._follower.wait(after, timeout)

    async def close(self) -> None:
        """End the reading."""
        self._closed = True
        await self._follower.close()
        await self._heads.close()
        await self._histories.close()
        await self._engine.dispose()

    @contextmanager
    def _reading(self) -> Generator[None]:
        if self._closed:
            raise LogUnavailable("the log is closed")
        try:
            yield
        except FAILURES as error:
            raise LogUnavailable(f"the log {self._name!r} cannot be read: {error}") from error


class SqlLog(SqlReader):
    """Appends to a log's tables through the one writing connection of this process."""

    def __init__(
        self,
        name: str,
        head: Head,
        engine: AsyncEngine,
        follower: Follower,
        histories: Histories,
        *,
        store: Store,
        max_waiting: int,
        alone: bool = False,
    ) -> None:
        """`alone`: no other process writes, so the head is known without asking the database."""
        super().__init__(name, head, engine, follower, histories)
        self._known_head = head if alone else None
        self._store = store
        self._writer = Writer(self._commit, max_waiting=max_waiting)

    async def head(self) -> Head:
        """Say where the log stands."""
        if self._known_head is None or self._closed:
            return await super().head()
        return self._known_head

    async def append(self, entry: Entry) -> Appended:
        """Append the events of one command; see Log."""
        return await self._writer.append(entry)

    async def append_all(self, entries: Sequence[Entry]) -> Sequence[Outcome]:
        """Append the events of several commands in one transaction; see Log."""
        return await self._writer.append_all(entries)

    def holding(self, keys: Collection[str]) -> AbstractAsyncContextManager[None]:
        """Keep other processes waiting that hold any of the keys; see Log."""
        return self._store.holding(keys)

    async def find(self, command_id: str, content_hash: bytes, *, derived: bool = False) -> Appended | None:
        """Give what the command id was accepted with; see Log."""
        with self._reading():
            async with self._engine.connect() as connection:
                rows = await connection.execute(select(commands).where(commands.c.command_id == command_id))
                row = rows.one_or_none()
        if row is None:
            return None
        outcome = repeated(to_command(row), content_hash, derived=derived)
        if isinstance(outcome, DuplicateCommand):
            raise outcome
        return outcome

    async def close(self) -> None:
        """End the log's work: what was accepted is on disk."""
        self._closed = True
        await self._writer.close()
        await self._store.close()
        await super().close()

    async def _commit(self, batch: Sequence[Prepared]) -> Sequence[Outcome]:
        """Commit a batch, again where that fails: command ids make the repetition harmless."""
        unknown, failure = False, ""
        for pause in _PAUSES:
            await asyncio.sleep(pause)
            try:
                verdict = await self._store.attempt(batch)
            except (OutcomeUnknown, *FAILURES) as error:
                unknown = unknown or isinstance(error, OutcomeUnknown)
                failure = str(error)
            else:
                if self._known_head is not None:
                    self._known_head = verdict.head
                self._follower.advance(verdict.head.position)
                return verdict.outcomes
        unavailable = f"the log {self._name!r} cannot be written: {failure}"
        if not unknown:
            raise LogUnavailable(unavailable)
        self._known_head = None
        known = await self._resolve([prepared.entry.command_id for prepared in batch if not prepared.invalid])
        return [self._resolved(prepared, known) or LogUnavailable(unavailable) for prepared in batch]

    @staticmethod
    def _resolved(prepared: Prepared, known: Mapping[str, CommandRow]) -> Outcome | None:
        entry, row = prepared.entry, known.get(prepared.entry.command_id)
        if row is None:
            return prepared.invalid
        return repeated(row, entry.content_hash, derived=entry.derived)

    async def _resolve(self, command_ids: Collection[str]) -> Mapping[str, CommandRow]:
        """Find out what a lost commit stored. Nobody is answered before that is known."""
        while True:
            try:
                return await self._store.known(command_ids)
            except FAILURES as error:
                if self._closed:
                    raise LogUnavailable(f"the log {self._name!r} was closed before it answered: {error}") from error
            await asyncio.sleep(_RESOLVE_PAUSE)


def create(connection: Connection, name: str, guards: Sequence[str]) -> None:
    """Create the tables of a new log, and the triggers that guard them."""
    metadata.create_all(connection, checkfirst=False)
    for guard in guards:
        connection.exec_driver_sql(guard)
    values = {"one": 1, "name": name, "log_id": uuid.uuid4().hex, "epoch": 1, "tag_generation": 1}
    connection.execute(insert(meta), {**values, "schema_version": SCHEMA_VERSION})


def identify(connection: Connection, name: str, place: str) -> Head | None:
    """Give the head of the log that is stored here; None where there is none.

    Raises Misconfigured where it is another log, or of a schema that this code does not know.
    """
    if not inspect(connection).has_table(meta.name):
        return None
    row = connection.execute(select(meta.c.name, meta.c.schema_version)).one()
    if row.schema_version > SCHEMA_VERSION:
        raise Misconfigured(
            f"{place} has the schema version {row.schema_version}, this ceqs knows up to {SCHEMA_VERSION}: upgrade ceqs"
        )
    if row.name != name:
        raise Misconfigured(f"{place} is the log of {row.name!r}, not of {name!r}")
    return to_head(connection.execute(HEAD).one())
