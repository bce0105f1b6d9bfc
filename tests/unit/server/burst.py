"""Opens accounts from a process of its own: `-m tests.unit.server.burst ADDRESS NUMBER REFUSALS`. Prints two lines.

Calls once; told by a line that the server is busy with that, it calls so many times at once. When as many are refused,
or ten seconds later, it says how many are; at the end, in JSON, which accounts were opened, and how all others failed.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections import Counter
from typing import Any

import grpc.aio
from tests.unit.server.flood import OPEN, opening

PATIENCE = 30.0
LONGEST = 10.0
MORE = 0.2
"""Seconds in which more would be refused, if they were."""


async def main() -> None:
    address, number, refusals = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    accepted: list[str] = []
    refused: Counter[str] = Counter()
    async with grpc.aio.insecure_channel(address) as channel:
        send: Any = channel.unary_unary(OPEN)

        async def call(name: str) -> None:
            try:
                await send(opening(name), timeout=PATIENCE, metadata=(("ceqs-command-id", name),))
                accepted.append(name)
            except grpc.aio.AioRpcError as error:
                refused[error.code().name] += 1

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(call("first"))
            await asyncio.to_thread(sys.stdin.readline)
            for i in range(number):
                tasks.create_task(call(f"burst-{i}"))
            end = time.monotonic() + LONGEST
            while refused.total() < refusals and time.monotonic() < end:
                await asyncio.sleep(0.01)
            await asyncio.sleep(MORE)
            print(refused.total(), flush=True)
    print(json.dumps({"accepted": accepted, "refused": refused}))


if __name__ == "__main__":
    asyncio.run(main())
