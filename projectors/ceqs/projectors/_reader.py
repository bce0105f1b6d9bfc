"""Reading a model together with the position it stands at."""

from __future__ import annotations

import asyncio
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
from ceqs.projectors._files import FileReading
from ceqs.projectors._place import Place, dispose
from ceqs.projectors._places import Places, shape_of
from ceqs.projectors._retry import said
from ceqs.projectors._schemas import serving_label
from ceqs.projectors._tables import CHECKPOINT, aware
from ceqs.projectors._waiting import FASTEST, Waiting, written
from ceqs.v1.events_pb2 import RecordedEvent


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


def checkpoint_at(log_id: str, position: int, event: RecordedEvent) -> Checkpoint:
    """Give the checkpoint after an event; `position`: as the reader counts."""
    return Checkpoint(log_id, position, event.id, event.recorded_at.ToDatetime(dt.UTC))


def checkpoint_of(row: sa.Row[Any], parked: int = 0) -> Checkpoint:
    """Give the checkpoint that its row holds; `parked`: in the whole place."""
    return Checkpoint(row.log_id, row.position, row.event_id, aware(row.recorded_at), parked)


def least_advanced(*columns: sa.ColumnElement[Any]) -> sa.Select[Any]:
    """Give the query for the row of a place that is behind all others, with what is true of all of them together."""
    together = (
        # PostgreSQL sums integers up to a decimal.
        sa.cast(sa.func.sum(CHECKPOINT.c.parked).over(), sa.BigInteger).label("parked_in_all"),
        sa.cast(sa.func.sum(CHECKPOINT.c.skipped).over(), sa.BigInteger).label("skipped_in_all"),
        sa.func.max(CHECKPOINT.c.paused).over().label("paused_at_all"),
    )
    return sa.select(CHECKPOINT, *together, *columns).order_by(CHECKPOINT.c.position).limit(1)


@dataclass(slots=True, eq=False, kw_only=True)
class _Open:
    """A place that is being read."""

    place: Place
    serving: str
    """The label of the place that served when this one was chosen."""
    engine: AsyncEngine
    lock: FileReading | None
    checkpoint: sa.Select[Any]
    """Reads the checkpoint, and which place serves by now."""
    sessions: int = 0

    async def close(self) -> None:
        if self.lock:
            self.lock.close()
        await dispose(self.engine)


