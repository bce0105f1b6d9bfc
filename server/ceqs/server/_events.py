"""EventsService: the recorded events of a context, once or live."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from ceqs.errors import Invalid, OutOfRange, Violation
from ceqs.log import ALL, Head, LogReader, Query, QueryItem
from ceqs.queries import Stop
from ceqs.server._streams import batch, now
from ceqs.v1 import events_pb2
from ceqs.v1.events_pb2 import (
    CaughtUp,
    EventFilter,
    FellBehind,
    ReadRequest,
    ReadResponse,
    Resume,
    SubscribeRequest,
    SubscribeResponse,
)

FELL_BEHIND = 10_000
"""How many events a live reader may lack before it is told."""
IDLE = 30.0
"""How long, in seconds, a live reader waits before it looks at the head again by itself."""
_MAX_TYPES, _MAX_TAGS = 256, 64


def head_message(log: LogReader, head: Head) -> events_pb2.Head:
    """Give where a log stands as a message."""
    message = events_pb2.Head(
        log_id=head.log_id,
        log=log.name,
        epoch=head.epoch,
        position=head.position,
        public_position=head.public_position,
    )
    if head.recorded_at is not None:
        message.recorded_at.FromDatetime(head.recorded_at)
    return message


def is_private(scope: events_pb2.Scope.ValueType) -> bool:
    """Whether a scope needs the key. Raises Invalid where there is no such scope."""
    if scope not in events_pb2.Scope.values():
        raise Invalid(violations=[Violation("scope", f"has the unknown value {scope}")])
    return scope == events_pb2.SCOPE_PRIVATE


async def read(log: LogReader, request: ReadRequest) -> AsyncGenerator[bytes, None]:
    """Give what is recorded between `after` and the head as it is now, in batches, then the marker."""
    public, query = not is_private(request.scope), _query(request.filter)
    head = await log.head()
    end, position = _end(head, public=public), request.after
    _refuse_beyond(log, position, end)
    left = request.limit or None
    while position < end and left != 0:
        limit = min(1000, left) if left else 1000
        part = await log.read(after=position, limit=limit, query=query, public=public, until=end)
        if part.events:
            yield batch(part.events)
        position = part.through
        left = left - len(part.events) if left else None
    marker = CaughtUp(position=position, time=now(), log_id=head.log_id)
    yield ReadResponse(caught_up=marker).SerializeToString()


async def subscribe(log: LogReader, request: SubscribeRequest, stop: Stop) -> AsyncGenerator[bytes, None]:
    """Give what is recorded after `after`, then what will be, in batches, with markers; at the end where to resume.

    The next batch is read only when the one before was taken, so a slow reader costs one batch of memory.
    """
    public, query = not is_private(request.scope), _query(request.filter)
    position, live = request.after, False
    head = await log.head()
    _refuse_beyond(log, position, _end(head, public=public))
    while not stop.asked:
        end = _end(head, public=public)
        if live and end - position > FELL_BEHIND:
            live = False
            yield SubscribeResponse(fell_behind=FellBehind(position=position, time=now())).SerializeToString()
        while position < end and not stop.asked:
            part = await log.read(after=position, query=query, public=public, until=end)
            if part.events:
                yield batch(part.events)
            position = part.through
        if not live and position >= end:
            live = True
            marker = CaughtUp(position=position, time=now(), log_id=head.log_id)
            yield SubscribeResponse(caught_up=marker).SerializeToString()
        await stop.or_result(log.wait(head.position, IDLE))
        head = await log.head()
    yield SubscribeResponse(resume=Resume(position=position, time=now())).SerializeToString()


def _end(head: Head, *, public: bool) -> int:
    return head.public_position if public else head.position


def _refuse_beyond(log: LogReader, after: int, end: int) -> None:
    if after > end:
        raise OutOfRange(
            f"the log {log.name} ends at {end}, so nothing can come after {after}; was it restored from a backup?",
            metadata={"log_id": log.log_id, "position": str(end)},
        )


def _query(chosen: EventFilter) -> Query:
    if len(chosen.types) > _MAX_TYPES or len(chosen.tags) > _MAX_TAGS:
        raise Invalid(violations=[Violation("filter", f"may name {_MAX_TYPES} types and {_MAX_TAGS} tags at most")])
    if not chosen.types and not chosen.tags:
        return ALL
    return Query((QueryItem(frozenset(chosen.types), frozenset(chosen.tags)),))
