"""Events that could not be applied, set aside in the place until an operator has them tried again or given up.

The first event of a partition key that is parked has an error. Later ones of its key are parked behind it, without one,
so that every key keeps its order; all other events flow. When the first is applied after all, or given up, those behind
it follow, in order. An event without a partition key has nobody behind it.
"""

from __future__ import annotations

import datetime as dt
import traceback
from collections import Counter
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, fields
from typing import Any, Self

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from ceqs.projectors._blame import Full
from ceqs.projectors._place import Place, exists, reading
from ceqs.projectors._requests import Request, asked, done
from ceqs.projectors._retry import said
from ceqs.projectors._store import Store
from ceqs.projectors._tables import CHECKPOINT, GIVEN_UP, PARKED, aware
from ceqs.v1.events_pb2 import RecordedEvent

TRACE = 4000
"""How many characters of a trace are kept: its end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parked:
    """An event that waits in a place."""

    position: int
    """A public position where the source is another context."""
    key: str
    """The tag that it keeps its order by: `order:536365`; empty where it has none."""
    event: RecordedEvent
    error: str
    """Why it is parked; empty where it waits behind an earlier event of its key."""
    trace: str = ""
    """Where in the code it failed."""
    tries: int = 0
    parked_at: dt.datetime
    due: bool = False
    """It is to be tried again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GivenUp:
    """An event that the handler went on without."""

    position: int
    event: RecordedEvent
    error: str
    actor: str
    """Who decided it."""
    why: str
    given_up_at: dt.datetime


class Lot:
    """The parked events of a place, for its one writer."""

    def __init__(self, store: Store, most: int) -> None:
        self._store = store
        self._most = most
        self._keys: Counter[str] = Counter()

    @classmethod
    async def open(cls, store: Store, most: int) -> Self:
        """Learn what is parked. `most`: how many events may be."""
        lot = cls(store, most)
        counted = sa.select(PARKED.c.key, sa.func.count()).where(lot._mine).group_by(PARKED.c.key)
        async with store.begin() as connection:
            for key, count in (await connection.execute(counted)).all():
                lot._keys[key] = count
        return lot

    def __len__(self) -> int:
        return self._keys.total()

    @property
    def keys(self) -> bool:
        """Whether events of any key have to wait."""
        return len(self._keys) > ("" in self._keys)

    def blocks(self, key: str) -> bool:
        """Say whether an event of the key has to wait behind a parked one."""
        return bool(key) and key in self._keys

    def check_room(self, waiting: int, why: str) -> None:
        """Raise Full where no event can be parked beside those parked and `waiting` more."""
        if len(self) + waiting >= self._most:
            raise Full(f"{why}; and no more than {self._most} events may be parked here: see `ceqs parked list`")

    async def park(self, session: AsyncSession, events: Sequence[Parked]) -> None:
        """Set events aside, in the transaction of the session. `note` them when it is committed."""
        connection = await session.connection()
        await connection.execute(sa.insert(PARKED), [_row(event) for event in events])
        await connection.execute(
            sa.update(CHECKPOINT).where(self._store.mine).values(parked=CHECKPOINT.c.parked + len(events))
        )

    def note(self, events: Sequence[Parked]) -> None:
        """Remember what is parked now."""
        self._keys.update(event.key for event in events)

    async def next_due(self) -> Parked | None:
        """Give the first event to be applied now: it is nobody's follower, and due or no longer one."""
        before = PARKED.alias()
        first = sa.or_(
            PARKED.c.key == "",
            ~sa.exists().where(before.c.key == PARKED.c.key, before.c.position < PARKED.c.position),
        )
        query = sa.select(PARKED).where(self._mine, first, sa.or_(PARKED.c.due, PARKED.c.error == ""))
        async with self._store.begin() as connection:
            row = (await connection.execute(query.order_by(PARKED.c.position).limit(1))).first()
        return _parked(row) if row else None

    @asynccontextmanager
    async def leaving(self, parked: Parked) -> AsyncGenerator[AsyncSession]:
        """Give a session whose rows are committed together with the end of an event's parking."""
        async with self._store.amend(parked=CHECKPOINT.c.parked - 1) as session:
            await (await session.connection()).execute(sa.delete(PARKED).where(PARKED.c.position == parked.position))
            yield session
        self._forget(parked.key)

    async def failed_again(self, parked: Parked, error: Exception) -> None:
        """Keep the error with which an event that was due has failed. Whoever waits behind it goes on waiting."""
        tried = {"due": False, "error": said(error), "trace": trace_of(error), "tries": parked.tries + 1}
        async with self._store.begin() as connection:
            await connection.execute(sa.update(PARKED).where(PARKED.c.position == parked.position).values(tried))

    async def heed(self) -> Sequence[Request]:
        """Take note of what operators ask for. Give what that was."""
        others = sa.select(PARKED.c.position).where(~self._mine)
        async with self._store.begin() as connection:
            requests = await asked(self._store.place, connection)
            if requests:
                beyond = set((await connection.execute(others)).scalars())
                requests = [(request_id, one) for request_id, one in requests if one.position not in beyond]
        for _, request in requests:
            if request.verb == "retry":
                async with self._store.begin() as connection:
                    wanted = PARKED.c.position == request.position
                    await connection.execute(sa.update(PARKED).where(wanted).values(due=True))
            else:
                await self._give_up(request)
        if requests:
            async with self._store.begin() as connection:
                await done(self._store.place, connection, [request_id for request_id, _ in requests])
        return [request for _, request in requests]

    async def _give_up(self, request: Request) -> None:
        async with self._store.begin() as connection:
            found = sa.select(PARKED).where(PARKED.c.position == request.position)
            row = (await connection.execute(found)).first()
        if row is None or not row.error:
            return  # done before, or it was not the event's turn
        record = {field.name: getattr(row, field.name) for field in fields(GivenUp) if hasattr(row, field.name)}
        record |= {"actor": request.actor, "why": request.why, "given_up_at": dt.datetime.now(dt.UTC)}
        async with self.leaving(_parked(row)) as session:
            await (await session.connection()).execute(sa.insert(GIVEN_UP), record)

    @property
    def _mine(self) -> sa.ColumnElement[bool]:
        share = self._store.share
        return PARKED.c.bucket.between(share.first, share.last)

    def _forget(self, key: str) -> None:
        self._keys[key] -= 1
        if not self._keys[key]:
            del self._keys[key]


