"""The outbox of a place: calls that are to be made, and what became of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import asdict, dataclass, fields
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from ceqs.projectors._tables import OUTBOX, OUTCOMES

ACCEPTED, REJECTED, FAILED, SKIPPED = "accepted", "rejected", "failed", "skipped"
WAITING = ""
"""What has no outcome yet."""
REFUSED = (REJECTED, FAILED)
"""What an operator may have tried again."""
_ENQUEUED = "ceqs_enqueued"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outgoing:
    """A call to be made: a row of the outbox."""

    request_id: str
    """Deterministic: made twice, done once."""
    path: str
    request: bytes
    keys: Sequence[str] = ()
    """Calls that share a key are made in order."""
    position: int = 0
    """Of the event that it follows from, as the handler counts."""
    causation_id: str = ""
    correlation_id: str = ""
    depth: int = 0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a call came to."""

    kind: str
    """accepted, rejected or failed; skipped where an operator went on without it; empty while it waits"""
    reason: str = ""
    message: str = ""

    @property
    def name(self) -> str:
        """Under what the call is counted."""
        return f"{self.kind} {self.reason}".strip()


class Outbox:
    """The calls of one place. `begin` gives a transaction of the place's one writer."""

    def __init__(self, begin: Callable[[], AbstractAsyncContextManager[AsyncConnection]]) -> None:
        self._begin = begin
        self.unsent = 0
        self.outcomes: Counter[str] = Counter()
        """How many calls came to what: `accepted`, `rejected OUT_OF_STOCK`."""

    @property
    def refused(self) -> int:
        """How many calls wait for an operator."""
        return refused_of(self.outcomes)

    async def calls(self, after: int, limit: int) -> Sequence[tuple[int, Outgoing]]:
        """Give the calls that are still to be made, in order, by the number of their row."""
        query = sa.select(OUTBOX).where(OUTBOX.c.outcome == "", OUTBOX.c.id > after).order_by(OUTBOX.c.id).limit(limit)
        async with self._begin() as connection:
            rows = (await connection.execute(query)).all()
        return [(row.id, outgoing_of(row)) for row in rows]

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
                await count_outcome(connection, path, Outcome(kind, reason), count)
        self.unsent -= len(outcomes)
        self.outcomes.update(outcome.name for _, _, outcome in outcomes)

    def committed(self, session: AsyncSession) -> None:
        """Count the calls that a session has put in, now that they are there for good."""
        self.unsent += session.info.get(_ENQUEUED, 0)


def refused_of(outcomes: Mapping[str, int]) -> int:
    """Give how many calls were refused, of those that came to something."""
    return sum(count for name, count in outcomes.items() if name.partition(" ")[0] in REFUSED)


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
        if row.calls:
            outcomes[Outcome(row.outcome, row.reason).name] += row.calls
    return waiting, outcomes


async def count_outcome(connection: AsyncConnection, path: str, outcome: Outcome, count: int) -> None:
    """Count so many calls of an rpc under what they came to."""
    same = (OUTCOMES.c.path == path, OUTCOMES.c.outcome == outcome.kind, OUTCOMES.c.reason == outcome.reason)
    counted = await connection.execute(sa.update(OUTCOMES).where(*same).values(calls=OUTCOMES.c.calls + count))
    if not counted.rowcount:
        values = {"path": path, "outcome": outcome.kind, "reason": outcome.reason, "calls": count}
        await connection.execute(sa.insert(OUTCOMES).values(values))


def outgoing_of(row: sa.Row[Any]) -> Outgoing:
    """Give the call of a row."""
    return Outgoing(**{field.name: getattr(row, field.name) for field in fields(Outgoing)})
