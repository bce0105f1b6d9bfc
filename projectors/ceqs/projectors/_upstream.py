"""Another context, as far as tokens of it are concerned."""

from __future__ import annotations

from collections.abc import Collection

import grpc
import grpc.aio

from ceqs.errors import Expired, Unavailable
from ceqs.projectors._calls import EVENTS, open_channel, refusal_of
from ceqs.v1 import events_pb2

HASTE = 0.5
"""Seconds: who does not answer within less had no time to."""


class Upstream:
    """Asks the server of another context when what a token says has become public. `close` it where it was used."""

    def __init__(self, context: str, address: str) -> None:
        self.context = context
        self._channel = open_channel(address)
        self._resolve: grpc.aio.UnaryUnaryMultiCallable[
            events_pb2.ResolveTokenRequest, events_pb2.ResolveTokenResponse
        ] = self._channel.unary_unary(
            f"{EVENTS}/ResolveToken",
            request_serializer=events_pb2.ResolveTokenRequest.SerializeToString,
            response_deserializer=events_pb2.ResolveTokenResponse.FromString,
        )

    async def public_position(self, token: str, asked: Collection[str], timeout: float) -> int | None:  # noqa: ASYNC109  # it travels as the deadline
        """Wait until everything that the token says is public there; give the public position, None if it says nothing.

        `asked` are the contexts that are asking already. Raises Behind where it is not that far, Unavailable where it
        cannot be asked, and Expired where it does not answer in time.
        """
        request = events_pb2.ResolveTokenRequest(context=self.context, token=token, asked=asked)
        try:
            response = await self._resolve(request, timeout=timeout)
        except grpc.aio.AioRpcError as failed:
            refusal = refusal_of(failed)
            if refusal.details and refusal.code is grpc.StatusCode.UNAVAILABLE:
                raise refusal.error from failed
            if refusal.code is grpc.StatusCode.DEADLINE_EXCEEDED and timeout < HASTE:
                raise Expired(f"{self.context} has not said in time what the token means") from failed
            raise Unavailable(f"{self.context} cannot say what the token means: {refusal.error.message}") from failed
        return response.public_position if response.log_id else None

    async def close(self) -> None:
        """Close the channel."""
        await self._channel.close()
