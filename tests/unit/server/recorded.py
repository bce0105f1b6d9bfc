"""Events in the log of a served bank, and how they are asked for."""

from __future__ import annotations

import asyncio
from typing import Any

from ceqs.log import Entry, NewEvent
from ceqs.v1 import events_pb2
from ceqs.v1.events_pb2 import SCOPE_PRIVATE, RecordedEvent


async def append(served: Any, *accounts: str, public: bool = False, size: int = 0) -> None:
    """Append an event for each account, as one command each."""
    kind = "AccountAnnounced" if public else "AccountOpened"
    entries = [
        Entry(
            command_id=f"{kind}-{(await served.log.head()).position}-{i}",
            events=(
                NewEvent(
                    id=f"00000000-0000-7000-8000-{i:012}",
                    type=f"bank.v1.{kind}",
                    payload=b"x" * size or getattr(served, kind)(account_id=account).SerializeToString(),
                    tags=(f"account:{account}",),
                    public=public,
                ),
            ),
        )
        for i, account in enumerate(accounts)
    ]
    await asyncio.gather(*(served.log.append(entry) for entry in entries))


async def collect(stream: Any) -> list[Any]:
    return [message async for message in stream]


def private(served: Any, rpc: str, **fields: Any) -> Any:
    request = getattr(events_pb2, f"{rpc}Request")(scope=SCOPE_PRIVATE, **fields)
    return served.events(rpc, request, ceqs_key=served.key)


def moment(stored: Any) -> Any:
    return RecordedEvent.FromString(stored.envelope).recorded_at
