"""Calls that were refused for good: kept in the outbox, until an operator has them made again or goes on without them.

A call is refused by a rule (rejected), or because it can never be made as it is (failed). Later calls of its keys have
gone on. Made again, it comes after them, under its own id.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from ceqs.projectors._outbox import REFUSED, SKIPPED, Outcome, Outgoing, count_outcome, outgoing_of
from ceqs.projectors._parking import exists
from ceqs.projectors._place import Place, reading
from ceqs.projectors._requests import Request, asked, done
from ceqs.projectors._store import Store
from ceqs.projectors._tables import OUTBOX


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A call in an outbox."""

    number: int
    """By which it is known there; another one when it is made again."""
    outgoing: Outgoing
    outcome: Outcome
    actor: str
    """Who decided to go on without it."""
    why: str

    @property
    def refused(self) -> bool:
        """Whether it waits for an operator."""
        return self.outcome.kind in REFUSED


async def read_calls(place: Place) -> Sequence[Call]:
    """Read the calls in the outbox of a place: those that wait, were refused, or skipped. Nothing where no place is."""
    async with reading(place) as connection:
        if connection is None or not await exists(place, connection, OUTBOX):
            return []
        rows = (await connection.execute(sa.select(OUTBOX).order_by(OUTBOX.c.id))).all()
    return [
        Call(
            number=row.id,
            outgoing=outgoing_of(row),
            outcome=Outcome(row.outcome, row.reason, row.message),
            actor=row.actor,
            why=row.why,
        )
        for row in rows
    ]


async def heed_calls(store: Store) -> Sequence[Request]:
    """Do what operators ask for about calls of a place, for its one writer. Give what that was."""
    changed: Counter[str] = Counter()
    again = 0
    async with store.begin() as connection:
        requests = await asked(store.place, connection, calls=True)
        for _, request in requests:
            refused = sa.and_(OUTBOX.c.id == request.call, OUTBOX.c.outcome.in_(REFUSED))
            row = (await connection.execute(sa.select(OUTBOX).where(refused))).first()
            if row is None:
                continue  # done before
            before = Outcome(row.outcome, row.reason)
            changed[before.name] -= 1
            await count_outcome(connection, row.path, before, -1)
            if request.verb == "retry":
                again += 1
                await _put_last(connection, row)
            else:
                after = Outcome(SKIPPED, row.reason)
                changed[after.name] += 1
                await count_outcome(connection, row.path, after, 1)
                values = {"outcome": SKIPPED, "actor": request.actor, "why": request.why}
                await connection.execute(sa.update(OUTBOX).where(refused).values(values))
    if requests:
        store.outbox.unsent += again
        store.outbox.outcomes.update(changed)
        async with store.begin() as connection:
            await done(store.place, connection, [request_id for request_id, _ in requests])
    return [request for _, request in requests]


async def _put_last(connection: AsyncConnection, row: sa.Row[Any]) -> None:
    call = outgoing_of(row)
    await connection.execute(sa.delete(OUTBOX).where(OUTBOX.c.id == row.id))
    blank = {"outcome": "", "reason": "", "message": ""}
    await connection.execute(sa.insert(OUTBOX).values(asdict(call) | {"keys": list(call.keys)} | blank))
