"""Streams that come and go, or stop reading, by the thousand: what they cost the server.

CEQS_STREAMS=100000 pytest tests/flow/test_many_streams.py -s      the long form, with its account
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from statistics import linear_regression
from typing import Any

import grpc.aio
import pytest

from ceqs.v1.events_pb2 import (
    SCOPE_PRIVATE,
    EventFilter,
    ReadRequest,
    SubscribeRequest,
    SubscribeResponse,
)

STREAMS = int(os.environ.get("CEQS_STREAMS", "2000"))
STOPPED = 1000 if STREAMS > 10_000 else 150
SERVE = Path(__file__).parent / "processes" / "serve_events.py"
KEY = (("ceqs-key", "key"),)
MIB = 1024 * 1024


class Serving:
    """A server in a process of its own."""

    def __init__(self, process: asyncio.subprocess.Process, address: str) -> None:
        self.process = process
        self.address = address

    async def append(self, count: int, size: int) -> None:
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(f"{count} {size}\n".encode())
        assert await self.process.stdout.readline()

    def memory(self) -> int:
        """Give the bytes that are resident."""
        return int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.fixture
async def serving(tmp_path: Path) -> AsyncIterator[Serving]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(SERVE),
        f"sqlite:///{tmp_path}/log.db",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout
    yield Serving(process, (await process.stdout.readline()).decode().strip())
    assert process.stdin
    process.stdin.close()
    assert await asyncio.wait_for(process.wait(), 30) == 0


def subscribe(channel: grpc.aio.Channel, after: int = 0, *tags: str) -> Any:
    request = SubscribeRequest(scope=SCOPE_PRIVATE, after=after, filter=EventFilter(tags=tags))
    stream: Any = channel.unary_stream("/ceqs.v1.EventsService/Subscribe", None, SubscribeResponse.FromString)
    return stream(request.SerializeToString(), metadata=KEY)


@pytest.mark.timeout(3600)
async def test_cancelled_streams_leave_memory_flat(serving: Serving) -> None:
    """Cancelled while they wait for events, while they are sent a log that they do not read, and at once."""
    await serving.append(300, 20_000)

    async def come_and_go(channel: grpc.aio.Channel, number: int) -> None:
        kind = number % 4
        if kind == 0:
            call = subscribe(channel, 300)
            assert (await call.read()).HasField("caught_up")
        elif kind == 1:
            call = subscribe(channel, 0, f"order:{number}")
            assert (await call.read()).HasField("caught_up")
        elif kind == 2:
            read: Any = channel.unary_stream("/ceqs.v1.EventsService/Read")
            call = read(ReadRequest(scope=SCOPE_PRIVATE).SerializeToString(), metadata=KEY)
            assert await call.read()
        else:
            call = subscribe(channel)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call.read()

    async def lot(count: int) -> None:
        async with grpc.aio.insecure_channel(serving.address) as channel:
            for begin in range(0, count, 20):
                await asyncio.gather(*(come_and_go(channel, begin + i) for i in range(20)))

    lots = 10
    # What is made once is made by then: pages of the log that are kept, arenas, caches of gRPC.
    await lot(max(500, STREAMS // lots))
    memory = [serving.memory()]
    for _ in range(lots):
        await lot(STREAMS // lots)
        memory.append(serving.memory())
    slope = linear_regression([i * STREAMS / lots for i in range(lots + 1)], memory).slope
    _say(f"{STREAMS} cancelled streams: {_mib(memory)} MiB resident; {slope:.0f} bytes a stream")
    # A task or a call that was left behind would be several thousand; how memory is cut up is a few MiB, once.
    assert slope < min(4000, 16 * MIB / STREAMS)


@pytest.mark.timeout(600)
async def test_readers_that_stopped_cost_little_and_slow_nobody(serving: Serving) -> None:
    async with AsyncExitStack() as stack:
        channels = [
            await stack.enter_async_context(grpc.aio.insecure_channel(serving.address, (("grpc.channel_id", i),)))
            for i in range(10)
        ]
        running = subscribe(channels[0])
        stopped = [subscribe(channels[i % 9 + 1]) for i in range(STOPPED)]
        for call in (running, *stopped):
            assert (await call.read()).HasField("caught_up")
        before, seen = serving.memory(), list[int]()
        for _ in range(40):
            await serving.append(100, 10_000)
            while len(seen) % 100 or not seen or len(seen) < (_ + 1) * 100:
                message = await asyncio.wait_for(running.read(), 30)
                assert not message.HasField("fell_behind")
                seen += [event.position for event in message.events]
        assert seen == list(range(1, 4001))
        each = (serving.memory() - before) / STOPPED
        _say(f"{STOPPED} stopped subscribers, 40 MB appended: {each / 1024:.0f} KiB each, the ring included")
        assert each < MIB
        # They come back, and miss nothing.
        for call in stopped[:10]:
            found = list[int]()
            while len(found) < 4000:
                found += [event.position for event in (await asyncio.wait_for(call.read(), 30)).events]
            assert found == list(range(1, 4001))
        for call in (running, *stopped):
            call.cancel()


def _mib(memory: Sequence[int]) -> str:
    return ", ".join(f"{one / MIB:.1f}" for one in memory)


def _say(account: str) -> None:
    sys.stdout.write(account + "\n")
