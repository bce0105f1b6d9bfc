"""Moments of the past: which position of the log they stand for."""

from __future__ import annotations

import datetime as dt

from ceqs.contract import Moment, public_of
from ceqs.errors import Invalid, OutOfRange, Violation
from ceqs.log import Head, LogReader, Numbered
from ceqs.v1.events_pb2 import RecordedEvent

_TICK = dt.timedelta(microseconds=1)
"""The log counts time in microseconds."""
_BEGINNING = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
"""Before anything was recorded anywhere."""


async def position_of(moment: Moment, log: Numbered, head: Head) -> int:
    """Give the last position that belongs to a moment: of a time, what was recorded then or before.

    Raises OutOfRange where the moment is still to come, Invalid where it is a token of other logs only.
    """
    if isinstance(moment, dt.datetime):
        now = dt.datetime.now(dt.UTC)
        latest = max(now, head.recorded_at or now)
        if moment > latest:
            raise _to_come(f"{moment.isoformat()} is still to come: it is {latest.isoformat()}", log, head)
        return min(head.position, await log.position_before(moment + _TICK))
    position = moment.get(log.log_id)
    if position is None:
        raise Invalid(violations=[Violation("ceqs-as-of", f"is no token of the log of {log.name}")])
    if position > head.position:
        raise _to_come(f"the log of {log.name} ends at {head.position}, before {position}", log, head)
    return position


async def own_moment(moment: Moment, log: LogReader) -> Moment:
    """Give a moment of the own log; where it is a public position of it, by that event's position.

    So what another context's projection says that it includes is a moment here. Raises OutOfRange where there are not
    so many public events.
    """
    own = public_of(log.log_id)
    if isinstance(moment, dt.datetime) or log.log_id in moment or own not in moment:
        return moment
    public = moment[own]
    found = (await log.read(after=public - 1, limit=1, public=True)).events if public else ()
    if public and not found:
        head = await log.head()
        raise _to_come(f"the log of {log.name} has {head.public_position} public events, not yet {public}", log, head)
    return {**moment, log.log_id: found[0].position if found else 0}


async def time_of(moment: Moment, log: Numbered, head: Head) -> dt.datetime:
    """Give the time that a moment stands for, to be told to others. Raises as `position_of` does."""
    if isinstance(moment, dt.datetime):
        return moment
    return await recorded_at(log, await position_of(moment, log, head)) or _BEGINNING


async def recorded_at(log: Numbered, position: int) -> dt.datetime | None:
    """Give when the event of a position was recorded; None for the position before the first event."""
    found = (await log.read(after=position - 1, limit=1)).events if position else ()
    return RecordedEvent.FromString(found[0].envelope).recorded_at.ToDatetime(dt.UTC) if found else None


def _to_come(message: str, log: Numbered, head: Head) -> OutOfRange:
    return OutOfRange(message, metadata={"log_id": log.log_id, "position": str(head.position)})
