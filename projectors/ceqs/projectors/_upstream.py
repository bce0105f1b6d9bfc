"""Another context, as its neighbours see it: what it tells them, and what its tokens mean there."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Collection, Sequence
from contextlib import aclosing

import grpc
import grpc.aio

from ceqs.contract import public_of
from ceqs.errors import CeqsError, Expired, LogUnavailable, OutOfRange, Unavailable
from ceqs.log import BEYOND, Head, Shared, Slice, StoredEvent
from ceqs.projectors._calls import EVENTS, LogLink, open_channel, refusal_of
from ceqs.v1 import events_pb2
from ceqs.v1.events_pb2 import RecordedEvent

HASTE = 0.5
"""Seconds: who does not answer within less had no time to."""
SILENT = 2.0
"""For how many seconds nobody waits again for a server that has not said where it stands."""


class Upstream:
    """Reads the public events of a context as a log whose positions are the public ones, and resolves its tokens.

    `close` it where it was used.
    """

    def __init__(self, context: str, address: str) -> None:
        self.name = context
        self.log_id = ""
        """The id of the public log, as tokens have it; empty before the server has first said where it stands."""
        self._channel = open_channel(address)
        self._link = LogLink(self._channel, context, private=False)
        self._resolve: grpc.aio.UnaryUnaryMultiCallable[
            events_pb2.ResolveTokenRequest, events_pb2.ResolveTokenResponse
        ] = self._channel.unary_unary(
            f"{EVENTS}/ResolveToken",
            request_serializer=events_pb2.ResolveTokenRequest.SerializeToString,
            response_deserializer=events_pb2.ResolveTokenResponse.FromString,
        )
        # A call takes long enough for company to come; whoever asks one after the other would wait each time.
        self._heads: Shared[None, events_pb2.Head] = Shared(self._ask, linger=0)
        self._silent: tuple[float, CeqsError | None] = 0.0, None
        """Until when nobody waits for the server, and why."""

    async def head(self) -> Head:
        """Say where the public log stands, not before it was asked.

        Raises Unavailable where the server does not say; at once, where it did not say a moment ago.
        """
        return self._public(await self._stands())

    async def read(self, *, after: int = 0, limit: int = 1000, until: int | None = None) -> Slice:
        """Read public events by public positions, as a log is read. Raises Unavailable."""
        most = min(limit, BEYOND if until is None else until - after)
        async with aclosing(self._link.read(after, most)) as batches:
            batch = await anext(batches, None) if most > 0 else None
        return Slice([_stored(event) for event in batch], batch[-1].public_position) if batch else Slice((), after)

    async def position_before(self, time: dt.datetime) -> int:
        """Give the last public position that was recorded before an aware time; 0 where there is none."""
        last = await self._link.last_before(time)
        return last.public_position if last else 0

    async def counted(self, position: int) -> int:
        """Give how many public events the first `position` events of the log are.

        Raises OutOfRange where it has not so many, and Unavailable.
        """
        head = await self._stands()
        if position > head.position:
            metadata = {"log_id": head.log_id, "position": str(head.position)}
            raise OutOfRange(f"the log of {self.name} ends at {head.position}, before {position}", metadata=metadata)
        least, most = 0, head.public_position
        while least < most:
            middle = (least + most + 1) // 2
            (event,) = (await self.read(after=middle - 1, limit=1)).events
            if RecordedEvent.FromString(event.envelope).position <= position:
                least = middle
            else:
                most = middle - 1
        return least

    async def public_position(self, token: str, asked: Collection[str], timeout: float) -> int | None:  # noqa: ASYNC109  # it travels as the deadline
        """Wait until everything that the token says is public there; give the public position, None if it says nothing.

        `asked` are the contexts that are asking already. Raises Behind where it is not that far, Unavailable where it
        cannot be asked, and Expired where it does not answer in time.
        """
        request = events_pb2.ResolveTokenRequest(context=self.name, token=token, asked=asked)
        try:
            response = await self._resolve(request, timeout=timeout)
        except grpc.aio.AioRpcError as failed:
            refusal = refusal_of(failed)
            if refusal.details and refusal.code is grpc.StatusCode.UNAVAILABLE:
                raise refusal.error from failed
            if refusal.code is grpc.StatusCode.DEADLINE_EXCEEDED and timeout < HASTE:
                raise Expired(f"{self.name} has not said in time what the token means") from failed
            raise Unavailable(f"{self.name} cannot say what the token means: {refusal.error.message}") from failed
        self._silent = 0.0, None
        return response.public_position if response.log_id else None

    async def close(self) -> None:
        """Close the channel."""
        await self._heads.close()
        await self._channel.close()

    async def _stands(self) -> events_pb2.Head:
        until, why = self._silent
        if why is not None and time.monotonic() < until:
            raise LogUnavailable(why.message)
        return await self._heads.ask(None)

    async def _ask(self, asked: Sequence[None]) -> Sequence[events_pb2.Head]:
        try:
            head = await self._link.ask(HASTE)
        except Unavailable as error:
            self._silent = time.monotonic() + SILENT, error
            raise
        self._silent = 0.0, None
        self.log_id = public_of(head.log_id)
        return [head] * len(asked)

    def _public(self, head: events_pb2.Head) -> Head:
        recorded_at = head.recorded_at.ToDatetime(dt.UTC) if head.HasField("recorded_at") else None
        return Head(public_of(head.log_id), head.public_position, head.public_position, recorded_at, head.epoch)


def _stored(event: RecordedEvent) -> StoredEvent:
    return StoredEvent(event.public_position, event.public_position, event.type, event.SerializeToString())
