"""What a benchmark calls, in a process of its own: `target.py floor` or `target.py orders URL`. Prints its address."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from typing import Any

import grpc
import uvloop

from ceqs.log import open_log
from ceqs.projectors import ModelReader, place_of
from ceqs.server import Served, Server, ServerSettings

BATCH = 500
"""Events in a message of the floor's stream, as many as the server puts into one."""


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


async def orders(stop: asyncio.Event, url: str) -> None:
    """Serve the commands, states and events of the shop's orders from a log."""
    from shop.orders.context import orders as context

    log = await open_log(url, "orders")
    models = {
        name: ModelReader(place_of(url.removesuffix("/log.db"), "orders", name, projection.version))
        for name, projection in context.projections.items()
    }
    server = Server([Served(context, log, models)], ServerSettings(key="bench"))
    await server.start()
    print(server.address, flush=True)
    await stop.wait()
    await server.stop()
    for model in models.values():
        await model.close()
    await log.close()


async def main() -> None:
    """Serve until SIGTERM."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    if sys.argv[1] == "floor":
        await floor(stop)
    else:
        await orders(stop, sys.argv[2])


if __name__ == "__main__":
    uvloop.run(main())
