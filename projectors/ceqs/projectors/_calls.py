"""Calling the services of the contexts over gRPC."""

from __future__ import annotations

import datetime as dt
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass

import grpc
import grpc.aio
from google.rpc import code_pb2, status_pb2

from ceqs.errors import CeqsError, LogUnavailable, from_status
from ceqs.streams import heed_cancellation
from ceqs.v1 import events_pb2
from ceqs.v1.events_pb2 import RecordedEvent

EVENTS = "/ceqs.v1.EventsService"
_OPTIONS = [
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.max_receive_message_length", 16 * 1024 * 1024),
]


def open_channel(address: str) -> grpc.aio.Channel:
    """Open a channel that finds its server again within about a second."""
    return grpc.aio.insecure_channel(address, options=_OPTIONS)


@dataclass(frozen=True, slots=True)
class Refusal:
    """What a failed call came to. `details` says whether a ceqs server made the status, and not the transport."""

    code: grpc.StatusCode
    error: CeqsError
    details: bool


def refusal_of(failed: grpc.aio.AioRpcError) -> Refusal:
    """Read the error of a failed call.

    Raises CancelledError where the caller was cancelled: a call swallows a cancellation that meets its end, and whoever
    makes calls until one succeeds would go on for ever.
    """
    heed_cancellation()
    for name, value in failed.trailing_metadata() or ():
        if name == "grpc-status-details-bin" and isinstance(value, bytes):
            return Refusal(failed.code(), from_status(status_pb2.Status.FromString(value)), details=True)
    code = int(failed.code().value[0])
    status = status_pb2.Status(code=code, message=f"{code_pb2.Code.Name(code)}: {failed.details()}")
    return Refusal(failed.code(), from_status(status), details=False)


class LogLink:
    """Reads a context's log through its EventsService: all of it in the private scope, or the public events."""

    def __init__(self, channel: grpc.aio.Channel, context: str, *, private: bool, key: str = "") -> None:
        self.context = context
        self.private = private
        self._scope = events_pb2.SCOPE_PRIVATE if private else events_pb2.SCOPE_PUBLIC
        self._metadata: list[tuple[str, str | bytes]] = [("ceqs-key", key)] if private else []
        self._head: grpc.aio.UnaryUnaryMultiCallable[events_pb2.GetHeadRequest, events_pb2.GetHeadResponse] = (
            channel.unary_unary(
                f"{EVENTS}/GetHead",
                request_serializer=events_pb2.GetHeadRequest.SerializeToString,
                response_deserializer=events_pb2.GetHeadResponse.FromString,
            )
        )
        self._read: grpc.aio.UnaryStreamMultiCallable[events_pb2.ReadRequest, events_pb2.ReadResponse] = (
            channel.unary_stream(
                f"{EVENTS}/Read",
                request_serializer=events_pb2.ReadRequest.SerializeToString,
                response_deserializer=events_pb2.ReadResponse.FromString,
            )
        )

    def number(self, event: RecordedEvent) -> int:
        """Give the event's position as this log's reader counts."""
        return event.position if self.private else event.public_position

    async def ask(self, timeout: float) -> events_pb2.Head:  # noqa: ASYNC109  # it travels as the deadline
        """Ask where the log stands. Raises LogUnavailable, or what the server answers."""
        try:
            response = await self._head(
                events_pb2.GetHeadRequest(context=self.context), metadata=self._metadata, timeout=timeout
            )
        except grpc.aio.AioRpcError as failed:
            raise _unavailable(failed) from failed
        return response.head

    async def head(self) -> tuple[str, int]:
        """Give the log id and the last position. Raises as `ask` does."""
        head = await self.ask(5)
        return head.log_id, head.position if self.private else head.public_position

    async def last_before(self, time: dt.datetime) -> RecordedEvent | None:
        """Give the last event that was recorded before an aware time. Raises as `read` does."""
        request = events_pb2.ReadRequest(context=self.context, scope=self._scope, limit=1, backwards=True)
        request.before_time.FromDatetime(time)
        return next(iter([event async for batch in self._batches(request) for event in batch]), None)

    async def read(self, after: int, limit: int = 0) -> AsyncGenerator[list[RecordedEvent]]:
        """Read what comes after a position, up to the head at this moment, in batches.

        Raises LogUnavailable, also midway, or what the server answers.
        """
        request = events_pb2.ReadRequest(context=self.context, scope=self._scope, after=after, limit=limit)
        async with aclosing(self._batches(request)) as batches:
            async for batch in batches:
                yield batch

    async def _batches(self, request: events_pb2.ReadRequest) -> AsyncGenerator[list[RecordedEvent]]:
        call = self._read(request, metadata=self._metadata)
        try:
            async for response in call:
                if response.events:
                    yield list(response.events)
        except grpc.aio.AioRpcError as failed:
            raise _unavailable(failed) from failed
        finally:
            call.cancel()


TRANSIENT = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
    }
)
"""What goes away by itself."""


def _unavailable(failed: grpc.aio.AioRpcError) -> CeqsError:
    refusal = refusal_of(failed)
    if refusal.details and refusal.code not in TRANSIENT:
        return refusal.error
    return LogUnavailable(f"the events cannot be read: {refusal.error.message}")
