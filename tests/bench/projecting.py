"""Loads on projections: filling one from the log, and how soon a command's event is to be seen in one.

They run as those of `load` do, in a process of their own, which is the projector's process while one catches up.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, closing
from pathlib import Path
from typing import Any

import asyncpg
import grpc
import sqlalchemy as sa
import uvloop
from bench.v1.bench_pb2 import ReadMeterRequest, ReadMeterResponse  # type: ignore[import-not-found]  # generated
from tests.bench.measures import Failed
from tests.bench.meters import READINGS, meters, projecting

from ceqs.cli._signals import favour_batches
from ceqs.embedded import NatsServer
from ceqs.log import open_reader
from ceqs.projectors import ModelReader, Place, Projector, ProjectorSettings, fill, place_of
from ceqs.streams import connected, find_stream

ROOT = Path(__file__).parents[2]
BATCH = 500
"""How many rows the floor inserts in one transaction: as many as a projector applies events."""
PATIENCE = 120.0
SLOWEST = 2_000.0
"""Events per second, that a history is waited for at."""

STANDS_AT = "SELECT position FROM ceqs_checkpoint"
TABLE: Any = READINGS
clock = time.perf_counter
Figures = dict[str, float]


def projected(*, address: str, url: str, events: int, projection: str = "Readings", partitions: int = 1) -> Figures:
    """Let a new version of a projection catch up with so many events: of the one-table one, or the keyed one."""
    return uvloop.run(_projected(address, url, events, projection, partitions))


async def _projected(address: str, url: str, events: int, projection: str, partitions: int) -> Figures:
    favour_batches()  # as `ceqs project` does
    async with models_at(url) as models:
        context = projecting(projection)
        kind = type(context.projections[projection])
        kind.version = _unused()
        settings = ProjectorSettings(
            addresses={"bench": address}, models_url=models, key="bench", partitions={projection: partitions}
        )
        projector, place = Projector(context, settings), place_of(models, "bench", projection, kind.version)
        began = clock()
        running = asyncio.create_task(projector.run())
        try:
            async with asyncio.timeout(PATIENCE + events / SLOWEST):
                while projector.status()[0].position < events:
                    await asyncio.sleep(0.005)
                if partitions > 1:  # those that begin last count too
                    reader = ModelReader(place)
                    await reader.wait(events, PATIENCE)
                    await reader.close()
            seconds = clock() - began
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
        if projection == "Readings" and (found := await _count(place)) < events:
            raise Failed(f"{found} rows were projected from {events} events")
    return {"rate": events / seconds}


async def catch_up(url: str, log_url: str, log: str) -> None:
    """Fold all that is recorded by now into the keyed model that is asked."""
    reader = await open_reader(log_url, log)
    head = await reader.head()
    await fill(place_of(url, "bench", "Meter"), meters.projections["Meter"], meters.decoder, reader, head.position)
    await reader.close()


def inserted(*, address: str, url: str, events: int) -> Figures:
    """Insert as many rows of the same table by bare SQLAlchemy, in transactions of the same size."""
    return uvloop.run(_inserted(url, events))


async def _inserted(url: str, events: int) -> Figures:
    rows = [
        {"position": n, "meter_id": f"filler-{n % 8}", "shows": n, "used": 1, "reader": "a reader of many meters"}
        for n in range(1, events + 1)
    ]
    async with models_at(url) as models:
        place = place_of(models, "bench", "Inserted", _unused())
        if place.path is not None:
            place.path.parent.mkdir(parents=True)
        engine = place.writing_engine()
        async with engine.begin() as connection:
            if place.schema:
                await connection.execute(sa.schema.CreateSchema(place.schema))
            await connection.run_sync(TABLE.metadata.create_all)
        began = clock()
        for first in range(0, events, BATCH):
            async with engine.begin() as connection:
                await connection.execute(sa.insert(TABLE), rows[first : first + BATCH])
        seconds = clock() - began
        await engine.dispose()
    return {"rate": events / seconds}


def visible(*, address: str, url: str, log_url: str, log: str, rate: float, seconds: float) -> Figures:
    """Send commands at a fixed rate; measure from each reply until its event is in a projection, through JetStream."""
    return uvloop.run(_visible(address, url, log_url, log, rate, seconds))


async def _visible(address: str, url: str, log_url: str, log: str, rate: float, seconds: float) -> Figures:
    version = _unused()
    async with AsyncExitStack() as stack:
        models = await stack.enter_async_context(models_at(url))
        directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="ceqs-bench-nats-"))
        nats = await stack.enter_async_context(NatsServer(Path(directory)))
        await stack.enter_async_context(role("relay", log_url, log, nats.url))
        await stack.enter_async_context(role("project", address, models, nats.url, str(version)))
        channel = await stack.enter_async_context(grpc.aio.insecure_channel(address))
        read: Any = channel.unary_unary("/bench.v1.BenchCommandsService/ReadMeter")
        place = place_of(models, "bench", "Readings", version)
        reader = ModelReader(place)
        stack.push_async_callback(reader.close)

        async def send(number: int) -> int:
            request = ReadMeterRequest(meter_id=f"seen-{number % 1000}", used=7, reader="a reader of many meters")
            return int(ReadMeterResponse.FromString(await read(request.SerializeToString())).receipt.position)

        # The projection has caught up, and hears of what comes by JetStream.
        for _ in range(3):
            if not await reader.wait(await send(0), PATIENCE):
                raise Failed(f"the projection was not there within {PATIENCE} s")
        await streaming(nats.url, await send(0))
        stands_at = await stack.enter_async_context(standing(place))
        accepted: dict[int, float] = {}
        seen: dict[int, float] = {}
        last = await send(0)

        async def watch() -> None:
            at = last
            while True:
                position = await stands_at()
                seen.update(dict.fromkeys(range(at + 1, position + 1), clock()))
                at = max(at, position)
                await asyncio.sleep(0.001)

        async def one(number: int) -> None:
            position = await send(number)  # by itself: what is assigned is evaluated before what it is assigned to
            accepted[position] = clock()

        async with asyncio.TaskGroup() as group:
            watching = group.create_task(watch())
            begin, tasks = clock(), list[asyncio.Task[None]]()
            for number in itertools.takewhile(lambda n: n < rate * seconds, itertools.count()):
                await asyncio.sleep(max(0.0, begin + number / rate - clock()))
                tasks.append(group.create_task(one(number)))
            await asyncio.wait(tasks)
            took = clock() - begin
            async with asyncio.timeout(PATIENCE):
                while not accepted.keys() <= seen.keys():
                    await asyncio.sleep(0.01)
            watching.cancel()
    times = sorted(max(0.0, seen[position] - time) for position, time in accepted.items())
    percentiles = statistics.quantiles(times, n=100)
    return {"rate": len(times) / took, "p50": percentiles[49], "p99": percentiles[98]}


async def streaming(nats_url: str, position: int) -> None:
    """Wait until the log's stream has an event: what is recorded from then on comes to a projection by JetStream."""
    async with connected(nats_url, name="bench") as client, asyncio.timeout(PATIENCE):
        js = client.jetstream()
        while (stream := await find_stream(js, meters.name, public=False)) is None or stream.last < position:
            await asyncio.sleep(0.05)


