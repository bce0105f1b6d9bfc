"""Loads of commands beside a projector: one whose models stand, and one that fills a model anew all the time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import grpc
import uvloop
from bench.v1.bench_pb2 import ReadMeterRequest  # type: ignore[import-not-found]  # generated
from tests.bench.measures import Failed
from tests.bench.meters import Readings
from tests.bench.projecting import PATIENCE, Figures, models_at, role

from ceqs.projectors import Place, Places, look_over, places_of, shape_of, start_rebuild

SENDERS = 64
clock = time.perf_counter


def commands(*, address: str, url: str, seconds: float, rebuilding: bool) -> Figures:
    """Send commands from many clients beside a projector, which rebuilds its model meanwhile or has nothing to do."""
    return uvloop.run(_commands(address, url, seconds, rebuilding))


async def _commands(address: str, url: str, seconds: float, rebuilding: bool) -> Figures:
    version = time.time_ns() // 1_000_000
    async with AsyncExitStack() as stack:
        models = await stack.enter_async_context(models_at(url))
        await stack.enter_async_context(role("project", address, models, "", str(version)))
        places = places_of(models, "bench", "Readings")
        stack.push_async_callback(places.close)
        await _serves(places, None, version)
        if rebuilding:
            await stack.enter_async_context(_rebuilt(places, version))
        channel = await stack.enter_async_context(grpc.aio.insecure_channel(address))
        read: Any = channel.unary_unary("/bench.v1.BenchCommandsService/ReadMeter")
        until, sent = clock() + seconds, 0

        async def send(sender: int) -> None:
            nonlocal sent
            request = ReadMeterRequest(meter_id=f"beside-{sender}", used=7, reader="a reader of many meters")
            while clock() < until:
                await read(request.SerializeToString())
                sent += 1

        began = clock()
        await asyncio.gather(*(send(sender) for sender in range(SENDERS)))
        return {"rate": sent / (clock() - began)}


@asynccontextmanager
async def _rebuilt(places: Places, version: int) -> AsyncGenerator[None]:
    """Fill the model anew, and again when it is done, for as long as a block runs."""

    async def again() -> None:
        while True:
            place, _ = await start_rebuild(places, version, shape_of(Readings.metadata))
            filling.set()
            await _serves(places, place, version, every=1.0)  # a look takes milliseconds, in which nobody sends

    filling = asyncio.Event()
    task = asyncio.create_task(again())
    try:
        await asyncio.wait_for(filling.wait(), PATIENCE)
        yield
        if task.done():
            raise Failed(f"the rebuild has ended: {task.exception()}")
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _serves(places: Places, place: Place | None, version: int, every: float = 0.1) -> None:
    """Wait until a place answers, or any of the version."""
    async with asyncio.timeout(PATIENCE):
        while True:
            for one in await look_over(places):
                if one.serves and (one.place == place or (place is None and one.place.version == version)):
                    return
            await asyncio.sleep(every)
