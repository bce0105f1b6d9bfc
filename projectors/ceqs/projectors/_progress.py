"""How far a publisher or subscriber has got: what it did about each event up to there is done."""

from __future__ import annotations

import asyncio
from collections import deque

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from ceqs.errors import Behind, Unavailable
from ceqs.projectors._place import Place, dispose
from ceqs.projectors._retry import said
from ceqs.projectors._tables import CHECKPOINT, OUTBOX
from ceqs.projectors._waiting import Waiting, written

_UNSENT = OUTBOX.c.outcome == ""
_LOOK = sa.select(
    sa.select(sa.func.min(CHECKPOINT.c.position)).scalar_subquery(),
    sa.select(sa.func.min(OUTBOX.c.id)).where(_UNSENT).scalar_subquery(),
    sa.select(sa.func.max(OUTBOX.c.id)).where(_UNSENT).scalar_subquery(),
)


class Progress:
    """Follows the place of one publisher or subscriber. `close` it in the event loop that used it."""

    def __init__(self, place: Place) -> None:
        self.name = f"{place.name} of the context {place.context}"
        self.passed = 0
        """Up to here every event was heard, and every call that it led to was accepted or refused for good."""
        self._place = place
        self._engine: AsyncEngine | None = None
        self._connection: AsyncConnection | None = None
        self._waiting = Waiting(self._look, self.name, lambda: written(place))
        self._unsettled: deque[tuple[int, int]] = deque()
        """Positions, and the last call that waited when the place stood there."""

    async def reach(self, position: int, timeout: float) -> None:  # noqa: ASYNC109  # a bound, not a cancellation
        """Wait until the handler has passed a position of the log that it hears.

        Raises Behind, saying how far it is, after `timeout` seconds.
        """
        if not await self._waiting.reach(position, timeout):
            raise Behind(
                f"{self.name} has passed position {self.passed}, {position - self.passed} before {position}",
                metadata={"position": str(self.passed), "asked": str(position)},
            )

    async def close(self) -> None:
        """Close every connection."""
        await self._waiting.close()
        await self._disconnect()

    async def _look(self) -> int:
        try:
            if self._place.path is not None and not self._place.path.exists():
                raise Unavailable(f"{self.name} has not begun: there is no {self._place} yet")
            if self._connection is None:
                self._engine = self._place.reading_engine()
                self._connection = await self._engine.connect()
            stands, first, last = (await self._connection.execute(_LOOK)).one()
            await self._connection.rollback()
        except (DBAPIError, OSError, PoolTimeout) as error:
            await self._disconnect()
            raise Unavailable(f"{self._place} cannot be read: {said(error)}") from error
        at = stands or 0
        if at > (self._unsettled[-1][0] if self._unsettled else self.passed):
            # Every call that an event up to here has led to, and that still waits, is among those that wait now.
            self._unsettled.append((at, last or 0))
        while self._unsettled and (first is None or self._unsettled[0][1] < first):
            self.passed = max(self.passed, self._unsettled.popleft()[0])
        return self.passed

    async def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        engine, self._engine = self._engine, None
        if connection is not None:
            await asyncio.shield(connection.close())
        if engine is not None:
            await dispose(engine)
