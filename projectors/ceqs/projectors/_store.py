"""Writing a place: the handler's rows and its checkpoint, in one transaction."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import asdict, replace
from typing import NoReturn, Self

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from ceqs.errors import CeqsError, Misconfigured
from ceqs.projectors._outbox import Outbox, tally
from ceqs.projectors._place import Place, dispose
from ceqs.projectors._reader import Checkpoint
from ceqs.projectors._tables import CHECKPOINT, PLATFORM, aware


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

    async def checkpoint(self) -> Checkpoint:
        """Give the position that the place stands at."""
        async with self.begin() as connection:
            row = (await connection.execute(sa.select(CHECKPOINT).where(self._mine))).one()
        return Checkpoint(row.log_id, row.position, row.event_id, aware(row.recorded_at))

    @asynccontextmanager
    async def advance(self, before: Checkpoint, after: Checkpoint, *, skipped: int = 0) -> AsyncGenerator[AsyncSession]:
        """Give a session whose rows are committed together with the move of the checkpoint.

        Raises Superseded where the checkpoint is not the one that this process left there.
        """
        move = (
            sa.update(CHECKPOINT)
            .where(self._mine, CHECKPOINT.c.position == before.position, CHECKPOINT.c.log_id == before.log_id)
            .values(skipped=CHECKPOINT.c.skipped + skipped, paused="", **asdict(after))
        )
        async with self._turn, HandlerSession(self._engine, expire_on_commit=False) as session, session.begin():
            # First of all: whoever moves the checkpoint has the place to itself until the end of the transaction.
            moved = await (await session.connection()).execute(move)
            if moved.rowcount != 1:
                raise Superseded(f"{self.place} has left position {before.position}: another process writes it")
            yield session
        self.skipped += skipped
        self.outbox.committed(session)

    async def adopt(self, checkpoint: Checkpoint, log_id: str) -> Checkpoint:
        """Record which log a new place follows, before it has an event of it."""
        after = replace(checkpoint, log_id=log_id)
        async with self.advance(checkpoint, after):
            return after

    async def pause(self, reason: str) -> None:
        """Record why the handler waits; empty when it goes on."""
        async with self.begin() as connection:
            await connection.execute(sa.update(CHECKPOINT).where(self._mine).values(paused=reason))

    async def _create(self, metadata: sa.MetaData | None) -> None:
        if self.place.path is not None:
            self.place.path.parent.mkdir(parents=True, exist_ok=True)
        async with self.begin() as connection:
            if self.place.schema:
                await connection.execute(sa.schema.CreateSchema(self.place.schema, if_not_exists=True))
            await connection.run_sync(PLATFORM.create_all)
            if metadata is not None:
                await connection.run_sync(metadata.create_all)
            row = (await connection.execute(sa.select(CHECKPOINT).where(self._mine))).first()
            if row is None:
                blank = {"source": self._source, "skipped": 0, "paused": ""} | asdict(Checkpoint())
                await connection.execute(sa.insert(CHECKPOINT).values(blank))
            self.skipped = row.skipped if row else 0
            self.outbox.unsent, self.outbox.outcomes = await tally(connection)

    @asynccontextmanager
    async def begin(self) -> AsyncGenerator[AsyncConnection]:
        """Give a transaction, after those before it."""
        async with self._turn, self._engine.begin() as connection:
            yield connection

    @property
    def _mine(self) -> sa.ColumnElement[bool]:
        return CHECKPOINT.c.source == self._source


def _check(metadata: sa.MetaData | None) -> None:
    for table in metadata.tables.values() if metadata is not None else ():
        if table.schema:
            raise Misconfigured(f"the table {table} names a schema; a projection's tables live in its place")
        if table.name in PLATFORM.tables:
            raise Misconfigured(f"the table name {table.name} is taken by the platform; choose another")
