"""Relay processes that are killed at any moment, and servers under them."""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from ceqs.contract import new_id, tags_of
from ceqs.embedded import NatsServer
from ceqs.log import Entry, Log, NewEvent, open_log
from ceqs.model import EventDecoder
from ceqs.relay import differences
from ceqs.streams import connected, find_stream
from ceqs.testing import eventually
from shop.orders.v1 import events_pb2, public_events_pb2
from shop.orders.v1.orders_ceqs import CONTRACT

RELAY = """
import asyncio, sys
from ceqs.log import open_reader
from ceqs.model import EventDecoder
from ceqs.relay import Relay
from shop.orders.v1.orders_ceqs import CONTRACT

async def main():
    reader = await open_reader(sys.argv[1], "orders")
    await Relay(reader, EventDecoder(CONTRACT), sys.argv[2]).run()

asyncio.run(main())
"""

KILLED_IN_ITS_THIRD_BATCH = """
import os, signal
from ceqs.streams import StreamClient

publish_all, batches = StreamClient.publish_all, []

async def publish_half_and_die(self, messages):
    batches.append(messages)
    if len(batches) < 3:
        return await publish_all(self, messages)
    await publish_all(self, messages[: len(messages) // 2])
    await self.flush()
    os.kill(os.getpid(), signal.SIGKILL)

StreamClient.publish_all = publish_half_and_die
"""


@contextlib.asynccontextmanager
async def relay_process(log_url: str, nats_url: str, *, prelude: str = "") -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", prelude + RELAY, log_url, nats_url)
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


@pytest.fixture
async def log(tmp_path: Path) -> AsyncIterator[Log]:
    log = await open_log(log_url(tmp_path), "orders")
    yield log
    await log.close()


def log_url(directory: Path) -> str:
    return f"sqlite:///{directory / 'log.db'}"


async def write(log: Log, commands: int) -> None:
    """Commands of 20 events each: 15 private ones and 5 public."""
    for _ in range(commands):
        order = new_id()
        messages: list[Any] = [events_pb2.OrderPlaced(order_id=f"{order} * > .") for _ in range(15)]
        messages += [public_events_pb2.OrderAccepted(order_id=order) for _ in range(5)]
        await log.append(Entry(command_id=new_id(), events=tuple(map(new_event, messages))))


def new_event(message: Any) -> NewEvent:
    event = CONTRACT.event(message)
    tags = tags_of(message, event.tags)
    payload = message.SerializeToString()
    return NewEvent(id=new_id(), type=event.full_name, payload=payload, tags=tags, public=event.public)


async def last_sequence(nats_url: str) -> int:
    async with connected(nats_url) as client:
        stream = await find_stream(client.jetstream(), "orders", public=False)
        return stream.last if stream else 0


async def test_relays_killed_at_any_moment_leave_the_streams_equal_to_the_log(
    log: Log, tmp_path: Path, nats_server: NatsServer
) -> None:
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    await write(log, 200)
    for _ in range(4):
        writing = asyncio.create_task(write(log, 100))
        async with relay_process(log_url(tmp_path), nats_server.url):
            before = await last_sequence(nats_server.url)
            await eventually(lambda before=before: moved(nats_server.url, before))  # type: ignore[misc]
            await asyncio.sleep(chance.uniform(0, 0.1))  # anywhere in the middle of it
        await writing
    async with relay_process(log_url(tmp_path), nats_server.url):
        await eventually(lambda: moved(nats_server.url, 600 * 20 - 1))
        await eventually(lambda: equal(log, nats_server.url))


async def test_a_relay_killed_in_the_middle_of_a_batch_has_published_none_of_it(
    log: Log, tmp_path: Path, nats_server: NatsServer
) -> None:
    await write(log, 150)
    for _ in range(3):
        async with relay_process(log_url(tmp_path), nats_server.url, prelude=KILLED_IN_ITS_THIRD_BATCH) as process:
            assert await asyncio.wait_for(process.wait(), 30) == -signal.SIGKILL
        found = await differences(log, EventDecoder(CONTRACT), nats_server.url)
        assert [difference for difference in found if "it ends at" not in difference] == []
    async with relay_process(log_url(tmp_path), nats_server.url):
        await eventually(lambda: equal(log, nats_server.url))


async def test_relay_and_server_killed_in_turns_leave_the_streams_equal_to_the_log(
    log: Log, tmp_path: Path, nats_server: NatsServer
) -> None:
    await write(log, 200)
    async with relay_process(log_url(tmp_path), nats_server.url), relay_process(log_url(tmp_path), nats_server.url):
        for _ in range(4):
            before = await last_sequence(nats_server.url)
            writing = asyncio.create_task(write(log, 100))
            await eventually(lambda before=before: moved(nats_server.url, before))  # type: ignore[misc]
            await nats_server.kill()
            await nats_server.start()
            await writing
        await eventually(lambda: moved(nats_server.url, 600 * 20 - 1))
        await eventually(lambda: equal(log, nats_server.url))


async def moved(nats_url: str, before: int) -> bool:
    return await last_sequence(nats_url) > before


async def equal(log: Log, nats_url: str) -> bool:
    return await differences(log, EventDecoder(CONTRACT), nats_url) == []
