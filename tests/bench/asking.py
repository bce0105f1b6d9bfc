"""Loads on queries: live ones, those that wait for what was written, and those as of an earlier moment.

They run as those of `load` do, in a process of their own, and send one command after the other.
"""

from __future__ import annotations

import asyncio
import itertools
import statistics
import tempfile
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import uvloop
from bench.v1.bench_pb2 import (  # type: ignore[import-not-found]  # generated
    CountReadingsRequest,
    CountReadingsResponse,
    GetMeterRequest,
    ReadMeterRequest,
    ReadMeterResponse,
    ReadOftenRequest,
    WatchMeterRequest,
    WatchMeterResponse,
    WatchReadingsRequest,
    WatchReadingsResponse,
)
from tests.bench.measures import Failed
from tests.bench.projecting import PATIENCE, role, streaming

from ceqs.contract import decode_token
from ceqs.embedded import NatsServer
from ceqs.projectors import ModelReader, place_of
from ceqs.v1.answers_pb2 import Receipt

COMMANDS, QUERIES = "/bench.v1.BenchCommandsService", "/bench.v1.BenchQueriesService"
METER = "watched"
ANSWERING = "1"
"""The version of the projection that the server answers from."""
LOOK = 0.0005
"""Seconds between two looks where a projection stands."""

clock = time.perf_counter
Figures = dict[str, float]


def lived(*, address: str, seconds: float) -> Figures:
    """Send commands; measure from each reply until a live query of the state has told what it changed."""
    return uvloop.run(_lived(address, seconds))


async def _lived(address: str, seconds: float) -> Figures:
    async with _asked(address) as asked, asked.watching("WatchMeter", WatchMeterRequest, WatchMeterResponse) as live:
        times = [await live.sees(receipt) - at async for receipt, at in asked.commands(seconds)]
    return _figures(live=times)


def followed(*, address: str, models: str, log_url: str, log: str, seconds: float) -> Figures:
    """Send commands; measure from each reply until it is in a projection, and what comes later than that.

    `seen`: until the event was in the projection; `awaited`: from then until a query that waits for the command's token
    is answered, less what the query takes that waits for nothing; `live`: from then until a live query has told.
    """
    return uvloop.run(_followed(address, models, log_url, log, seconds))


async def _followed(address: str, models: str, log_url: str, log: str, seconds: float) -> Figures:
    seen: list[float] = []
    awaited: list[float] = []
    plain: list[float] = []
    told: list[float] = []
    async with AsyncExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="ceqs-bench-nats-"))
        nats = await stack.enter_async_context(NatsServer(Path(directory)))
        await stack.enter_async_context(role("relay", log_url, log, nats.url))
        await stack.enter_async_context(role("project", address, models, nats.url, ANSWERING))
        reader = ModelReader(place_of(models, "bench", "Readings"))
        stack.push_async_callback(reader.close)
        asked = await stack.enter_async_context(_asked(address))
        for _ in range(3):
            if not await reader.wait((await asked.command()).position, PATIENCE):
                raise Failed(f"the projection was not there within {PATIENCE} s")
        await streaming(nats.url, (await asked.command()).position)
        live = await stack.enter_async_context(
            asked.watching("WatchReadings", WatchReadingsRequest, WatchReadingsResponse)
        )

        async def visible(position: int) -> float:
            while True:
                async with reader.session() as (_, checkpoint):
                    if checkpoint.position >= position:
                        return clock()
                await asyncio.sleep(LOOK)

        turn = itertools.cycle((True, False))
        async for receipt, at in asked.commands(seconds):
            # In turns, so that they do not wait for each other.
            if next(turn):
                there, answered = await asyncio.gather(visible(receipt.position), asked.answered(receipt))
                awaited.append(max(0.0, answered - there))
                await live.sees(receipt)
                began = clock()
                plain.append(await asked.answered(receipt) - began)
            else:
                there, heard = await asyncio.gather(visible(receipt.position), live.sees(receipt))
                told.append(max(0.0, heard - there))
            seen.append(there - at)
    figures = _figures(seen=seen, awaited=awaited, live=told, plain=plain)
    # Of a wait that costs less than can be told from the query itself, this is what can be told.
    return {**figures, "awaited": max(figures["awaited"] - figures["plain"], LOOK)}


