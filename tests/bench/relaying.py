"""Loads on the relay: carrying a history to JetStream, beside what the NATS client does with messages that are ready.

They run as those of `load` do, in a process of their own, which is the relay's process.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
import time
import uuid
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import uvloop
from nats.aio.client import Client
from nats.js.api import StorageType, StreamConfig
from tests.bench.measures import Failed
from tests.bench.meters import meters

from ceqs.cli._signals import favour_batches
from ceqs.embedded import NatsServer
from ceqs.log import LogReader, open_reader
from ceqs.relay import Relay
from ceqs.relay._batch import MAX_MESSAGES
from ceqs.relay._messages import to_messages
from ceqs.streams import StreamMessage, find_stream, subjects

PATIENCE = 120.0

clock = time.perf_counter
Figures = dict[str, float]


def relayed(*, address: str, log_url: str, log: str, events: int) -> Figures:
    """Let a relay carry so many events to new streams."""
    return uvloop.run(_relayed(log_url, log, events))


async def _relayed(log_url: str, log: str, events: int) -> Figures:
    favour_batches()  # as `ceqs relay` does
    async with _nats() as url, _reading(log_url, log) as reader:
        relay = Relay(reader, meters.decoder, url)
        began = clock()
        running = asyncio.create_task(relay.run())
        try:
            async with asyncio.timeout(PATIENCE):
                while relay.status()[0].position < events:
                    await asyncio.sleep(0.005)
            at, seconds = relay.status()[0].position, clock() - began
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
        client = await _connected(url)
        stream = await find_stream(client.jetstream(), log, public=False)
        await client.close()
        if stream is None or stream.messages < events:
            raise Failed(f"{events} events were relayed, but the stream is {stream}")
    return {"rate": at / seconds}


def published(*, address: str, log_url: str, log: str, events: int) -> Figures:
    """Publish the same messages, made before the clock starts, in batches of the same size by the NATS client alone."""
    return uvloop.run(_published(log_url, log, events))


async def _published(log_url: str, log: str, events: int) -> Figures:
    async with _nats() as url, _reading(log_url, log) as reader:
        messages: list[StreamMessage] = []
        while len(messages) < events:
            read = await reader.read(after=len(messages), limit=1000)
            messages += to_messages(read.events, reader, meters.decoder, public=False)
        client = await _connected(url)
        config = StreamConfig(
            name="floor", subjects=[subjects(log, public=False)], storage=StorageType.FILE, allow_atomic=True
        )
        await client.jetstream().add_stream(config)
        began = clock()
        for first in range(0, len(messages), MAX_MESSAGES):
            await _publish(client, messages[first : first + MAX_MESSAGES])
        seconds = clock() - began
        await client.close()
    return {"rate": len(messages) / seconds}


async def _publish(client: Client, messages: list[StreamMessage]) -> None:
    batch = uuid.uuid4().hex
    *most, last = [
        (m.subject, m.data, {**m.headers, "Nats-Batch-Id": batch, "Nats-Batch-Sequence": str(number)})
        for number, m in enumerate(messages, 1)
    ]
    for subject, data, headers in most:
        await client.publish(subject, data, headers=headers)
    subject, data, headers = last
    answer = json.loads(
        (await client.request(subject, data, timeout=10, headers={**headers, "Nats-Batch-Commit": "1"})).data
    )
    if answer.get("count") != len(messages):
        raise Failed(f"a batch of {len(messages)} was answered with {answer}")


@asynccontextmanager
async def _nats() -> AsyncGenerator[str]:
    with tempfile.TemporaryDirectory(prefix="ceqs-bench-nats-") as directory:
        async with NatsServer(Path(directory)) as server:
            yield server.url


@asynccontextmanager
async def _reading(url: str, name: str) -> AsyncGenerator[LogReader]:
    reader = await open_reader(url, name)
    try:
        yield reader
    finally:
        await reader.close()


async def _connected(url: str) -> Client:
    client = Client()
    await client.connect(url)
    return client
