"""What a benchmark calls, in a process of its own. Prints its address.

python -m tests.bench.target floor
python -m tests.bench.target meters LOG_URL LOG_NAME STATES MODELS_URL
python -m tests.bench.target ageless LOG_URL LOG_NAME STATES MODELS_URL
python -m tests.bench.target relay LOG_URL LOG_NAME NATS_URL
python -m tests.bench.target project ADDRESS MODELS_URL NATS_URL VERSION
"""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator, Coroutine
from typing import Any

import grpc
import uvloop

from ceqs.cli._signals import favour_batches
from ceqs.log import open_log, open_reader
from ceqs.projectors import ModelReader, Projector, ProjectorSettings, place_of
from ceqs.queries._ages import Aged, Ages
from ceqs.relay import Relay
from ceqs.server import Served, Server, ServerSettings
from ceqs.v1.answers_pb2 import Age


async def floor(stop: asyncio.Event) -> None:
    """Serve what costs nothing but gRPC: an echo, and a stream of ready bytes."""

    async def echo(request: bytes, _: Any) -> bytes:
        return request

    async def stream(request: bytes, _: Any) -> AsyncIterator[bytes]:
        count, size = map(int, request.split())
        message = bytes(size)
        for _ in range(count):
            yield message

    server = grpc.aio.server(options=(("grpc.so_reuseport", 0),))
    handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
        "Echo": grpc.unary_unary_rpc_method_handler(echo),
        "Stream": grpc.unary_stream_rpc_method_handler(stream),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("Floor", handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(f"127.0.0.1:{port}", flush=True)
    await stop.wait()
    await server.stop(None)


async def meters(stop: asyncio.Event, url: str, name: str, states: int, models_url: str) -> None:
    """Serve the meters from a log, and from models that others fill."""
    from tests.bench.meters import meters as context

    log = await open_log(url, name)
    models = {model: ModelReader(place_of(models_url, "bench", model)) for model in context.projections}
    server = Server([Served(context, log, models)], ServerSettings(key="bench", states=states))
    await server.start()
    print(server.address, flush=True)
    await stop.wait()
    await server.stop()
    for model in models.values():
        await model.close()
    await log.close()


def forget_ages() -> None:
    """Let no answer say how old it is."""

    async def none(*_: object, **__: object) -> Aged:
        return nothing

    nothing = Aged(Age(), ())
    Ages.of = none  # type: ignore[method-assign]


async def relay(stop: asyncio.Event, url: str, name: str, nats_url: str) -> None:
    """Carry the log to JetStream."""
    from tests.bench.meters import meters as context

    reader = await open_reader(url, name)
    await _until(stop, Relay(reader, context.decoder, nats_url).run())
    await reader.close()


async def project(stop: asyncio.Event, address: str, models_url: str, nats_url: str, version: int) -> None:
    """Run the projection of the readings."""
    from tests.bench.meters import Readings, projecting

    Readings.version, context = version, projecting("Readings")
    settings = ProjectorSettings(addresses={"bench": address}, models_url=models_url, nats_url=nats_url, key="bench")
    await _until(stop, Projector(context, settings).run())


async def _until(stop: asyncio.Event, work: Coroutine[Any, Any, None]) -> None:
    running = asyncio.create_task(work)
    print("ready", flush=True)
    await stop.wait()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def main() -> None:
    """Serve until SIGTERM."""
    if sys.argv[1] != "floor":
        favour_batches()  # as `ceqs serve` does
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    match sys.argv[1:]:
        case ["floor"]:
            await floor(stop)
        case ["meters" | "ageless" as kind, url, name, states, models_url]:
            if kind == "ageless":
                forget_ages()
            await meters(stop, url, name, int(states), models_url)
        case ["relay", url, name, nats_url]:
            await relay(stop, url, name, nats_url)
        case ["project", address, models_url, nats_url, version]:
            await project(stop, address, models_url, nats_url, int(version))
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    uvloop.run(main())
