"""Calls that were refused for good: kept in the outbox, until an operator has them made again or goes on without them.

A call is refused by a rule (rejected), or because it can never be made as it is (failed). Later calls of its keys have
gone on. Made again, it comes after them, under its own id.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from ceqs.projectors._outbox import REFUSED, SKIPPED, WAITING, Outcome, Outgoing, count_outcome, outgoing_of
from ceqs.projectors._place import Place, exists, reading
from ceqs.projectors._requests import Request, asked, done
from ceqs.projectors._store import Store
from ceqs.projectors._tables import OUTBOX

ANY = (WAITING, SKIPPED, *REFUSED)
"""The outcomes of all calls that are in an outbox."""


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


async def read_calls(
    place: Place,
    outcomes: Collection[str] = ANY,
    *,
    number: int | None = None,
    request_id: str | None = None,
    limit: int | None = None,
) -> Sequence[Call]:
    """Read calls in the outbox of a place, in order: of these kinds of outcomes, of a number or an id, at most so many.

    Nothing where no place is.
    """
    query = sa.select(OUTBOX).where(OUTBOX.c.outcome.in_(outcomes)).order_by(OUTBOX.c.id).limit(limit)
    if number is not None:
        query = query.where(OUTBOX.c.id == number)
    if request_id is not None:
        query = query.where(OUTBOX.c.request_id == request_id)
    async with reading(place) as connection:
        if connection is None or not await exists(place, connection, OUTBOX):
            return []
        rows = (await connection.execute(query)).all()
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


async def count_calls(place: Place, outcomes: Collection[str]) -> int:
    """Give how many calls of these kinds of outcomes are in the outbox of a place."""
    counted = sa.select(sa.func.count()).select_from(OUTBOX).where(OUTBOX.c.outcome.in_(outcomes))
    async with reading(place) as connection:
        if connection is None or not await exists(place, connection, OUTBOX):
            return 0
        return (await connection.execute(counted)).scalar_one()


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
