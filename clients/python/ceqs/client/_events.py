"""Reading a context's events: each once and in order, over any number of connections."""

from __future__ import annotations

import datetime as dt
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass

import grpc.aio
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from ceqs.client._answers import Event, event_of
from ceqs.client._calls import CallMetadata, open_stream
from ceqs.client._failures import Patience, error_of
from ceqs.errors import Internal, Invalid, OutOfRange, Unavailable, Violation
from ceqs.v1.events_pb2 import (
    SCOPE_PRIVATE,
    SCOPE_PUBLIC,
    EventFilter,
    ReadRequest,
    ReadResponse,
    RecordedEvent,
    SubscribeRequest,
    SubscribeResponse,
)

SUBSCRIBE = "/ceqs.v1.EventsService/Subscribe"
READ = "/ceqs.v1.EventsService/Read"


class _EndOfStreamError(Unavailable):
    """The stream ended before its time. Go on after the last position seen."""

    retry_after = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """Which part of the events is asked for; see ContextClient.events."""

    after: int = 0
    before: int = 0
    from_time: dt.datetime | None = None
    before_time: dt.datetime | None = None
    limit: int | None = None
    backwards: bool = False
    correlation_ids: tuple[str, ...] = ()
    live: bool = True

    def __post_init__(self) -> None:
        """Raise Invalid for bounds that cannot be."""
        wrong: list[Violation] = []
        ends = (
            ("after", self.after, "from_time", self.from_time),
            ("before", self.before, "before_time", self.before_time),
        )
        for position, number, name, time in ends:
            if number < 0:
                wrong.append(Violation(position, "must not be negative"))
            if time is not None and time.tzinfo is None:
                wrong.append(Violation(name, "needs a time zone"))
            if time is not None and number:
                wrong.append(Violation(name, f"stands instead of `{position}`: give one of them"))
        if self.live and (self.before or self.before_time or self.backwards):
            wrong.append(Violation("live", "has no end: events before something, or backwards, are read live=False"))
        if self.live and self.correlation_ids:
            wrong.append(Violation("live", "has no end: what follows from a command is looked for live=False"))
        if self.limit is not None and self.limit < 1:
            wrong.append(Violation("limit", "must be at least 1"))
        if wrong:
            raise Invalid(violations=wrong)


@dataclass(slots=True, kw_only=True)
class EventsReader:
    """One reading of the events of a context. `timeout` bounds the wait for the first connection, in seconds."""

    channel: grpc.aio.Channel
    metadata: CallMetadata
    context: str
    known: Mapping[str, type[Message]]
    public: bool
    types: tuple[str, ...]
    tags: tuple[str, ...]
    timeout: float
    bounds: Bounds
    upcast: bool = True
    _at: int | None = None
    """How far it has read; None before it has read anything, and where to begin is not a position."""
    _given: int = 0
    _log_id: str = ""

    async def read(self) -> AsyncGenerator[Event, None]:
        """Give the events within the bounds, then (live) those to come."""
        if self.bounds.after and not self.bounds.backwards:
            self._at = self.bounds.after
        patience = Patience(self.timeout)
        while True:
            call = self._open()
            try:
                async for batch in call:
                    patience = Patience(None)
                    for recorded in batch.events:
                        if self._is_next(recorded):
                            yield event_of(recorded, self.known)
                            if self._given == self.bounds.limit:
                                return
                    self._mark(batch)
                    if isinstance(batch, ReadResponse) and batch.HasField("caught_up"):
                        return
                await patience.after(_EndOfStreamError())
            except grpc.aio.AioRpcError as failure:
                await patience.after(error_of(failure))
            finally:
                call.cancel()

    def _open(self) -> grpc.aio.UnaryStreamCall[Message, ReadResponse | SubscribeResponse]:
        """Ask for what is left."""
        bounds, at = self.bounds, self._at
        scope = SCOPE_PUBLIC if self.public else SCOPE_PRIVATE
        chosen = EventFilter(types=self.types, tags=self.tags)
        onwards = at is not None and not bounds.backwards
        after, from_time = (at or 0, None) if onwards else (bounds.after, bounds.from_time)
        if bounds.live:
            subscribe = SubscribeRequest(
                context=self.context,
                scope=scope,
                after=after,
                from_time=_stamp(from_time),
                filter=chosen,
                upcast=self.upcast,
            )
            return open_stream(self.channel, SUBSCRIBE, subscribe, SubscribeResponse, self.metadata)
        back = at is not None and bounds.backwards
        before, before_time = (at or 0, None) if back else (bounds.before, bounds.before_time)
        read = ReadRequest(
            context=self.context,
            scope=scope,
            after=after,
            from_time=_stamp(from_time),
            before=before,
            before_time=_stamp(before_time),
            limit=(bounds.limit or self._given) - self._given,
            filter=chosen,
            backwards=bounds.backwards,
            correlation_ids=bounds.correlation_ids,
            upcast=self.upcast,
        )
        return open_stream(self.channel, READ, read, ReadResponse, self.metadata)

    def _is_next(self, recorded: RecordedEvent) -> bool:
        """Count an event; False where it was seen. Raises Internal where the server left one out."""
        position = recorded.public_position if self.public else recorded.position
        step = -1 if self.bounds.backwards else 1
        at = self._at
        if at is None and not self.bounds.backwards and self.bounds.from_time is None:
            at = 0
        if at is not None:
            if (position - at) * step <= 0:
                return False
            if position != at + step and not (self.types or self.tags or self.bounds.correlation_ids):
                raise Internal(f"{self.context} sent position {position} after {at}; positions have no gaps")
        self._at = position
        self._given += 1
        return True

    def _mark(self, batch: ReadResponse | SubscribeResponse) -> None:
        """Note how far the server has read: with a filter, that is further than the last event."""
        if batch.HasField("caught_up"):
            if self._log_id and batch.caught_up.log_id not in ("", self._log_id):
                raise OutOfRange(f"the log of {self.context} was restored: earlier positions do not hold in it")
            self._log_id = self._log_id or batch.caught_up.log_id
            self._at = max(self._at or 0, batch.caught_up.position)
        if isinstance(batch, SubscribeResponse) and batch.HasField("resume"):
            self._at = max(self._at or 0, batch.resume.position)


def _stamp(time: dt.datetime | None) -> Timestamp | None:
    if time is None:
        return None
    stamp = Timestamp()
    stamp.FromDatetime(time)
    return stamp
