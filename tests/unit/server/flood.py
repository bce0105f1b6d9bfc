"""Opens accounts from a process of its own: `flood.py ADDRESS PREFIX SECONDS clients|rate NUMBER`. Prints JSON.

Either as fast as so many clients are answered, or at a rate, answered or not. What succeeded is listed by account, what
did not is counted by status; of the refusals, how many say when to try again.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
import time
from collections import Counter
from typing import Any

import grpc.aio
from google.rpc import error_details_pb2, status_pb2

OPEN = "/bank.v1.BankCommandsService/OpenAccount"
PATIENCE = 5.0
WARM_UP = 1.0
"""Seconds before it counts: the queues are full then."""


async def main() -> None:
    address, prefix, how = sys.argv[1], sys.argv[2], sys.argv[4]
    seconds, number = float(sys.argv[3]), float(sys.argv[5])
    accepted: dict[str, float] = {}
    refused: Counter[str] = Counter()
    async with grpc.aio.insecure_channel(address) as channel:
        send: Any = channel.unary_unary(OPEN)

        async def call(name: str) -> None:
            try:
                await send(opening(name), timeout=PATIENCE, metadata=(("ceqs-command-id", name),))
                accepted[name] = time.perf_counter()
            except grpc.aio.AioRpcError as error:
                refused[error.code().name] += 1
                refused["retry"] += _says_when(error)

        async def client(which: int) -> None:
            for i in itertools.takewhile(lambda _: time.perf_counter() < end, itertools.count()):
                await call(f"{prefix}-{which}-{i}")

        begin = time.perf_counter()
        end = begin + seconds
        async with asyncio.TaskGroup() as tasks:
            if how == "clients":
                for i in range(int(number)):
                    tasks.create_task(client(i))
            else:
                for i in range(int(number * seconds)):
                    await asyncio.sleep(begin + i / number - time.perf_counter())
                    tasks.create_task(call(f"{prefix}-{i}"))
    begin += WARM_UP
    rate = sum(begin <= when < end for when in accepted.values()) / (end - begin)
    print(json.dumps({"accepted": list(accepted), "rate": rate, "refused": refused}))


def opening(name: str) -> bytes:
    """Give the request that opens an account."""
    # Field 1 is the account's id.
    return b"\x0a" + bytes([len(name)]) + name.encode()


def _says_when(error: grpc.aio.AioRpcError) -> bool:
    details = dict(error.trailing_metadata() or ()).get("grpc-status-details-bin", b"")
    assert isinstance(details, bytes)
    status = status_pb2.Status.FromString(details)
    return any(detail.Is(error_details_pb2.RetryInfo.DESCRIPTOR) for detail in status.details)


if __name__ == "__main__":
    asyncio.run(main())
