"""Orders whose annotations change, and a log of them."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

from ceqs.contract import Contract, bucket_of, tags_of
from ceqs.log import Entry, Log, NewEvent, Query, QueryItem, Retagged, StoredEvent
from ceqs.log import retag_log as retag_by
from ceqs.model import EventDecoder

PROTO = """
syntax = "proto3";
package orders.v1;
import "ceqs/v1/options.proto";

message Placed {
  option (ceqs.v1.event) = {};
  string order_id = 1 [(ceqs.v1.field).tag = "order"];
  string customer_id = 2;
  repeated int64 products = 3;
}
message Cancelled {
  option (ceqs.v1.event) = {};
  string order_id = 1 [(ceqs.v1.field).tag = "order"];
}
"""
CUSTOMER = ("string customer_id = 2;", 'string customer_id = 2 [(ceqs.v1.field).tag = "customer"];')
PRODUCTS = ("repeated int64 products = 3;", 'repeated int64 products = 3 [(ceqs.v1.field).tag = "product"];')
NO_ORDER = (
    'string order_id = 1 [(ceqs.v1.field).tag = "order"];\n  string customer_id',
    "string order_id = 1;\n  string customer_id",
)
NO_CANCELLED = ("message Cancelled {\n  option (ceqs.v1.event) = {};", "message Cancelled {")
numbers = itertools.count(1)

Declared = Callable[..., Contract]


async def retag_log(url: str, name: str, contract: Contract, **settings: Any) -> Retagged:
    return await retag_by(url, name, EventDecoder(contract), **settings)


def event(contract: Contract, name: str, **fields: Any) -> NewEvent:
    kind = contract.events[f"orders.v1.{name}"]
    message = kind.message(**fields)
    tags = tags_of(message, kind.tags)
    return NewEvent(
        id=f"00000000-0000-7000-8000-{next(numbers):012}",
        type=kind.full_name,
        payload=message.SerializeToString(),
        tags=tags,
        bucket=bucket_of(kind, tags),
    )


async def place(log: Log, contract: Contract, count: int, first: int = 1) -> None:
    """Append orders of three customers, a thousand in a transaction, and a cancellation of the first."""
    orders = [
        event(contract, "Placed", order_id=f"o{i}", customer_id=f"c{i % 3}", products=[i % 5, i % 7])
        for i in range(first, first + count)
    ]
    for start in range(0, count, 1000):
        await log.append(Entry(command_id=f"c{next(numbers)}", events=tuple(orders[start : start + 1000])))
    await log.append(
        Entry(command_id=f"c{next(numbers)}", events=(event(contract, "Cancelled", order_id=f"o{first}"),))
    )


async def found(log: Any, *tags: str) -> list[StoredEvent]:
    """Read everything that carries the tags; everything, where none is named."""
    query = Query((QueryItem(frozenset(), frozenset(tags)),)) if tags else Query()
    events: list[StoredEvent] = []
    after = 0
    while (part := await log.read(after=after, query=query)).events:
        events += part.events
        after = part.through
    return events


def boundary(tag: str) -> Query:
    """The events that a state folds are found on a way of their own: by types and a tag."""
    return Query((QueryItem(frozenset({"orders.v1.Placed"}), frozenset({tag})),))
