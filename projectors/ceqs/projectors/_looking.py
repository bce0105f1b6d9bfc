"""Letting a handler look around for the events of a batch, before a transaction begins in which they are applied.

No transaction is open while it waits for others. Events of one partition key are looked around for in their order,
others side by side. What came of it is kept until it has been committed: where one event fails, nothing is done again
for the others; after a crash it is, at least once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from ceqs.projectors._handlers import Handler
from ceqs.projectors._parking import Lot
from ceqs.v1.events_pb2 import RecordedEvent

SIDE_BY_SIDE = 32
"""How many events a batch has at most: so many may be heard again after a crash."""


async def look_around(handler: Handler, lot: Lot, events: Sequence[RecordedEvent]) -> tuple[int, Exception] | None:
    """Look around for events, but not for those that wait behind a parked one. Give the first that fails, and why."""
    chains: dict[str, list[int]] = {}
    failed: dict[int, Exception] = {}
    for index, event in enumerate(events):
        try:
            key = handler.key(event)
        except Exception as error:  # noqa: BLE001  # the worker says what becomes of it
            failed[index] = error
            break
        if not lot.blocks(key):
            chains.setdefault(key or event.id, []).append(index)

    async def follow(chain: Sequence[int]) -> None:
        for index in chain:
            try:
                await handler.look_around(events[index])
            except Exception as error:  # noqa: BLE001
                failed[index] = error
                return

    async with asyncio.TaskGroup() as group:
        for chain in chains.values():
            group.create_task(follow(chain))
    return min(failed.items(), key=lambda item: item[0], default=None)
