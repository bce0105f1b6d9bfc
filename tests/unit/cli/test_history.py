"""`ceqs history`: what happened to something, why, and what followed, beyond its context."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest
from google.protobuf.message import Message

from ceqs.cli import _history, _running
from ceqs.cli._output import Output
from ceqs.cli._settings import Settings
from ceqs.contract import tags_of
from ceqs.errors import Misconfigured, Unauthenticated, Unavailable
from ceqs.log import Entry, Log, NewEvent, open_log
from ceqs.model import Context
from ceqs.server import Role, Served, Server, ServerSettings
from shop.inventory.context import inventory
from shop.inventory.v1.events_pb2 import ProductDepleted, StockMoved, StockReceived
from shop.orders.context import orders
from shop.orders.v1.events_pb2 import CreditNoteIssued, OrderCancelled, OrderPlaced, ProductMarkedDepleted
from shop.orders.v1.public_events_pb2 import OrderAccepted

CONTEXTS: dict[str, Context] = {"orders": orders, "inventory": inventory}
BEGIN = dt.datetime(2010, 12, 1, 8, 26, tzinfo=dt.UTC)


@dataclass
class Shop:
    """The logs of two services, and the time of each."""

    logs: dict[str, Log]
    now: dict[str, dt.datetime]
    addresses: dict[str, str] = field(default_factory=dict)
    servers: dict[str, Server] = field(default_factory=dict)
    count: int = 0

    async def record(
        self, context: str, command_id: str, *events: Message, after: str = "", correlation: str = "", actor: str = ""
    ) -> str:
        """Record the outcome of a command; give the id of its last event."""
        new: list[NewEvent] = []
        for event in events:
            self.count += 1
            kind = CONTEXTS[context].contract.event(event)
            tags = tags_of(event, kind.tags)
            new.append(
                NewEvent(
                    id=f"e{self.count}",
                    type=kind.full_name,
                    payload=event.SerializeToString(),
                    tags=tags,
                    public=kind.public,
                )
            )
        await self.logs[context].append(
            Entry(
                command_id=command_id,
                events=tuple(new),
                causation_id=after,
                correlation_id=correlation or command_id,
                actor=actor,
            )
        )
        self.now[context] += dt.timedelta(seconds=1)
        return new[-1].id


@pytest.fixture
async def shop() -> AsyncIterator[Shop]:
    # The clock of inventory is slow: what follows there seems to come before its cause.
    now = {"orders": BEGIN, "inventory": BEGIN - dt.timedelta(minutes=2)}
    clocks = {name: partial(now.__getitem__, name) for name in now}
    shop = Shop({name: await open_log("memory:", name, clock=clock) for name, clock in clocks.items()}, now)
    for name, context in CONTEXTS.items():
        roles = frozenset({Role.EVENTS})
        shop.servers[name] = Server([Served(context, shop.logs[name])], ServerSettings(key="k", grace=5, roles=roles))
        await shop.servers[name].start()
        shop.addresses[name] = shop.servers[name].address
    yield shop
    for server in shop.servers.values():
        await server.stop()
    for log in shop.logs.values():
        await log.close()


History = Callable[..., Coroutine[Any, Any, None]]


@pytest.fixture
def history(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> History:
    monkeypatch.setattr(_history, "load_contexts", lambda _: CONTEXTS)
    monkeypatch.setattr(_running, "find_running", lambda _: None)
    monkeypatch.setattr(_running, "addresses_of", lambda *_: shop.addresses)
    monkeypatch.setattr(_history, "PATIENCE", 1.0)

    async def run(*tags: str, key: str = "k", names: tuple[str, ...] = (), **options: Any) -> None:
        given = {"last": None, "whole": False, "output": Output.TEXT} | options
        await asyncio.wait_for(_history.history(Settings(key=key), tags, names, **given), 30)

    return run


async def order(shop: Shop) -> None:
    """An order that takes the last unit of its product, among others that have nothing to do with it."""
    await shop.record("inventory", "stock", StockReceived(product_code="A", quantity=1))
    await shop.record("orders", "other", OrderPlaced(order_id="2"))
    placed = await shop.record("orders", "place", OrderPlaced(order_id="1"), actor="ann")
    accepted = await shop.record(
        "orders", f"ceqs:orders/publish:{placed}:0", OrderAccepted(order_id="1"), after=placed, correlation="place"
    )
    moved = (StockMoved(product_code="A", order_id="1", quantity=1), ProductDepleted(product_code="A"))
    depleted = await shop.record(
        "inventory", f"ceqs:inventory/deliver:{accepted}:0", *moved, after=accepted, correlation="place"
    )
    await shop.record(
        "orders",
        f"ceqs:orders/note-stock:{depleted}:0",
        ProductMarkedDepleted(product_code="A"),
        after=depleted,
        correlation="place",
    )
    await shop.record("orders", "cancel", OrderCancelled(order_id="1", reason="late"))


async def test_it_is_a_tree_of_commands_events_and_what_followed(
    shop: Shop, history: History, capsys: pytest.CaptureFixture[str]
) -> None:
    await order(shop)
    await history("order:1")
    assert [line.rstrip() for line in capsys.readouterr().out.splitlines()] == [
        "order:1  6 events in inventory, orders",
        "├── 2010-12-01 08:26:01 command place by ann",
        "│   └── OrderPlaced  orders 2  order_id=1",
        "│       └── 2010-12-01 08:26:02 orders/publish",
        "│           └── OrderAccepted  orders 3*  order_id=1",
        "│               └── 2010-12-01 08:24:01 inventory/deliver",
        "│                   ├── StockMoved  inventory 2  product_code=A  order_id=1  quantity=1",
        "│                   └── ProductDepleted  inventory 3  product_code=A",
        "│                       └── 2010-12-01 08:26:03 orders/note-stock",
        "│                           └── ProductMarkedDepleted  orders 4  product_code=A",
        "└── 2010-12-01 08:26:04 command cancel",
        "    └── OrderCancelled  orders 5  order_id=1  reason=late",
    ]


async def test_what_led_to_it_is_told_and_no_more_than_that(
    shop: Shop, history: History, capsys: pytest.CaptureFixture[str]
) -> None:
    placed = await shop.record("orders", "place", OrderPlaced(order_id="1"))
    for number, product in enumerate("AB"):
        moved = StockMoved(product_code=product, order_id="1")
        command_id = f"ceqs:inventory/deliver:{placed}:{number}"
        await shop.record("inventory", command_id, moved, after=placed, correlation="place")
    await history("product:A", output=Output.JSON)
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(one["context"], one["event"].get("product_code"), one["carries"]) for one in told] == [
        ("orders", None, False),
        ("inventory", "A", True),
    ]
    assert [one["handler"] for one in told] == ["", "inventory/deliver"]
    assert told[1]["causation_id"] == told[0]["id"]


async def test_what_followed_is_found_where_a_clock_is_slow(
    shop: Shop, history: History, capsys: pytest.CaptureFixture[str]
) -> None:
    issued = await shop.record("orders", "credit", CreditNoteIssued(credit_note_id="C1"))
    back = StockReceived(product_code="A", quantity=1)
    await shop.record("inventory", "ceqs:inventory/back:0", back, after=issued, correlation="credit")
    await history("credit_note:C1")
    assert "StockReceived" in capsys.readouterr().out


async def test_the_last_of_many_are_enough(shop: Shop, history: History, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(1200):
        await shop.record("inventory", f"receive-{number}", StockReceived(product_code="A", quantity=number + 1))
    await history("product:A", last=2, output=Output.JSON)
    told = [json.loads(line)["event"]["quantity"] for line in capsys.readouterr().out.splitlines()]
    assert told == ["1199", "1200"]
    await history("product:A", output=Output.JSON)
    assert len(capsys.readouterr().out.splitlines()) == 1200


async def test_a_service_that_does_not_answer_is_named_and_the_rest_is_told(
    shop: Shop, history: History, capsys: pytest.CaptureFixture[str]
) -> None:
    await order(shop)
    await shop.servers["inventory"].stop()
    await history("order:1")
    said = capsys.readouterr()
    assert "inventory does not answer, so what happened there is not told" in said.err
    assert "OrderAccepted" in said.out
    assert "StockMoved" not in said.out
    await shop.servers["orders"].stop()
    with pytest.raises(Unavailable):
        await history("order:1")


async def test_long_events_are_cut_unless_they_are_wanted_whole(
    shop: Shop, history: History, capsys: pytest.CaptureFixture[str]
) -> None:
    await shop.record("orders", "cancel", OrderCancelled(order_id="1", reason="x" * 300))
    await history("order:1")
    assert "x…" in capsys.readouterr().out
    await history("order:1", whole=True)
    assert "x" * 300 in capsys.readouterr().out


async def test_nothing_is_said_plainly(history: History, capsys: pytest.CaptureFixture[str]) -> None:
    await history("order:none")
    assert capsys.readouterr().out.rstrip() == "order:none  nothing is recorded"


@pytest.mark.parametrize(
    ("tag", "hint"),
    [("order", "write key:value"), ("ordr:1", "did you mean order:1?"), ("zzz:1", "there are credit_note, order")],
)
async def test_a_tag_that_no_event_can_have_is_refused(history: History, tag: str, hint: str) -> None:
    with pytest.raises(Misconfigured, match=hint.replace("?", r"\?")):
        await history(tag)


async def test_it_needs_the_key(shop: Shop, history: History) -> None:
    with pytest.raises(Unauthenticated):
        await history("order:1", key="")
