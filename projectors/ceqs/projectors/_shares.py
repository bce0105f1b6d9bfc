"""Partitions: each worker of a place has a share of the buckets, and a row of the checkpoint for it.

An event's bucket was frozen when it was appended, by its partition key, so that all events of a key are in one share.
The rows of a place have every bucket exactly once. When there are to be more or fewer shares, the rows are cut anew: a
worker whose share is made of pieces that stand at different positions begins at the least of them, and leaves out what
the others are ahead by.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from ceqs.contract import BUCKETS
from ceqs.projectors._lease import is_gone, now
from ceqs.projectors._place import Place
from ceqs.projectors._tables import CHECKPOINT, PARKED


@dataclass(frozen=True, slots=True)
class Share:
    """The buckets from `first` to `last`, inclusive."""

    first: int
    last: int

    def __contains__(self, bucket: int) -> bool:
        return self.first <= bucket <= self.last

    @property
    def size(self) -> int:
        """How many buckets it has."""
        return self.last - self.first + 1

    def meets(self, other: Share) -> bool:
        """Whether they have a bucket in common."""
        return self.first <= other.last and other.first <= self.last

    def of(self, other: Share) -> Share:
        """Give what it has of another, which it meets."""
        return Share(max(self.first, other.first), min(self.last, other.last))

    def __str__(self) -> str:
        return f"buckets {self.first} to {self.last}"


WHOLE = Share(0, BUCKETS - 1)
Ahead = list[tuple[int, int, int]]
"""First bucket, last bucket, and the position up to which their events are included."""


def shares(count: int) -> list[Share]:
    """Cut all buckets into so many shares, 1 to 256."""
    bounds = [BUCKETS * n // count for n in range(count + 1)]
    return [Share(first, after - 1) for first, after in pairwise(bounds)]


def first_row(source: str) -> dict[str, Any]:
    """Give the row of a place that nobody has written to."""
    blank: dict[str, Any] = {"source": source, "first": WHOLE.first, "last": WHOLE.last, "ahead": []}
    blank |= {
        "log_id": "",
        "position": 0,
        "event_id": "",
        "recorded_at": None,
        "skipped": 0,
        "parked": 0,
        "paused": "",
        "round": 1,
    }
    return blank | {"token": 0, "holder": "", "expires_at": 0.0}


async def cut(connection: AsyncConnection, place: Place, source: str, share: Share) -> bool:
    """See that a share has a row of its own, in a transaction. Say whether it has: pieces of it may be leased."""
    ours = CHECKPOINT.c.source == source
    exact = sa.and_(ours, CHECKPOINT.c.first == share.first, CHECKPOINT.c.last == share.last)
    if (await connection.execute(sa.select(CHECKPOINT.c.first).where(exact))).first():
        return True
    if place.schema:
        # Who waits for rows that another is cutting would find only those that are left of them.
        await connection.execute(sa.select(sa.func.pg_advisory_xact_lock(sa.func.hashtext(place.schema))))
    live = (CHECKPOINT.c.expires_at > now(place)).label("live")
    meeting = sa.select(CHECKPOINT, live).where(
        ours, CHECKPOINT.c.first <= share.last, CHECKPOINT.c.last >= share.first
    )
    rows = (await connection.execute(meeting.order_by(CHECKPOINT.c.first).with_for_update())).mappings().all()
    if not rows or any(row["holder"] and row["live"] and not is_gone(row["holder"]) for row in rows):
        return False
    token = max(row["token"] for row in rows) + 1
    pieces = [(Share(row["first"], row["last"]), {k: v for k, v in row.items() if k != "live"}) for row in rows]
    least = min((row for _, row in pieces), key=lambda row: row["position"])
    mine = {
        **least,
        "log_id": next((row["log_id"] for _, row in pieces if row["log_id"]), ""),
        "ahead": _ahead(share, pieces, least["position"]),
        "skipped": sum(row["skipped"] for _, row in pieces if row["first"] in share),
    }
    made = [(share, mine)]
    for piece, row in pieces:
        outside = (Share(piece.first, share.first - 1), Share(share.last + 1, piece.last))
        for rest in (rest for rest in outside if rest.first <= rest.last):
            ahead = _ahead(rest, [(piece, row)], row["position"])
            made.append((rest, row | {"ahead": ahead, "skipped": row["skipped"] * (piece.first in rest)}))
    await connection.execute(sa.delete(CHECKPOINT).where(ours, CHECKPOINT.c.first.in_([p.first for p, _ in pieces])))
    for part, row in made:
        parked = sa.select(sa.func.count()).where(PARKED.c.bucket.between(part.first, part.last))
        own = {"first": part.first, "last": part.last, "parked": (await connection.execute(parked)).scalar_one()}
        free = {"token": token, "holder": "", "expires_at": 0.0, "paused": ""}
        await connection.execute(sa.insert(CHECKPOINT).values({**row, **own, **free}))
    return True


def _ahead(share: Share, pieces: Sequence[tuple[Share, dict[str, Any]]], position: int) -> Ahead:
    """Give what of a share is beyond a position."""
    found: Ahead = []
    for piece, row in pieces:
        parts = [(piece, row["position"]), *((Share(first, last), at) for first, last, at in row["ahead"])]
        for part, at in parts:
            if at > position and part.meets(share):
                common = share.of(part)
                found.append((common.first, common.last, at))
    return found