class ModelReader:
    """Reads a model, read-only, each session on one snapshot: of one place, or of whichever place serves at the time.

    `metadata` are the tables that are to be read. Where the place that serves has others, as while a new version is
    rolled out, it reads the newest filled one that has these. Needs a running event loop from its first use on; `close`
    it there.
    """

    def __init__(self, where: Place | Places, metadata: sa.MetaData | None = None) -> None:
        self._where = where
        self._shape = shape_of(metadata) if metadata is not None else None
        self._open: _Open | None = None
        self._waiting = Waiting(self._look, str(where), lambda: written(self._open.place if self._open else None))

    @asynccontextmanager
    async def session(self) -> AsyncGenerator[tuple[AsyncSession, Checkpoint]]:
        """Give a read-only session and the checkpoint of the snapshot that it reads.

        Raises Behind while no place answers, saying how far one is, and Unavailable where the database cannot be
        reached.
        """
        while True:
            current = await self._current()
            if current.lock and not current.lock.begin():
                if isinstance(self._where, Place):
                    raise self._missing(self._where, "it is being deleted")
                await self._leave(current)
                await asyncio.sleep(FASTEST)
                continue
            current.sessions += 1
            try:
                async with AsyncSession(current.engine, expire_on_commit=False) as session:
                    checkpoint = await self._checkpoint(current, await self._connect(session))
                    if checkpoint is not None:
                        self._waiting.advance(checkpoint.position)
                        yield session, checkpoint
                        return
            finally:
                current.sessions -= 1
                if current.lock:
                    current.lock.end()
                if current is not self._open and not current.sessions:
                    await current.close()

    async def wait(self, position: int, timeout: float) -> bool:  # noqa: ASYNC109  # a bound, not a cancellation
        """Wait until the model includes the position, at most `timeout` seconds. Say whether it does."""
        return await self._waiting.reach(position, timeout)

    async def close(self) -> None:
        """Close every connection. Those who wait are told Unavailable."""
        await self._waiting.close()
        if self._open is not None:
            await self._open.close()
        if isinstance(self._where, Places):
            await self._where.close()

    async def _look(self) -> int:
        async with self.session() as (_, checkpoint):
            return checkpoint.position

    async def _current(self) -> _Open:
        """Give what is to be read now."""
        current = self._open
        if isinstance(self._where, Place):
            self._refuse_missing_file(self._where)
            if current is None:
                current = self._open = self._opened(self._where, "")
            return current
        if current is not None and current.place.schema:
            return current  # what reads the checkpoint looks at the pointer too
        serving = await self._where.serving()
        if current is None or serving is None or current.serving != serving.label:
            place = await self._readable(self._where, serving)
            self._refuse_missing_file(place)
            if current is not None:
                await self._leave(current)
            current = self._open = self._opened(place, serving.label if serving else "")
        return current

    def _opened(self, place: Place, serving: str) -> _Open:
        lock = None if place.schema else FileReading(place)
        now: sa.ColumnElement[str] = sa.literal(serving)
        if place.schema and isinstance(self._where, Places):
            now = serving_label(place.context, place.name).scalar_subquery()
        checkpoint = least_advanced(now.label("serving"))
        return _Open(place=place, serving=serving, engine=place.reading_engine(), lock=lock, checkpoint=checkpoint)

    async def _leave(self, current: _Open) -> None:
        """Read this place no more; what is being read of it is read to its end."""
        if self._open is current:
            self._open = None
            if not current.sessions:
                await current.close()

    async def _readable(self, places: Places, serving: Place | None) -> Place:
        """Give the place that serves, or the newest that can answer in its stead. Raises Behind where none does."""
        known = await places.known()
        filled = [k.place for k in known if k.record.filled and not k.record.dropping and k.record.shape == self._shape]
        if serving is not None:
            suits = {k.place: k.record.shape == self._shape for k in known}
            if self._shape is None or suits.get(serving, True):
                return serving
            if filled:
                return filled[-1]
        mine = [k.place for k in known if self._shape in (None, k.record.shape)]
        raise await self._filling(mine[-1] if mine else None, serving)

    async def _connect(self, session: AsyncSession) -> AsyncConnection:
        try:
            return await session.connection()
        except (DBAPIError, OSError, PoolTimeout) as error:
            raise Unavailable(f"the place of {self._label} cannot be reached: {said(error)}") from error

    async def _checkpoint(self, current: _Open, connection: AsyncConnection) -> Checkpoint | None:
        """Give the checkpoint; None where this is no longer the place to read."""
        place = current.place
        try:
            row = (await connection.execute(current.checkpoint)).one_or_none()
        except DBAPIError as error:
            if await self._moved(current):
                await self._leave(current)
                return None
            raise self._missing(place, said(error)) from error
        if row is None:
            raise self._missing(place, "it has no checkpoint")
        # On SQLite the pointer was read before: the place may have gone between that and the lock.
        if row.serving != current.serving or (current.lock and await self._moved(current)):
            await self._leave(current)
            return None
        return checkpoint_of(row, row.parked_in_all)

    async def _moved(self, current: _Open) -> bool:
        """Say whether another place serves than when this one was chosen."""
        if isinstance(self._where, Place):
            return False
        serving = await self._where.serving()
        return serving is None or serving.label != current.serving

    async def _filling(self, place: Place | None, serving: Place | None) -> Behind:
        """Say how far the place is that will answer."""
        other = f"; meanwhile {serving.label} answers, whose tables this build does not read" if serving else ""
        if place is None:
            return Behind(
                f"{self._label} has not been projected yet{other}; is its projector running?",
                metadata={"position": "0"},
            )
        reader = ModelReader(place)
        try:
            async with reader.session() as (_, at):
                return Behind(
                    f"{self._label} is being filled and stands at position {at.position} ({place}); it answers once it "
                    f"is caught up{other}",
                    metadata={"position": str(at.position)},
                )
        except Behind as missing:
            return missing
        finally:
            await reader.close()

    def _refuse_missing_file(self, place: Place) -> None:
        # The driver would leave a thread and an error that names no file.
        if place.path is not None and not place.path.exists():
            raise self._missing(place, "there is no file yet")

    def _missing(self, place: Place, why: str) -> Behind:
        return Behind(
            f"{self._label} has not been projected yet: {why} ({place}); is its projector running?",
            metadata={"position": "0"},
        )

    @property
    def _label(self) -> str:
        return f"{self._where.name} of the context {self._where.context}"