async def read_parked(place: Place) -> Sequence[Parked]:
    """Read what is parked in a place, in order. Nothing where there is no place."""
    return [_parked(row) for row in await _read(place, PARKED)]


async def read_given_up(place: Place) -> Sequence[GivenUp]:
    """Read which events a handler went on without, in order. Nothing where there is no place."""
    return [GivenUp(**_values(row, GivenUp)) for row in await _read(place, GIVEN_UP)]


def trace_of(error: BaseException) -> str:
    """Give where in the code an error was raised, without what the variables held."""
    return "".join(traceback.format_tb(error.__traceback__))[-TRACE:]


async def _read(place: Place, table: sa.Table) -> Sequence[sa.Row[Any]]:
    async with reading(place) as connection:
        if connection is None or not await exists(place, connection, table):
            return []
        return (await connection.execute(sa.select(table).order_by(table.c.position))).all()


def _row(parked: Parked) -> dict[str, Any]:
    values = {field.name: getattr(parked, field.name) for field in fields(Parked)}
    return values | {"event": parked.event.SerializeToString(), "bucket": parked.event.bucket}


def _parked(row: sa.Row[Any]) -> Parked:
    return Parked(**_values(row, Parked))


def _values(row: sa.Row[Any], of: type[Parked | GivenUp]) -> dict[str, Any]:
    values = {field.name: getattr(row, field.name) for field in fields(of)}
    values |= {name: aware(value) for name, value in values.items() if isinstance(value, dt.datetime)}
    return values | {"event": RecordedEvent.FromString(row.event)}
