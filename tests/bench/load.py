"""Load on one rpc, from a process of its own: `load.py ADDRESS KIND CLIENTS SECONDS SEED`. Prints its figures."""

from __future__ import annotations

import asyncio
import itertools
import json
import statistics
import sys
import time
from collections.abc import Iterator
from typing import Any

import grpc
import uvloop

from shop.orders.v1.commands_pb2 import PlaceOrderRequest
from shop.orders.v1.queries_pb2 import GetOrderRequest
from shop.orders.v1.types_pb2 import Line

WARM_UP = 1.0
"""Seconds before the clock starts."""
PLACE = "/shop.orders.v1.OrderCommandsService/PlaceOrder"
GET = "/shop.orders.v1.OrderQueriesService/GetOrder"


def order(order_id: str) -> bytes:
    """Give an order of two lines."""
    lines = [Line(product_code=code, quantity=6, unit_price_micros=2_550_000) for code in ("85123A", "71053")]
    return PlaceOrderRequest(order_id=order_id, country="United Kingdom", lines=lines).SerializeToString()


def requests(kind: str, seed: int) -> tuple[str, Iterator[bytes]]:
    """Give the rpc, and requests for ever: each order a boundary of its own; queries of the first 1,000 orders."""
    if kind == "echo":
        return "/Floor/Echo", itertools.repeat(order("536365"))
    if kind == "place":
        return PLACE, (order(f"{seed}-{i}") for i in itertools.count())
    return GET, (GetOrderRequest(order_id=f"warm-{i % 1000}").SerializeToString() for i in itertools.count())


async def warm_up(channel: grpc.aio.Channel) -> None:
    """Place the orders that the queries ask for; those of an earlier run are there already."""
    place: Any = channel.unary_unary(PLACE)
    for start in range(0, 1000, 50):
        calls = (place(order(f"warm-{i}")) for i in range(start, start + 50))
        await asyncio.gather(*calls, return_exceptions=True)


async def main() -> None:
    """Send as fast as answers come back, and count."""
    address, kind, clients, seconds, seed = sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4]), sys.argv[5]
    path, source = requests(kind, int(seed))
    latencies: list[float] = []
    async with grpc.aio.insecure_channel(address) as channel:
        call: Any = channel.unary_unary(path)
        if kind == "get" or kind == "warm":
            place: Any = channel.unary_unary(PLACE)
            for start in range(0, 1000, 50):
                await asyncio.gather(
                    *(place(order(f"warm-{i}")) for i in range(start, start + 50)), return_exceptions=True
                )
        begin = time.perf_counter() + WARM_UP
        end = begin + seconds

        async def client() -> None:
            while (sent := time.perf_counter()) < end:
                await call(next(source))
                if sent >= begin:
                    latencies.append(time.perf_counter() - sent)

        await asyncio.gather(*(client() for _ in range(clients)))
    percentiles = statistics.quantiles(latencies, n=100)
    print(json.dumps({"rate": len(latencies) / seconds, "p50": percentiles[49], "p99": percentiles[98]}))


if __name__ == "__main__":
    uvloop.run(main())
