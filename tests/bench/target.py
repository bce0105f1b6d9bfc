"""What a benchmark calls, in a process of its own. Prints its address.

python -m tests.bench.target floor
python -m tests.bench.target meters LOG_URL LOG_NAME STATES
"""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from typing import Any

import grpc
import uvloop

from ceqs.log import open_log
from ceqs.server import Served, Server, ServerSettings


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


async def meters(stop: asyncio.Event, url: str, name: str, states: int) -> None:
    """Serve the meters from a log."""
    from tests.bench.meters import meters as context

    log = await open_log(url, name)
    server = Server([Served(context, log, {})], ServerSettings(key="bench", states=states))
    await server.start()
    print(server.address, flush=True)
    await stop.wait()
    await server.stop()
    await log.close()


async def main() -> None:
    """Serve until SIGTERM."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    if sys.argv[1] == "floor":
        await floor(stop)
    else:
        url, name, states = sys.argv[2:]
        await meters(stop, url, name, int(states))


if __name__ == "__main__":
    uvloop.run(main())
