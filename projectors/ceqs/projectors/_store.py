"""Writing a place: the handler's rows and its checkpoint, in one transaction."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, NoReturn, Self

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from ceqs.errors import CeqsError, Misconfigured
from ceqs.projectors._outbox import Outbox, tally
from ceqs.projectors._place import Place, dispose
from ceqs.projectors._reader import Checkpoint, checkpoint_of
from ceqs.projectors._tables import CHECKPOINT, PLATFORM
from ceqs.projectors._timers import Timers, count_timers

_REACHED = "ceqs_reached"


class Superseded(CeqsError):
    """Another process writes the place now."""


class HandlerSession(AsyncSession):
    """The session that a projection writes with: the platform commits it, together with the checkpoint."""

    async def commit(self) -> NoReturn:
        """Refuse. Raises Misconfigured."""
        raise Misconfigured("a projection must not commit: its rows are committed together with its checkpoint")

    async def rollback(self) -> NoReturn:
        """Refuse. Raises Misconfigured."""
        raise Misconfigured("a projection must not roll back: raise an error, or use session.begin_nested()")


class Store:
    """The one writer of a place. Its transactions follow one another."""

    def __init__(self, place: Place, source: str) -> None:
        self.place = place
        self._source = source
        self._engine = place.writing_engine()
        self._turn = asyncio.Lock()
        self.outbox = Outbox(self.begin)
        self.timers = Timers(self.begin)
        self.at = Checkpoint()
        """Where the place stands, as this process left it."""
        self.skipped = 0

    @classmethod
    @asynccontextmanager
    async def open(cls, place: Place, source: str, metadata: sa.MetaData | None = None) -> AsyncGenerator[Self]:
        """Open the place, and make its tables where they are missing. `source` names the context whose log is read."""
        _check(metadata)
        store = cls(place, source)
        try:
            await store._create(metadata)
            yield store
        finally:
            await dispose(store._engine)

    @asynccontextmanager
    async def advance(self, to: Checkpoint, *, skipped: int = 0) -> AsyncGenerator[AsyncSession]:
        """Give a session whose rows are committed together with the move of the checkpoint.

        Raises Superseded where the checkpoint is not where this process left it.
        """
        async with self.amend(skipped=CHECKPOINT.c.skipped + skipped, paused="", **_position(to)) as session:
            yield session
            session.info[_REACHED] = to
        self.skipped += skipped

    @asynccontextmanager
    async def amend(self, **values: Any) -> AsyncGenerator[AsyncSession]:
        """Give a session whose rows are committed together with a change of the checkpoint's row.

        Raises Superseded where the checkpoint is not where this process left it.
        """
        async with self._turn, HandlerSession(self._engine, expire_on_commit=False) as session:
            async with session.begin():
                here = (CHECKPOINT.c.position == self.at.position, CHECKPOINT.c.log_id == self.at.log_id)
                # First of all: whoever moves the checkpoint has the place to itself until the end of the transaction.
                moved = await (await session.connection()).execute(
                    sa.update(CHECKPOINT).where(self.mine, *here).values(values)
                )
                if moved.rowcount != 1:
                    raise Superseded(f"{self.place} has left position {self.at.position}: another process writes it")
                yield session
            self.at = session.info.get(_REACHED, self.at)
            self.outbox.committed(session)
            self.timers.committed(session)

    async def adopt(self, log_id: str) -> None:
        """Record which log a new place follows, before it has an event of it."""
        async with self.advance(replace(self.at, log_id=log_id)):
            pass

    async def pause(self, reason: str) -> None:
        """Record why the handler waits; empty when it goes on."""
        async with self.begin() as connection:
            await connection.execute(sa.update(CHECKPOINT).where(self.mine).values(paused=reason))

    async def _create(self, metadata: sa.MetaData | None) -> None:
        if self.place.path is not None:
            self.place.path.parent.mkdir(parents=True, exist_ok=True)
        async with self.begin() as connection:
            if self.place.schema:
                await connection.execute(sa.schema.CreateSchema(self.place.schema, if_not_exists=True))
            await connection.run_sync(PLATFORM.create_all)
            if metadata is not None:
                await connection.run_sync(metadata.create_all)
            row = (await connection.execute(sa.select(CHECKPOINT).where(self.mine))).first()
            if row is None:
                blank = {"source": self._source, "skipped": 0, "parked": 0, "paused": ""}
                await connection.execute(sa.insert(CHECKPOINT).values(blank | _position(self.at)))
            else:
                self.at, self.skipped = checkpoint_of(row), row.skipped
            self.outbox.unsent, self.outbox.outcomes = await tally(connection)
            self.timers.waiting = await count_timers(connection)

    @asynccontextmanager
    async def begin(self) -> AsyncGenerator[AsyncConnection]:
        """Give a transaction, after those before it."""
        async with self._turn, self._engine.begin() as connection:
            yield connection

    @property
    def mine(self) -> sa.ColumnElement[bool]:
        """The checkpoint's row."""
        return CHECKPOINT.c.source == self._source


def _position(at: Checkpoint) -> dict[str, Any]:
    return {"log_id": at.log_id, "position": at.position, "event_id": at.event_id, "recorded_at": at.recorded_at}


def _check(metadata: sa.MetaData | None) -> None:
    for table in metadata.tables.values() if metadata is not None else ():
        if table.schema:
            raise Misconfigured(f"the table {table} names a schema; a projection's tables live in its place")
        if table.name in PLATFORM.tables:
            raise Misconfigured(f"the table name {table.name} is taken by the platform; choose another")
