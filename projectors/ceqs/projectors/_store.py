"""Writing a place: the handler's rows and its checkpoint, in one transaction."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, NoReturn, Self

import sqlalchemy as sa
import structlog
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from ceqs.errors import Misconfigured
from ceqs.projectors._files import lock_of
from ceqs.projectors._lease import LEASE, Superseded, now, take
from ceqs.projectors._outbox import SKIPPED, Outbox, tally
from ceqs.projectors._place import Place
from ceqs.projectors._reader import Checkpoint, checkpoint_of
from ceqs.projectors._retry import said
from ceqs.projectors._shares import WHOLE, Ahead, Share, cut, first_row
from ceqs.projectors._tables import CHECKPOINT, OUTBOX, PARKED, PLATFORM
from ceqs.projectors._timers import Timers, count_timers
from ceqs.v1.events_pb2 import RecordedEvent

STAND_BY = 0.25
"""Seconds between two tries to take the place over."""
_REACHED = "ceqs_reached"
_MOVED: dict[str, Any] = {
    "position": sa.bindparam("to"),
    "log_id": sa.bindparam("to_log"),
    "event_id": sa.bindparam("to_event"),
    "recorded_at": sa.bindparam("to_time"),
    "skipped": CHECKPOINT.c.skipped + sa.bindparam("more"),
    "ahead": sa.bindparam("rest"),
    "paused": "",
}
"""What a move of the checkpoint changes."""
_process_log = structlog.get_logger("ceqs.projectors")


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

    def __init__(self, place: Place, source: str, lease: float, share: Share = WHOLE) -> None:
        self.place = place
        self.share = share
        """The buckets of the events that this writer applies."""
        self._ahead: Ahead = []
        self._source = source
        self._lease = lease
        self._token = 0
        self._renewed = 0.0
        self._engine = place.writing_engine(lease)
        ours = (CHECKPOINT.c.first == share.first, CHECKPOINT.c.last == share.last)
        self.mine = sa.and_(CHECKPOINT.c.source == source, *ours)
        """The checkpoint's row."""
        # Each transaction begins with one of these: to make a statement costs more than to execute it.
        self._held = sa.select(CHECKPOINT.c.token).where(self.mine).with_for_update()
        self._moved = self._changed(**_MOVED)
        self._turn = asyncio.Lock()
        self.outbox = Outbox(self.begin)
        self.timers = Timers(self.begin)
        self.at = Checkpoint()
        """Where the place stands, as this process left it."""
        self.skipped = 0
        self.round = 1
        """How often a publisher was to begin again."""

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        place: Place,
        source: str,
        metadata: sa.MetaData | None = None,
        *,
        lease: float = LEASE,
        share: Share = WHOLE,
    ) -> AsyncGenerator[Self]:
        """Wait until nobody else writes the place, or the share, and keep others from it for as long as this goes on.

        Makes its tables where they are missing. `source` names the context whose log is read; `lease`: the seconds of
        silence after which this process counts as gone. Raises Superseded where it was silent for longer.
        """
        _check(metadata)
        store = cls(place, source, lease, share)
        try:
            await store._create(metadata)
            await store._take()
            async with store._renewing():
                yield store
        finally:
            await asyncio.shield(store._end())

    @asynccontextmanager
    async def advance(self, to: Checkpoint, *, skipped: int = 0) -> AsyncGenerator[AsyncSession]:
        """Give a session whose rows are committed together with the move of the checkpoint.

        Raises Superseded where the checkpoint is not where this process left it.
        """
        ahead = [part for part in self._ahead if part[2] > to.position]
        reached = {"to": to.position, "to_log": to.log_id, "to_event": to.event_id, "to_time": to.recorded_at}
        async with self._changing(self._moved, {**reached, "more": skipped, "rest": ahead}) as session:
            yield session
            session.info[_REACHED] = to
        self.skipped += skipped
        self._ahead = ahead

    def lacked(self, events: Sequence[RecordedEvent], number: Callable[[RecordedEvent], int]) -> Sequence[int]:
        """Give which of the events beyond the checkpoint are of this writer's share, and not included yet."""
        if self.share == WHOLE and not self._ahead:
            return range(len(events))
        mine = [(i, event) for i, event in enumerate(events) if event.bucket in self.share]
        return [
            i
            for i, event in mine
            if not any(first <= event.bucket <= last and number(event) <= at for first, last, at in self._ahead)
        ]

    @asynccontextmanager
    async def amend(self, **values: Any) -> AsyncGenerator[AsyncSession]:
        """Give a session whose rows are committed together with a change of the checkpoint's row.

        Raises Superseded where the checkpoint is not where this process left it.
        """
        async with self._changing(self._changed(**values), {}) as session:
            yield session

    def _changed(self, **values: Any) -> sa.Update:
        """Give the statement that changes the checkpoint's row while it is where this process left it."""
        here = (CHECKPOINT.c[name] == sa.bindparam(f"from_{name}") for name in ("token", "position", "log_id"))
        later = now(self.place) + self._lease
        return sa.update(CHECKPOINT).where(self.mine, *here).values(expires_at=later, **values)

    @asynccontextmanager
    async def _changing(self, change: sa.Update, values: Mapping[str, Any]) -> AsyncGenerator[AsyncSession]:
        async with self._turn, HandlerSession(self._engine, expire_on_commit=False) as session:
            async with session.begin():
                at = {"from_token": self._token, "from_position": self.at.position, "from_log_id": self.at.log_id}
                # First of all: whoever moves the checkpoint has the place to itself until the end of the transaction.
                moved = await (await session.connection()).execute(change, {**at, **values})
                if moved.rowcount != 1:
                    raise self._superseded()
                yield session
            self._renewed = time.monotonic()
            self.at = session.info.get(_REACHED, self.at)
            self.outbox.committed(session)
            self.timers.committed(session)

    async def adopt(self, log_id: str) -> None:
        """Record which log a new place follows, before it has an event of it."""
        async with self.advance(replace(self.at, log_id=log_id)):
            pass

    async def begin_at(self, to: Checkpoint, round_: int) -> None:
        """Begin at a position of a log, in a publisher's round. What waits here from before is dropped."""
        async with self.advance(to) as session:
            connection = await session.connection()
            await connection.execute(sa.delete(PARKED))
            await connection.execute(sa.delete(OUTBOX).where(OUTBOX.c.outcome == ""))
            await connection.execute(sa.update(CHECKPOINT).where(self.mine).values(parked=0, round=round_))
        self.round, self.outbox.unsent = round_, 0

    async def settled(self) -> int:
        """Give the position up to which nothing waits here: no parked event, no call that was not accepted."""
        calls = sa.select(sa.func.min(OUTBOX.c.position)).where(OUTBOX.c.outcome != SKIPPED)
        waiting = [calls, sa.select(sa.func.min(PARKED.c.position))]
        async with self.begin() as connection:
            first: list[int | None] = [(await connection.execute(query)).scalar_one() for query in waiting]
            return min([self.at.position, *(position - 1 for position in first if position is not None)])

    async def pause(self, reason: str) -> None:
        """Record why the handler waits; empty when it goes on."""
        async with self.begin() as connection:
            await connection.execute(sa.update(CHECKPOINT).where(self.mine).values(paused=reason))

    async def _create(self, metadata: sa.MetaData | None) -> None:
        if self.place.path is not None:
            self.place.path.parent.mkdir(parents=True, exist_ok=True)
            lock_of(self.place).touch()
        async with self._engine.begin() as connection:
            if self.place.schema:
                # Workers of several shares begin at once.
                await connection.execute(sa.select(sa.func.pg_advisory_xact_lock(sa.func.hashtext(self.place.schema))))
                await connection.execute(sa.schema.CreateSchema(self.place.schema, if_not_exists=True))
            await connection.run_sync(PLATFORM.create_all)
            if metadata is not None:
                await connection.run_sync(metadata.create_all)
            if (await connection.execute(sa.select(CHECKPOINT.c.token))).first() is None:
                await connection.execute(sa.insert(CHECKPOINT).values(first_row(self._source)))

    async def _take(self) -> None:
        """Wait for the lease, and learn where the place stands."""
        while True:
            async with self._engine.begin() as connection:
                if await cut(connection, self.place, self._source, self.share):
                    self._token, _ = await take(connection, self.place, self.mine, self._lease)
                if self._token:
                    row = (await connection.execute(sa.select(CHECKPOINT).where(self.mine))).one()
                    self.at, self.skipped, self._ahead = checkpoint_of(row), row.skipped, row.ahead
                    self.round = row.round
                    self.outbox.unsent, self.outbox.outcomes = await tally(connection)
                    self.timers.waiting = await count_timers(connection)
            if self._token:
                self._renewed = time.monotonic()
                return
            await asyncio.sleep(STAND_BY)

    @asynccontextmanager
    async def _renewing(self) -> AsyncGenerator[None]:
        """Renew the lease meanwhile; where it is lost, end what is done under it with Superseded."""
        try:
            # Who is ended for a lost lease is not cancelled afterwards, whatever else ended it at the same time.
            async with asyncio.TaskGroup() as group:
                renewing = group.create_task(self._renew(), name=f"renew the lease of {self.place}")
                yield
                renewing.cancel()
        except ExceptionGroup as ended:
            raise ended.exceptions[0] from None

    async def _renew(self) -> NoReturn:
        while True:
            await asyncio.sleep(self._lease / 6)
            if time.monotonic() - self._renewed < self._lease / 3:
                continue
            try:
                async with self.begin() as connection:
                    later = {"expires_at": now(self.place) + self._lease}
                    await connection.execute(sa.update(CHECKPOINT).where(self.mine).values(later))
                self._renewed = time.monotonic()
            except (DBAPIError, OSError) as error:
                # Whoever works here meets the same.
                _process_log.warning("a lease is not renewed", place=str(self.place), error=said(error))

    async def _end(self) -> None:
        """Let others have the place at once."""
        try:
            if self._token:
                async with self.begin() as connection:
                    free = {"holder": "", "expires_at": 0.0}
                    await connection.execute(sa.update(CHECKPOINT).where(self.mine).values(free))
        except (Superseded, DBAPIError, OSError) as error:
            # It is another's already, or runs out by itself.
            _process_log.info("a lease is not given back", place=str(self.place), error=said(error))
        finally:
            await self._engine.dispose()

    @asynccontextmanager
    async def begin(self) -> AsyncGenerator[AsyncConnection]:
        """Give a transaction, after those before it. Raises Superseded where the lease is lost."""
        async with self._turn, self._engine.begin() as connection:
            # On SQLite too nobody else can take the lease from here on: what is written after a look at the database
            # is refused where it has changed since.
            if (await connection.execute(self._held)).scalar() != self._token:
                raise self._superseded()
            yield connection

    def _superseded(self) -> Superseded:
        return Superseded(f"{self.place} is written by another process; this one was at position {self.at.position}")


def _check(metadata: sa.MetaData | None) -> None:
    for table in metadata.tables.values() if metadata is not None else ():
        if table.schema:
            raise Misconfigured(f"the table {table} names a schema; a projection's tables live in its place")
        if table.name in PLATFORM.tables:
            raise Misconfigured(f"the table name {table.name} is taken by the platform; choose another")