def earlier(*, address: str, prefix: str, events: int, seconds: float) -> Figures:
    """Ask for a state as of so many events, after which another has come, so that it is folded from the beginning."""
    return uvloop.run(_earlier(address, prefix, events, seconds))


async def _earlier(address: str, meter: str, events: int, seconds: float) -> Figures:
    async with _asked(address, meter) as asked:
        await asked.often(events - 1)
        moment = (await asked.command()).token
        await asked.command()
        times: list[float] = []
        for at in _while(seconds):
            await asked.get(moment)
            times.append(clock() - at)
    return _figures(all=times)


class _Asked:
    """The meters' server, and one meter."""

    def __init__(self, channel: grpc.aio.Channel, meter: str) -> None:
        self._channel, self._meter = channel, meter
        self._read: Any = channel.unary_unary(f"{COMMANDS}/ReadMeter")
        self._often: Any = channel.unary_unary(f"{COMMANDS}/ReadOften")
        self._count: Any = channel.unary_unary(f"{QUERIES}/CountReadings")
        self._get: Any = channel.unary_unary(f"{QUERIES}/GetMeter")

    async def command(self) -> Receipt:
        """Send a command."""
        request = ReadMeterRequest(meter_id=self._meter, used=7, reader="a reader of many meters")
        receipt: Receipt = ReadMeterResponse.FromString(await self._read(request.SerializeToString())).receipt
        return receipt

    async def often(self, times: int) -> None:
        """Have so many events."""
        await self._often(ReadOftenRequest(meter_id=self._meter, times=times).SerializeToString())

    async def commands(self, seconds: float) -> AsyncGenerator[tuple[Receipt, float]]:
        """Send commands, one by one; give each with the time of its reply."""
        for _ in _while(seconds):
            yield await self.command(), clock()

    async def answered(self, receipt: Receipt) -> float:
        """Ask the projection for what a command has written; give the time of the answer."""
        request = CountReadingsRequest(meter_id=self._meter).SerializeToString()
        answer = await self._count(request, metadata=(("ceqs-at-least", receipt.token),), timeout=PATIENCE)
        at = clock()
        if not CountReadingsResponse.FromString(answer).readings:
            raise Failed("an answer lacks what its token says")
        return at

    async def get(self, moment: str) -> None:
        """Ask for the state as of a moment."""
        request = GetMeterRequest(meter_id=self._meter).SerializeToString()
        await self._get(request, metadata=(("ceqs-as-of", moment),))

    @asynccontextmanager
    async def watching(self, rpc: str, request: Any, response: Any) -> AsyncGenerator[_Live]:
        """Open a live query, and wait for its first answer."""
        open_stream: Any = self._channel.unary_stream(f"{QUERIES}/{rpc}")
        call = open_stream(request(meter_id=self._meter).SerializeToString())
        live = _Live()
        listening = asyncio.create_task(live.listen(call, response))
        try:
            async with asyncio.timeout(PATIENCE):
                await live.begun.wait()
            yield live
        finally:
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)


class _Live:
    """What a live query tells."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self._position, self._at = 0, 0.0
        self._moved = asyncio.Event()

    async def listen(self, call: Any, response: Any) -> None:
        """Note what comes."""
        async for message in call:
            self._at = clock()
            (self._position,) = decode_token(response.FromString(message).age.token).values()
            self.begun.set()
            self._moved.set()

    async def sees(self, receipt: Receipt) -> float:
        """Give the time when it told what includes a command."""
        async with asyncio.timeout(PATIENCE):
            while self._position < receipt.position:
                self._moved.clear()
                await self._moved.wait()
        return self._at


@asynccontextmanager
async def _asked(address: str, meter: str = METER) -> AsyncGenerator[_Asked]:
    async with grpc.aio.insecure_channel(address) as channel:
        await channel.channel_ready()
        yield _Asked(channel, meter)


def _while(seconds: float) -> Iterator[float]:
    """Give the time, again and again until they are over, and three times at least."""
    end = clock() + seconds
    return itertools.chain(
        itertools.islice(iter(clock, None), 3), itertools.takewhile(lambda now: now < end, iter(clock, None))
    )


def _figures(**times: list[float]) -> Figures:
    return {name: statistics.median(found) for name, found in times.items()}
