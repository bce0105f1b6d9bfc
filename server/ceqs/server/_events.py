"""EventsService: the recorded events of a context, once or live."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace

from google.protobuf.timestamp_pb2 import Timestamp

from ceqs.errors import Invalid, OutOfRange, Violation
from ceqs.log import ALL, BEYOND, Batch, Head, LogReader, Query, QueryItem, Span, splice
from ceqs.model import EventDecoder
from ceqs.server._pages import Pages
from ceqs.server._tail import Tail
from ceqs.server._upcast import Upcast
from ceqs.v1 import events_pb2
from ceqs.v1.events_pb2 import (
    CaughtUp,
    EventFilter,
    FellBehind,
    ReadRequest,
    ReadResponse,
    RecordedEvent,
    Resume,
    SubscribeRequest,
    SubscribeResponse,
)

_MAX_TYPES, _MAX_TAGS = 256, 64
_LAST_MOMENT = dt.datetime.max.replace(tzinfo=dt.UTC)


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


class Events:
    """The recorded events of one context, for all who read them or subscribe to them. `close` ends the streams."""

    def __init__(self, log: LogReader, decoder: EventDecoder) -> None:
        self._log = log
        self._pages = Pages(log)
        self._upcast = Upcast(log, decoder) if decoder.evolved else None
        self._tail = Tail(log)

    async def close(self) -> None:
        """End all subscriptions."""
        await self._tail.close()

    async def read(self, request: ReadRequest) -> AsyncGenerator[bytes, None]:
        """Give what is recorded within the bounds of the request, in batches, then the marker."""
        head = await self._log.head()
        span = await _span(self._log, head, request)
        position = span.until + 1 if span.backwards else span.after
        source = self._source(request)
        correlated = frozenset(request.correlation_ids)
        found = _correlated(self._log, span, correlated, source) if correlated else _batches(source, span)
        async with aclosing(found) as batches:
            async for batch in batches:
                if batch.events:
                    yield batch.data
                position = batch.through
        marker = CaughtUp(position=position, time=_now(), log_id=head.log_id)
        yield ReadResponse(caught_up=marker).SerializeToString()

    async def subscribe(self, request: SubscribeRequest) -> AsyncGenerator[bytes, None]:
        """Give what is recorded from where the request starts, then what will be, in batches, with markers.

        Whoever keeps up is served from the ring that all share, whoever does not from the log: one batch at a time, and
        the next one when it was taken, so that a reader that stops costs what is on its way to it. At the end of the
        stream stands where to resume.
        """
        public, query, live = not is_private(request.scope), _query(request.filter), False
        tags, source = frozenset(request.filter.tags), self._source(request)
        async with self._tail.joined(tags) as ring:
            # Of what is in the ring already, nobody has asked about these tags.
            begin = ring.through(public=public) if tags else 0
            end = _end(await self._log.head(), public=public)
            position = await _start(self._log, request, end)
            while not self._tail.closed:
                through = ring.through(public=public)
                behind = position < max(begin, ring.begin(public=public))
                if behind and live:
                    live = False
                    marker = FellBehind(position=position, time=_now())
                    yield SubscribeResponse(fell_behind=marker).SerializeToString()
                if behind or (position < through and source is not self._pages):
                    span = Span(after=position, until=through, limit=BEYOND, query=query, public=public)
                    data, _, position = await source.read(span)
                elif position < through:
                    data, position = ring.after(position, query, public=public)
                elif live or position < end:
                    await self._tail.moved()
                    continue
                else:
                    live = True
                    caught_up = CaughtUp(position=position, time=_now(), log_id=self._log.log_id)
                    data = SubscribeResponse(caught_up=caught_up).SerializeToString()
                if data:
                    yield data
        yield SubscribeResponse(resume=Resume(position=position, time=_now())).SerializeToString()

    def _source(self, request: ReadRequest | SubscribeRequest) -> Pages | Upcast:
        """Give what reads the log: as it is stored, unless earlier versions are to be upcast and there are some."""
        return self._upcast if request.upcast and self._upcast else self._pages


async def _batches(pages: Pages | Upcast, span: Span) -> AsyncGenerator[Batch, None]:
    """Read a span. While one batch is being sent, the next one is read."""
    ahead: asyncio.Task[Batch] | None = None
    try:
        while span.limit and not span.is_empty:
            batch = await (ahead or pages.read(span))
            span, ahead = replace(span.beyond(batch.through), limit=span.limit - batch.events), None
            if span.limit and not span.is_empty:
                ahead = asyncio.create_task(pages.read(span))
            yield batch
    finally:
        if ahead is not None:
            ahead.cancel()
            await asyncio.gather(ahead, return_exceptions=True)


async def _correlated(
    log: LogReader, span: Span, correlation_ids: frozenset[str], source: Pages | Upcast
) -> AsyncGenerator[Batch, None]:
    """Read a span, and give those of its events that follow from certain first commands."""
    query = source.query(span.query) if isinstance(source, Upcast) else span.query
    while span.limit and not span.is_empty:
        part = await log.read(
            after=span.after, until=span.until, query=query, public=span.public, backwards=span.backwards
        )
        if not part.events:
            return
        chosen = [
            event for event in part.events if RecordedEvent.FromString(event.envelope).correlation_id in correlation_ids
        ]
        through = part.through
        if len(chosen) > span.limit:
            chosen = chosen[: span.limit]
            through = chosen[-1].public_position if span.public else chosen[-1].position
        envelopes = source.envelopes(chosen) if isinstance(source, Upcast) else [event.envelope for event in chosen]
        yield Batch(splice(envelopes), len(envelopes), through)
        span = replace(span.beyond(through), limit=span.limit - len(envelopes))
        # Memory and SQLite answer at once; others get a turn.
        await asyncio.sleep(0)


async def _span(log: LogReader, head: Head, request: ReadRequest) -> Span:
    public, query = not is_private(request.scope), _query(request.filter)
    end = _end(head, public=public)
    after = await _start(log, request, end)
    if request.HasField("before_time"):
        if request.before:
            raise _either("before_time", "before")
        end = min(end, await log.position_before(_moment(request.before_time), public=public))
    elif request.before:
        end = min(end, request.before - 1)
    limit = request.limit or BEYOND
    return Span(
        after=after, until=max(after, end), limit=limit, query=query, public=public, backwards=request.backwards
    )


async def _start(log: LogReader, request: ReadRequest | SubscribeRequest, end: int) -> int:
    """Give the position after which to begin."""
    if request.HasField("from_time"):
        if request.after:
            raise _either("from_time", "after")
        return min(end, await log.position_before(_moment(request.from_time), public=not is_private(request.scope)))
    if request.after > end:
        raise OutOfRange(
            f"the log {log.name} ends at {end}, so nothing comes after {request.after}; was it restored from a backup?",
            metadata={"log_id": log.log_id, "position": str(end)},
        )
    return request.after


def _either(one: str, other: str) -> Invalid:
    return Invalid(violations=[Violation(one, f"stands instead of `{other}`: give one of them")])


def _moment(time: Timestamp) -> dt.datetime:
    """Give a time as the log counts it, in microseconds: between two of them, the later one."""
    moment = time.ToDatetime(dt.UTC)
    return moment + dt.timedelta(microseconds=1) if time.nanos % 1000 and moment < _LAST_MOMENT else moment


def _end(head: Head, *, public: bool) -> int:
    return head.public_position if public else head.position


def _now() -> Timestamp:
    time = Timestamp()
    time.GetCurrentTime()
    return time


def _query(chosen: EventFilter) -> Query:
    if len(chosen.types) > _MAX_TYPES or len(chosen.tags) > _MAX_TAGS:
        raise Invalid(violations=[Violation("filter", f"may name {_MAX_TYPES} types and {_MAX_TAGS} tags at most")])
    if not chosen.types and not chosen.tags:
        return ALL
    return Query((QueryItem(frozenset(chosen.types), frozenset(chosen.tags)),))
