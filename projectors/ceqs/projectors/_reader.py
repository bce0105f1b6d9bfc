"""Reading a model together with the position it stands at."""

from __future__ import annotations

import datetime as dt
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession

from ceqs.errors import Behind, Unavailable
from ceqs.projectors._place import Place, dispose
from ceqs.projectors._places import Places, serving_label
from ceqs.projectors._retry import said
from ceqs.projectors._tables import CHECKPOINT, aware
from ceqs.projectors._waiting import Waiting


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Up to where a model includes its log."""

    log_id: str = ""
    """Empty before the handler has first met its log."""
    position: int = 0
    """Of the last event that is included or skipped: a public position where the source is another context."""
    event_id: str = ""
    recorded_at: dt.datetime | None = None
    """UTC, aware; None before the first event."""
    parked: int = 0
    """How many of the events up to the position are parked, and not included."""


def checkpoint_of(row: sa.Row[Any]) -> Checkpoint:
    """Give the checkpoint that its row holds."""
    return Checkpoint(row.log_id, row.position, row.event_id, aware(row.recorded_at), row.parked)


@dataclass(slots=True, eq=False)
class _Open:
    """A place that is being read."""

    place: Place
    engine: AsyncEngine
    sessions: int = 0


class ModelReader:
    """Reads a model, read-only, each session on one snapshot: of one place, or of whichever place serves at the time.

    Needs a running event loop from its first use on; `close` it there.
    """

    def __init__(self, where: Place | Places) -> None:
        self._where = where
        self._open: _Open | None = None
        self._waiting = Waiting(self._look, str(where))

    @asynccontextmanager
    async def session(self) -> AsyncGenerator[tuple[AsyncSession, Checkpoint]]:
        """Give a read-only session and the checkpoint of the snapshot that it reads.

        Raises Behind while no place answers, saying how far one is, and Unavailable where the database cannot be
        reached.
        """
        while True:
            current = await self._current()
            current.sessions += 1
            try:
                async with AsyncSession(current.engine, expire_on_commit=False) as session:
                    checkpoint = await self._checkpoint(current.place, await self._connect(session))
                    if checkpoint is not None:
                        self._waiting.advance(checkpoint.position)
                        yield session, checkpoint
                        return
            finally:
                current.sessions -= 1
                if current is not self._open and not current.sessions:
                    await dispose(current.engine)

    async def wait(self, position: int, timeout: float) -> bool:  # noqa: ASYNC109  # a bound, not a cancellation
        """Wait until the model includes the position, at most `timeout` seconds. Say whether it does."""
        return await self._waiting.reach(position, timeout)

    async def close(self) -> None:
        """Close every connection. Those who wait are told Unavailable."""
        await self._waiting.close()
        if self._open is not None:
            await dispose(self._open.engine)
        if isinstance(self._where, Places):
            await self._where.close()

    async def _look(self) -> int:
        async with self.session() as (_, checkpoint):
            return checkpoint.position

    async def _current(self) -> _Open:
        """Give what is to be read now."""
        place = await self._place()
        if self._open is None or self._open.place != place:
            before, current = self._open, _Open(place, place.reading_engine())
            self._open = current
            if before is not None and not before.sessions:
                await dispose(before.engine)
            return current
        return self._open

    async def _place(self) -> Place:
        if isinstance(self._where, Place):
            place: Place | None = self._where
        elif self._open is not None and self._open.place.schema:
            place = self._open.place  # what reads the checkpoint looks at the pointer too
        else:
            place = await self._where.serving()
        if place is None:
            raise await self._filling()
        # The driver would leave a thread and an error that names no file.
        if place.path is not None and not place.path.exists():
            raise self._missing(place, "there is no file yet")
        return place

    async def _connect(self, session: AsyncSession) -> AsyncConnection:
        try:
            return await session.connection()
        except (DBAPIError, OSError, PoolTimeout) as error:
            raise Unavailable(f"the place of {self._label} cannot be reached: {said(error)}") from error

    async def _checkpoint(self, place: Place, connection: AsyncConnection) -> Checkpoint | None:
        """Give the checkpoint; None where the place has ceased to serve."""
        pointed = place.schema and isinstance(self._where, Places)
        label = serving_label(place.context, place.name).scalar_subquery() if pointed else sa.literal(place.label)
        try:
            row = (await connection.execute(sa.select(CHECKPOINT, label.label("serving")))).one_or_none()
        except DBAPIError as error:
            if await self._moved(place):
                return None
            raise self._missing(place, said(error)) from error
        if row is None:
            raise self._missing(place, "it has no checkpoint")
        if row.serving != place.label:
            await self._moved(place)
            return None
        return checkpoint_of(row)

    async def _moved(self, place: Place) -> bool:
        """Say whether another place serves now; forget this one if so."""
        moved = isinstance(self._where, Places) and await self._where.serving() != place
        if moved and self._open is not None and self._open.place == place:
            self._open = None
        return moved

    async def _filling(self) -> Behind:
        """Say how far the newest place is, where none answers yet."""
        assert isinstance(self._where, Places)
        newest = next(iter(reversed(await self._where.existing())), None)
        if newest is None:
            return Behind(
                f"{self._label} has not been projected yet; is its projector running?", metadata={"position": "0"}
            )
        reader = ModelReader(newest)
        try:
            async with reader.session() as (_, at):
                return Behind(
                    f"{self._label} is being filled and stands at position {at.position} ({newest}); it answers once "
                    "it is caught up",
                    metadata={"position": str(at.position)},
                )
        finally:
            await reader.close()

    def _missing(self, place: Place, why: str) -> Behind:
        return Behind(
            f"{self._label} has not been projected yet: {why} ({place}); is its projector running?",
            metadata={"position": "0"},
        )

    @property
    def _label(self) -> str:
        return f"{self._where.name} of the context {self._where.context}"
