"""An ordered, unacknowledged reading of one JetStream stream.

The client library's own ways do not serve a reader that is live: `fetch` waits out its timeout on every batch that is
not full, and the ordered push consumer starts again at places of its own choice. Here one callback collects what
arrives, pull requests bound how much that can be, and the server's heartbeats say whether silence is silence.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Self

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy

from ceqs.errors import Unavailable

BATCH = 500
HEARTBEAT = 1.0
EXPIRES = 20.0
API_TIMEOUT = 2.0
_SECOND = 1_000_000_000


class Pull:
    """Messages of one stream from a sequence on."""

    def __init__(self, client: Client, stream: str) -> None:
        self.stream = stream
        self._client = client
        self._consumer = ""
        self._inbox = client.new_inbox()
        self._arrived: list[Msg] = []
        self._something = asyncio.Event()
        self._wanted = 0
        self._heard = time.monotonic()
        self._lost = ""

    @classmethod
    @asynccontextmanager
    async def open(cls, client: Client, stream: str, start: int) -> AsyncGenerator[Self]:
        """Read a stream from a sequence on. The server forgets the reader when it goes away, or soon after."""
        pull = cls(client, stream)
        subscription = await client.subscribe(pull._inbox, cb=pull._receive)  # pyright: ignore[reportUnknownMemberType]
        try:
            config = ConsumerConfig(
                ack_policy=AckPolicy.NONE,
                deliver_policy=DeliverPolicy.BY_START_SEQUENCE,
                opt_start_seq=start,
                inactive_threshold=30.0,
                num_replicas=1,
                mem_storage=True,
            )
            manager = client.jsm(timeout=API_TIMEOUT)  # pyright: ignore[reportUnknownMemberType]
            consumer = await manager.add_consumer(stream, config)  # pyright: ignore[reportUnknownMemberType]
            pull._consumer = consumer.name
            yield pull
        finally:
            try:
                await subscription.unsubscribe()
                if pull._consumer and client.is_connected:
                    await client.publish(f"$JS.API.CONSUMER.DELETE.{stream}.{pull._consumer}", b"")
            except (NatsError, OSError):
                pull._lost = "the connection is closed"

    async def take(self, timeout: float) -> list[Msg]:  # noqa: ASYNC109  # a bound, not a cancellation
        """Give the messages that have arrived, in order; none after `timeout` seconds of silence.

        Raises Unavailable once the stream or the server is lost.
        """
        await self._ask()
        if not self._arrived and not self._lost:
            self._something.clear()
            try:
                async with asyncio.timeout(timeout):
                    await self._something.wait()
            except TimeoutError:
                if self._client.is_closed:
                    self._lost = "the connection is closed"
                elif time.monotonic() - self._heard > 3 * HEARTBEAT:
                    self._lost = "the heartbeats stopped"
        if self._lost and not self._arrived:
            raise Unavailable(f"the stream {self.stream} is lost: {self._lost}")
        arrived, self._arrived = self._arrived, []
        return arrived

    async def _ask(self) -> None:
        if self._wanted < BATCH and not self._lost:
            request = {
                "batch": BATCH,
                "expires": int(EXPIRES * _SECOND),
                "idle_heartbeat": int(HEARTBEAT * _SECOND),
            }
            self._wanted += BATCH
            subject = f"$JS.API.CONSUMER.MSG.NEXT.{self.stream}.{self._consumer}"
            await self._client.publish(subject, json.dumps(request).encode(), reply=self._inbox)

    async def _receive(self, message: Msg) -> None:
        self._heard = time.monotonic()
        headers = message.headers or {}
        match headers.get("Status"):
            case None:
                self._wanted -= 1
                self._arrived.append(message)
            case "100":  # a heartbeat
                return
            case "408":  # a request has expired
                self._wanted -= int(headers.get("Nats-Pending-Messages", BATCH))
            case status:
                self._lost = f"{status} {headers.get('Description', '')}".strip()
        self._something.set()
