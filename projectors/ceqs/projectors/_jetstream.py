"""The stream of a log, listened to."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Sequence

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError

from ceqs.errors import CeqsError, Unavailable
from ceqs.projectors._pull import API_TIMEOUT, Pull
from ceqs.streams import connect, find_stream, from_message
from ceqs.v1.events_pb2 import RecordedEvent

LOOK_FOR_EPOCH = 10.0
"""Seconds between two looks for a stream of a newer epoch."""


class NatsLink:
    """The connection of one process to its nats-server: made when it is needed, made anew when it is lost."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._client: Client | None = None
        self._connecting = asyncio.Lock()

    async def client(self) -> Client:
        """Give a connection. Raises Unavailable."""
        async with self._connecting:
            if self._client is None or self._client.is_closed:
                self._client = None
                self._client = await connect(self._url, name="ceqs projector")
            return self._client

    async def close(self) -> None:
        """Close the connection."""
        if self._client is not None:
            await self._client.close()


class LogStream:
    """The log stream of a context, or its public stream; sequences are positions."""

    def __init__(self, link: NatsLink, context: str, *, public: bool) -> None:
        self._link = link
        self._context = context
        self._public = public

    async def listen(self, after: int) -> AsyncGenerator[tuple[str, Sequence[RecordedEvent]]]:
        """Give the log id and the events after a position as they come, and no events whenever a second is silent.

        Raises Unavailable when the stream or the server is lost.
        """
        try:
            client = await self._link.client()
            manager = client.jetstream(timeout=API_TIMEOUT)  # pyright: ignore[reportUnknownMemberType]
            stream = await find_stream(manager, self._context, public=self._public)
            if stream is None:
                raise Unavailable(f"JetStream has no stream of {self._context} yet: is its relay running?")
            async with Pull.open(client, stream.name, after + 1) as messages:
                yield stream.log_id, []
                looked = time.monotonic()
                while True:
                    yield stream.log_id, [_event(message) for message in await messages.take(1.0)]
                    if time.monotonic() - looked > LOOK_FOR_EPOCH:
                        looked = time.monotonic()
                        newest = await find_stream(manager, self._context, public=self._public)
                        if newest is None or (newest.name, newest.log_id) != (stream.name, stream.log_id):
                            raise Unavailable(f"the stream {stream.name} has a successor")
        except (NatsError, OSError, TimeoutError) as error:
            raise Unavailable(f"JetStream is lost: {error or type(error).__name__}") from error
        except CeqsError as error:
            raise error if isinstance(error, Unavailable) else Unavailable(error.message) from error


def _event(message: Msg) -> RecordedEvent:
    return from_message(message.subject, message.headers, message.data, message.metadata.sequence.stream)
