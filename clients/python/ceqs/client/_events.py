"""Reading a context's events: each once and in order, over any number of connections."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass

import grpc.aio
from google.protobuf.message import Message

from ceqs.client._answers import Event, event_of
from ceqs.client._calls import CallMetadata, open_stream
from ceqs.client._failures import Patience, error_of
from ceqs.errors import Internal, OutOfRange, Unavailable
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
    _after: int = 0
    _log_id: str = ""

    async def read(self, after: int, *, live: bool) -> AsyncGenerator[Event, None]:
        """Give the events after a position, then (`live`) those to come."""
        self._after = after
        patience = Patience(self.timeout)
        while True:
            call = self._open(live=live)
            try:
                async for batch in call:
                    patience = Patience(None)
                    for recorded in batch.events:
                        if self._is_next(recorded):
                            yield event_of(recorded, self.known)
                    self._mark(batch)
                    if isinstance(batch, ReadResponse) and batch.HasField("caught_up"):
                        return
                await patience.after(_EndOfStreamError())
            except grpc.aio.AioRpcError as failure:
                await patience.after(error_of(failure))
            finally:
                call.cancel()

    def _open(self, *, live: bool) -> grpc.aio.UnaryStreamCall[Message, ReadResponse | SubscribeResponse]:
        scope = SCOPE_PUBLIC if self.public else SCOPE_PRIVATE
        chosen = EventFilter(types=self.types, tags=self.tags)
        if live:
            subscribe = SubscribeRequest(context=self.context, scope=scope, after=self._after, filter=chosen)
            return open_stream(self.channel, SUBSCRIBE, subscribe, SubscribeResponse, self.metadata)
        read = ReadRequest(context=self.context, scope=scope, after=self._after, filter=chosen)
        return open_stream(self.channel, READ, read, ReadResponse, self.metadata)

    def _is_next(self, recorded: RecordedEvent) -> bool:
        """Count an event; False where it was seen. Raises Internal where the server left one out."""
        position = recorded.public_position if self.public else recorded.position
        if position <= self._after:
            return False
        if position > self._after + 1 and not (self.types or self.tags):
            raise Internal(f"{self.context} sent position {position} after {self._after}; positions have no gaps")
        self._after = position
        return True

    def _mark(self, batch: ReadResponse | SubscribeResponse) -> None:
        """Note how far the server has read: with a filter, that is further than the last event."""
        if batch.HasField("caught_up"):
            if self._log_id and batch.caught_up.log_id not in ("", self._log_id):
                raise OutOfRange(f"the log of {self.context} was restored: earlier positions do not hold in it")
            self._log_id = self._log_id or batch.caught_up.log_id
            self._after = max(self._after, batch.caught_up.position)
        if isinstance(batch, SubscribeResponse) and batch.HasField("resume"):
            self._after = max(self._after, batch.resume.position)
