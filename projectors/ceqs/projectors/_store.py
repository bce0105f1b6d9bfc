"""Writing a place: the handler's rows and its checkpoint, in one transaction."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, NoReturn, Self

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from ceqs.errors import CeqsError, Misconfigured
from ceqs.projectors._place import Place, dispose
from ceqs.projectors._reader import Checkpoint
from ceqs.projectors._tables import CHECKPOINT, OUTBOX, OUTCOMES, PLATFORM, aware

ACCEPTED, REJECTED, FAILED = "accepted", "rejected", "failed"
_ENQUEUED = "ceqs_enqueued"


class Superseded(CeqsError):
    """Another process writes the place now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outgoing:
    """A call to be made: a row of the outbox."""

    request_id: str
    """Deterministic: made twice, done once."""
    path: str
    request: bytes
    keys: Sequence[str] = ()
    """Calls that share a key are made in order."""
    causation_id: str = ""
    correlation_id: str = ""
    depth: int = 0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a call came to."""

    kind: str
    """accepted, rejected or failed"""
    reason: str = ""
    message: str = ""

    @property
    def name(self) -> str:
        """Under what the call is counted."""
        return f"{self.kind} {self.reason}".strip()


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
        self.outcomes: Counter[str] = Counter()
        """How many calls came to what: `accepted`, `rejected OUT_OF_STOCK`."""
        self.unsent = 0
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
        async with self._begin() as connection:
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
        self.unsent += session.info.get(_ENQUEUED, 0)

    async def adopt(self, checkpoint: Checkpoint, log_id: str) -> Checkpoint:
        """Record which log a new place follows, before it has an event of it."""
        after = replace(checkpoint, log_id=log_id)
        async with self.advance(checkpoint, after):
            return after

    async def pause(self, reason: str) -> None:
        """Record why the handler waits; empty when it goes on."""
        async with self._begin() as connection:
            await connection.execute(sa.update(CHECKPOINT).where(self._mine).values(paused=reason))

    async def calls(self, after: int, limit: int) -> Sequence[tuple[int, Outgoing]]:
        """Give the calls that are still to be made, in order, by the number of their row."""
        query = sa.select(OUTBOX).where(OUTBOX.c.outcome == "", OUTBOX.c.id > after).order_by(OUTBOX.c.id).limit(limit)
        async with self._begin() as connection:
            rows = (await connection.execute(query)).all()
        return [(row.id, _outgoing(row)) for row in rows]

    async def settle(self, outcomes: Sequence[tuple[int, str, Outcome]]) -> None:
        """Record what calls came to, by row number and path: an accepted one is counted, any other is kept as well."""
        counts: dict[tuple[str, str, str], int] = {}
        kept: list[dict[str, Any]] = []
        accepted: list[int] = []
        for row, path, outcome in outcomes:
            key = (path, outcome.kind, outcome.reason)
            counts[key] = counts.get(key, 0) + 1
            if outcome.kind == ACCEPTED:
                accepted.append(row)
            else:
                kept.append({"row": row} | asdict(outcome))
        async with self._begin() as connection:
            if accepted:
                await connection.execute(sa.delete(OUTBOX).where(OUTBOX.c.id.in_(accepted)))
            for values in kept:
                row, kind = values.pop("row"), values.pop("kind")
                await connection.execute(sa.update(OUTBOX).where(OUTBOX.c.id == row).values(outcome=kind, **values))
            for (path, kind, reason), count in counts.items():
                await _count(connection, path, kind, reason, count)
        self.unsent -= len(outcomes)
        self.outcomes.update(outcome.name for _, _, outcome in outcomes)

    async def _create(self, metadata: sa.MetaData | None) -> None:
        if self.place.path is not None:
            self.place.path.parent.mkdir(parents=True, exist_ok=True)
        async with self._begin() as connection:
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
            self.unsent, self.outcomes = await tally(connection)

    @asynccontextmanager
    async def _begin(self) -> AsyncGenerator[AsyncConnection]:
        async with self._turn, self._engine.begin() as connection:
            yield connection

    @property
    def _mine(self) -> sa.ColumnElement[bool]:
        return CHECKPOINT.c.source == self._source


async def enqueue(session: AsyncSession, calls: Sequence[Outgoing]) -> None:
    """Put calls into the outbox, in the transaction of the session."""
    rows = [asdict(call) | {"keys": list(call.keys), "outcome": "", "reason": "", "message": ""} for call in calls]
    await (await session.connection()).execute(sa.insert(OUTBOX), rows)
    session.info[_ENQUEUED] = session.info.get(_ENQUEUED, 0) + len(rows)


async def tally(connection: AsyncConnection) -> tuple[int, Counter[str]]:
    """Give how many calls are still to be made, and how many came to what."""
    unsent = sa.select(sa.func.count()).select_from(OUTBOX).where(OUTBOX.c.outcome == "")
    waiting = (await connection.execute(unsent)).scalar_one()
    outcomes: Counter[str] = Counter()
    for row in (await connection.execute(sa.select(OUTCOMES))).all():
        outcomes[Outcome(row.outcome, row.reason).name] += row.calls
    return waiting, outcomes


async def _count(connection: AsyncConnection, path: str, kind: str, reason: str, count: int) -> None:
    same = (OUTCOMES.c.path == path, OUTCOMES.c.outcome == kind, OUTCOMES.c.reason == reason)
    counted = await connection.execute(sa.update(OUTCOMES).where(*same).values(calls=OUTCOMES.c.calls + count))
    if not counted.rowcount:
        values = {"path": path, "outcome": kind, "reason": reason, "calls": count}
        await connection.execute(sa.insert(OUTCOMES).values(values))


def _outgoing(row: sa.Row[Any]) -> Outgoing:
    return Outgoing(**{field.name: getattr(row, field.name) for field in fields(Outgoing)})


def _check(metadata: sa.MetaData | None) -> None:
    for table in metadata.tables.values() if metadata is not None else ():
        if table.schema:
            raise Misconfigured(f"the table {table} names a schema; a projection's tables live in its place")
        if table.name in PLATFORM.tables:
            raise Misconfigured(f"the table name {table.name} is taken by the platform; choose another")
