"""The timers of a place: calls whose time is yet to come.

A timer is claimed in the transaction that moves it into the outbox, so it fires once, whoever claims it; the call has
an id of the timer's key and generation, so that it is done once, whatever is forgotten. The generation is the event
that set the timer: a key that is used again gives another id.
"""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import asdict, dataclass
from typing import Any, NoReturn

import sqlalchemy as sa
import structlog
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from ceqs.projectors._clock import Clock
from ceqs.projectors._outbox import Outcome, Outgoing, count_outcome, outgoing_of
from ceqs.projectors._place import Place, exists, reading
from ceqs.projectors._tables import OUTBOX, TIMERS

CLAIM = 500
"""How many timers one transaction claims at most."""
BEHIND = 0.1
"""Seconds between two looks at timers whose time has come, while the handler is behind."""
TOO_LATE = Outcome("cancelled", "TOO_LATE")
_SET = "ceqs_timers_set"
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_CALL = [column for column in TIMERS.c if column.name not in ("key", "due")]

_process_log = structlog.get_logger("ceqs.projectors")


@dataclass(frozen=True, slots=True)
class Timer:
    """A call to be made when its time has come; `call` is None for a timer that is to be dropped."""

    key: str
    prefix: str
    """How the ids of all calls of this key begin."""
    call: Outgoing | None = None
    due: dt.datetime = _EPOCH
    command_id: str = ""
    """Which command brought this about: where it is the timer's own, the timer is not dropped too late."""


class Timers:
    """The timers of one place. `begin` gives a transaction of the place's one writer."""

    def __init__(self, begin: Callable[[], AbstractAsyncContextManager[AsyncConnection]]) -> None:
        self._begin = begin
        self._changed = asyncio.Event()
        self.waiting = 0

    async def run(
        self, clock: Clock, heard: Callable[[dt.datetime], dt.datetime], fired: Callable[[int], None]
    ) -> NoReturn:
        """Fire what is due until cancelled; `fired` hears how many calls have gone into the outbox.

        `heard` gives, for a time, up to when the handler has heard everything: what is due later waits, for it may have
        been cancelled in time.
        """
        while True:
            self._changed.clear()
            now = clock.now()
            claimed, earliest = await self.claim(heard(now))
            if claimed:
                fired(claimed)
            elif earliest is not None and earliest <= now:
                await asyncio.sleep(BEHIND)
            else:
                await clock.wait(self._changed, earliest)

    async def claim(self, now: dt.datetime) -> tuple[int, dt.datetime | None]:
        """Move what is due into the outbox, earliest first. Give how many, and when the next one is due."""
        async with self._begin() as connection:
            rows = (await connection.execute(due_timers(now))).all()
            if rows:
                calls = [{column.name: getattr(row, column.name) for column in _CALL} for row in rows]
                blank = {"outcome": "", "reason": "", "message": ""}
                await connection.execute(sa.insert(OUTBOX), [call | blank for call in calls])
                mine = sa.and_(TIMERS.c.key == sa.bindparam("_key"), TIMERS.c.request_id == sa.bindparam("_id"))
                names = [{"_key": row.key, "_id": row.request_id} for row in rows]
                await connection.execute(sa.delete(TIMERS).where(mine), names)
            earliest = (await connection.execute(sa.select(sa.func.min(TIMERS.c.due)))).scalar_one()
        self.waiting -= len(rows)
        return len(rows), None if earliest is None else _EPOCH + dt.timedelta(microseconds=earliest)

    def committed(self, session: AsyncSession) -> None:
        """Heed the timers that a session has set and dropped, now that they are there for good."""
        if _SET in session.info:
            self.waiting += session.info[_SET]
            self._changed.set()


async def set_timers(session: AsyncSession, timers: Sequence[Timer]) -> None:
    """Set and drop timers, in the transaction of the session. The last one of a key counts."""
    connection = await session.connection()
    change = session.info.get(_SET, 0)
    for timer in timers:
        dropped = (await connection.execute(sa.delete(TIMERS).where(TIMERS.c.key == timer.key))).rowcount
        change -= dropped
        if timer.call is not None:
            values: dict[str, Any] = asdict(timer.call) | {"keys": list(timer.call.keys)}
            due = (timer.due - _EPOCH) // dt.timedelta(microseconds=1)
            await connection.execute(sa.insert(TIMERS).values(key=timer.key, due=due, **values))
            change += 1
        elif not dropped:
            await _own_up(connection, timer)
    session.info[_SET] = change


def due_timers(now: dt.datetime) -> sa.Select[Any]:
    """Give the query for what is due: earliest first, by the index on `due`."""
    moment = (now - _EPOCH) // dt.timedelta(microseconds=1)
    return sa.select(TIMERS).where(TIMERS.c.due <= moment).order_by(TIMERS.c.due).limit(CLAIM)


async def read_timers(place: Place, limit: int) -> tuple[Sequence[Timer], int]:
    """Read the next timers of a place, so many at most, and how many there are. Nothing where no place is."""
    async with reading(place) as connection:
        if connection is None or not await exists(place, connection, TIMERS):
            return [], 0
        rows = (await connection.execute(sa.select(TIMERS).order_by(TIMERS.c.due).limit(limit))).all()
        due = [_EPOCH + dt.timedelta(microseconds=row.due) for row in rows]
        timers = [Timer(row.key, "", outgoing_of(row), at) for row, at in zip(rows, due, strict=True)]
        return timers, await count_timers(connection)


async def count_timers(connection: AsyncConnection) -> int:
    """Give how many timers wait."""
    return (await connection.execute(sa.select(sa.func.count()).select_from(TIMERS))).scalar_one()


async def _own_up(connection: AsyncConnection, timer: Timer) -> None:
    """Say so where a timer that is to be dropped has fired, and its call is under way."""
    fired = sa.select(OUTBOX.c.request_id, OUTBOX.c.path).where(
        OUTBOX.c.outcome == "",
        OUTBOX.c.request_id.startswith(timer.prefix, autoescape=True),
        OUTBOX.c.request_id != timer.command_id,
    )
    row = (await connection.execute(fired)).first()
    if row is not None:
        _process_log.warning("a timer was cancelled too late: its command is under way", command_id=row.request_id)
        await count_outcome(connection, row.path, TOO_LATE, 1)
