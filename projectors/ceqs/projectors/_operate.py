"""What operators do with the places of a projection, whether a projector runs or not."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from ceqs.errors import NotFound, Rejected, Unavailable
from ceqs.projectors._lease import is_gone, named, now
from ceqs.projectors._place import Place, reading
from ceqs.projectors._places import Known, Places, Record, next_of
from ceqs.projectors._reader import Checkpoint, checkpoint_of
from ceqs.projectors._tables import CHECKPOINT

LOOK = 0.1
"""Seconds between two looks at what has become of a wish."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """Where a place stands."""

    place: Place
    record: Record
    serves: bool
    at: Checkpoint
    fed_by: str = ""
    """The processes that write it: `process 4711 on host`; empty where none does."""
    paused: str = ""
    """Why it does not go on; empty where it does."""

    @property
    def state(self) -> str:
        """What it is doing: serves, filling, ready, paused or dropping."""
        if self.record.dropping:
            return "dropping"
        if self.record.held or self.paused:
            return "paused"
        return "serves" if self.serves else "ready" if self.record.filled else "filling"


async def look_over(places: Places) -> Sequence[Standing]:
    """Say where the places of a projection stand, oldest first. Raises Unavailable."""
    # In this order: a place answers before it is noted as filled, so one that is found filled has answered.
    known, serving = await places.known(), await places.serving()
    return [await _standing(one, one.place == serving) for one in known]


async def start_rebuild(places: Places, version: int, shape: str) -> tuple[Place, bool]:
    """Have a version filled anew beside the place that serves. Give the place, and whether it is a new one.

    One that is being filled already goes on.
    """
    known = await places.known()
    for one in reversed(known):
        if (one.place.version, one.record.shape) == (version, shape) and not (one.record.filled or one.record.dropping):
            return one.place, False
    place = next_of(known, version, places)
    return place, await places.make(place, shape)


async def hold(places: Places, held: bool, only: str | None = None) -> Sequence[Place]:
    """Have places wait, or go on: all, or one by its label. Give those that did otherwise until now."""
    known = [_find(await places.known(), places, only)] if only else await places.known()
    changed = [one.place for one in known if one.record.held != held]
    for place in changed:
        await places.note(place, held=held)
    return changed


async def roll_back(places: Places, to: str | None, timeout: float) -> tuple[Place, Place]:  # noqa: ASYNC109
    """Let an earlier place answer again, as soon as it includes all that was answered with. Give both, it first.

    `to`: its label; by default the newest one older than the place that serves. Raises NotFound where there is none,
    Rejected where it has never answered or is of a log that was replaced, and Unavailable where it stays behind for
    `timeout` seconds.
    """
    known, serving = await places.known(), await places.serving()
    current = next((one for one in known if one.place == serving), None)
    if current is None:
        raise NotFound(f"no place of {places} answers yet: there is nothing to go back from")
    ready = [one for one in known if one.record.filled and not one.record.dropping]
    earlier = [one for one in ready if one.record.made_at < current.record.made_at]
    target = _find(known, places, to) if to else next(reversed(earlier), None)
    if target is None:
        raise NotFound(f"there is no place that answered before {current.place.label}; it may have been dropped")
    if target not in ready:
        raise Rejected("NOT_FILLED", f"{target.place.label} is not filled, or about to be dropped")
    if target in earlier:
        logs = [(await _standing(one, False)).at.log_id for one in (target, current)]
        if all(logs) and logs[0] != logs[1]:
            raise Rejected(
                "OTHER_LOG",
                f"{target.place.label} is of an earlier log than {current.place.label}: it includes what no longer is",
            )
    until = time.monotonic() + timeout
    while not await places.switch(target.place):
        if time.monotonic() > until:
            mine, theirs = await _standing(target, False), await _standing(current, True)
            raise Unavailable(
                f"{target.place.label} stands at position {mine.at.position} and {current.place.label} answers from "
                f"{theirs.at.position}: answers never go back in time. "
                + (f"{mine.fed_by} feeds it; try again" if mine.fed_by else _unfed(target.place))
            )
        await asyncio.sleep(LOOK)
    return target.place, current.place


async def drop(places: Places, label: str, timeout: float) -> Place:  # noqa: ASYNC109
    """Delete a place: when nobody writes it any more, and nobody reads it.

    Raises NotFound, Rejected for the place that serves, and Unavailable where it is in use for `timeout` seconds; it
    is written no more from then on, and dropped when this is called again.
    """
    target = _find(await places.known(), places, label)
    await _refuse_serving(places, target.place)
    await places.note(target.place, dropping=True)
    try:
        await _refuse_serving(places, target.place)  # It may have taken over before that was noted, and not since.
    except Rejected:
        await places.note(target.place, dropping=False)
        raise
    until = time.monotonic() + timeout
    while fed_by := (await _standing(target, False)).fed_by:
        if time.monotonic() > until:
            raise Unavailable(f"{fed_by} still writes {label}; drop it again when that has ended")
        await asyncio.sleep(LOOK)
    if not await places.remove(target.place, max(0.0, until - time.monotonic())):
        raise Unavailable(f"somebody still reads {label}; drop it again when they have ended")
    return target.place


async def _refuse_serving(places: Places, place: Place) -> None:
    if place == await places.serving():
        raise Rejected(
            "SERVES", f"{place.label} answers: let another place answer first (ceqs projection rollback, rebuild)"
        )


def _find(known: Sequence[Known], places: Places, label: str) -> Known:
    for one in known:
        if one.place.label == label:
            return one
    labels = ", ".join(one.place.label for one in known) or "none"
    raise NotFound(f"{places} has no place {label}; there is {labels}")


def _unfed(place: Place) -> str:
    return f"Nobody feeds it: start a projector of a build that has version {place.version}"


async def _standing(known: Known, serves: bool) -> Standing:
    nothing = Standing(place=known.place, record=known.record, serves=serves, at=Checkpoint())
    try:
        async with reading(known.place) as connection:
            if connection is None:
                return nothing
            alive = (CHECKPOINT.c.expires_at > now(known.place)).label("alive")
            rows = (await connection.execute(sa.select(CHECKPOINT, alive).order_by(CHECKPOINT.c.position))).all()
    except DBAPIError:
        return nothing  # its tables are yet to be made
    if not rows:
        return nothing
    # One for each share of the buckets, the one that is behind all others first.
    holders = {row.holder: named(row.holder) for row in rows if row.alive and not is_gone(row.holder)}
    return Standing(
        place=known.place,
        record=known.record,
        serves=serves,
        at=checkpoint_of(rows[0], sum(row.parked for row in rows)),
        fed_by=", ".join(filter(None, holders.values())),
        paused=next((row.paused for row in rows if row.paused), ""),
    )
