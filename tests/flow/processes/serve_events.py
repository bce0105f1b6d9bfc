"""Serves the events of a log: `serve_events.py LOG_URL`. Prints its address.

Each line `COUNT SIZE` on its standard input appends so many events of so many bytes.
"""

from __future__ import annotations

import asyncio
import itertools
import sys
from typing import Any

import structlog

from ceqs.log import Entry, NewEvent, open_log
from ceqs.server import Served, Server, ServerSettings
from shop.orders.context import orders


async def main() -> None:
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    log = await open_log(sys.argv[1], "orders")
    models: dict[str, Any] = dict.fromkeys(orders.projections)
    server = Server([Served(orders, log, models)], ServerSettings(key="key", grace=1))
    await server.start()
    print(server.address, flush=True)
    numbers = itertools.count((await log.head()).position)
    while line := await asyncio.to_thread(sys.stdin.readline):
        count, size = map(int, line.split())
        for number in itertools.islice(numbers, count):
            event = NewEvent(id=f"e{number}", type="shop.orders.v1.OrderPlaced", payload=bytes(size))
            await log.append(Entry(command_id=f"c{number}", events=(event,)))
        print(count, flush=True)
    await server.stop()
    await log.close()


asyncio.run(main())
