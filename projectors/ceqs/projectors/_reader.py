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
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from ceqs.errors import Behind, Unavailable
from ceqs.projectors._place import Place, dispose
from ceqs.projectors._retry import said
from ceqs.projectors._tables import CHECKPOINT, aware

FASTEST, SLOWEST = 0.002, 0.02
"""Seconds between two looks at the checkpoint while somebody waits."""


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


class ModelReader:
    """Reads a model's place, read-only, each session on one snapshot.

    Needs a running event loop from its first use on; `close` it there.
    """

    def __init__(self, place: Place) -> None:
        self.place = place
        self._engine = place.reading_engine()
        self._seen = 0
        self._waiting: dict[asyncio.Future[None], int] = {}
        self._follower: asyncio.Task[None] | None = None

    @asynccontextmanager
    async def session(self) -> AsyncGenerator[tuple[AsyncSession, Checkpoint]]:
        """Give a read-only session and the checkpoint of the snapshot that it reads.

        Raises Behind while the place does not exist, Unavailable where its database cannot be reached.
        """
        self._refuse_missing_file()
        async with AsyncSession(self._engine, expire_on_commit=False) as session:
            checkpoint = await self._checkpoint(await self._connect(session))
            yield session, checkpoint

    async def wait(self, position: int, timeout: float) -> bool:  # noqa: ASYNC109  # a bound, not a cancellation
        """Wait until the model includes the position, at most `timeout` seconds. Say whether it does."""
        if self._seen >= position:
            return True
        reached: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[reached] = position
        if self._follower is None or self._follower.done():
            self._follower = asyncio.create_task(self._follow(), name=f"follow {self.place}")
        try:
            async with asyncio.timeout(timeout):
                await reached
        except TimeoutError:
            return False
        finally:
            self._waiting.pop(reached, None)
        return True

    async def close(self) -> None:
        """Close every connection. Those who wait are told Unavailable."""
        if self._follower is not None:
            self._follower.cancel()
            await asyncio.gather(self._follower, return_exceptions=True)
        for reached in self._waiting:
            if not reached.done():
                reached.set_exception(Unavailable(f"the reader of {self._label} is closed"))
        await dispose(self._engine)

    async def _follow(self) -> None:
        """Look at the checkpoint for all who wait, until nobody does."""
        pause = FASTEST
        while self._waiting:
            before = self._seen
            try:
                async with self.session():
                    pass
            except Unavailable:
                # Also a place that is yet to be made. Those who wait have a bound.
                pause = SLOWEST
            pause = FASTEST if self._seen > before else min(pause * 1.5, SLOWEST)
            await asyncio.sleep(pause)

    async def _connect(self, session: AsyncSession) -> AsyncConnection:
        try:
            return await session.connection()
        except (DBAPIError, OSError, PoolTimeout) as error:
            raise Unavailable(f"the place of {self._label} cannot be reached: {said(error)}") from error

    async def _checkpoint(self, connection: AsyncConnection) -> Checkpoint:
        try:
            row = (await connection.execute(sa.select(CHECKPOINT))).one_or_none()
        except DBAPIError as error:
            raise self._missing(said(error)) from error
        if row is None:
            raise self._missing("it has no checkpoint")
        self._advance(row.position)
        return checkpoint_of(row)

    def _advance(self, position: int) -> None:
        self._seen = max(self._seen, position)
        for reached, wanted in list(self._waiting.items()):
            if wanted <= self._seen and not reached.done():
                reached.set_result(None)

    def _refuse_missing_file(self) -> None:
        # The driver would leave a thread and an error that names no file.
        if self.place.path is not None and not self.place.path.exists():
            raise self._missing("there is no file yet")

    def _missing(self, why: str) -> Behind:
        return Behind(
            f"{self._label} has not been projected yet: {why} ({self.place}); is its projector running?",
            metadata={"position": "0"},
        )

    @property
    def _label(self) -> str:
        return f"{self.place.name} of the context {self.place.context}"