@asynccontextmanager
async def standing(place: Place) -> AsyncGenerator[Callable[[], Awaitable[int]]]:
    """Give what asks a place where it stands, with as little as it takes: whoever measures has the same two cores."""
    if place.path is not None:
        with closing(sqlite3.connect(f"file:{place.path}?mode=ro", uri=True, isolation_level=None)) as file:

            async def look() -> int:
                return int(file.execute(STANDS_AT).fetchone()[0])

            yield look
        return
    url = place.url.set(drivername="postgresql").render_as_string(hide_password=False)
    connection = await asyncpg.connect(url, server_settings={"search_path": place.schema})
    try:
        statement = await connection.prepare(STANDS_AT)

        async def ask() -> int:
            return int(await statement.fetchval())

        yield ask
    finally:
        await connection.close()


@asynccontextmanager
async def models_at(url: str) -> AsyncGenerator[str]:
    """Give where models are kept: a directory or a database that is gone afterwards, with all versions of them."""
    if url.startswith("sqlite"):
        with tempfile.TemporaryDirectory(prefix="ceqs-bench-models-") as directory:
            yield f"sqlite:///{directory}"
        return
    name = f"bench_models_{time.time_ns()}"
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(f"CREATE DATABASE {name}")
        yield sa.make_url(url).set(database=name).render_as_string(hide_password=False)
    finally:
        await connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
        await connection.close()


@asynccontextmanager
async def role(*arguments: str) -> AsyncGenerator[None]:
    """Run a role of tests/bench/target.py beside the load."""
    command = [sys.executable, "-m", "tests.bench.target", *arguments]
    process = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdout=asyncio.subprocess.PIPE)
    try:
        assert process.stdout is not None
        await process.stdout.readline()
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await process.wait()


async def _count(place: Place) -> int:
    engine = place.reading_engine()
    async with engine.connect() as connection:
        found = (await connection.execute(sa.select(sa.func.count()).select_from(TABLE))).scalar_one()
    await engine.dispose()
    return found


def _unused() -> int:
    """Give a version that no place has yet."""
    return time.time_ns() // 1_000_000
