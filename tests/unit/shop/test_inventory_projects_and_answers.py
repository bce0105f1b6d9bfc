"""The keyed model of inventory, folded by its methods, and what its queries make of it on a real database."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.message import Message

from ceqs.contract import new_id
from ceqs.log import Entry, NewEvent, open_log
from ceqs.projectors import ModelReader, fill, place_of
from ceqs.queries import Answers, QueryCall, States
from ceqs.testing import given
from shop.inventory.context import inventory
from shop.inventory.v1.events_pb2 import StockAdjusted, StockMoved, StockReceived, StockReturned
from shop.inventory.v1.queries_pb2 import (
    GetStockTotalsRequest,
    GetStockTotalsResponse,
    ListStockRequest,
    StockLevel,
)

EVENTS = (
    StockReceived(product_code="A", description="A LANTERN", quantity=10),
    StockReceived(product_code="B", quantity=5),
    StockMoved(product_code="A", order_id="1", quantity=4),
    StockReturned(product_code="A", order_id="1", quantity=4),
    StockMoved(product_code="B", order_id="2", quantity=4),
    StockAdjusted(product_code="A", quantity=2, unit_value_micros=250_000),
    StockAdjusted(product_code="B", quantity=-1, unit_value_micros=1_000_000),
)
Ask = Callable[[Message], Awaitable[Any]]


def test_every_movement_counts_where_it_belongs() -> None:
    lanterns = StockLevel(
        product_code="A",
        description="A LANTERN",
        received=10,
        moved=4,
        returned=4,
        adjusted=2,
        on_hand=12,
        adjustments=1,
        adjusted_micros=500_000,
    )
    nothing = StockLevel(
        product_code="B",
        received=5,
        moved=4,
        adjusted=-1,
        depleted=True,
        adjustments=1,
        adjusted_micros=-1_000_000,
    )
    given(inventory, *EVENTS).keeps(StockLevel, lanterns, nothing)


@pytest.fixture
async def asking(tmp_path: Path) -> AsyncIterator[Callable[..., Awaitable[Ask]]]:
    """Give what asks the queries of inventory after events."""
    log, place = await open_log("memory:", "inventory"), place_of(f"sqlite:///{tmp_path}", "inventory", "StockLevel")
    reader = ModelReader(place)
    answers = Answers(inventory, log, States(inventory, log), {"StockLevel": reader})
    rpcs = {rpc.request: rpc for rpc in inventory.contract.queries.values()}

    async def after(*events: Message) -> Ask:
        for event in events:
            new = NewEvent(id=new_id(), type=event.DESCRIPTOR.full_name, payload=event.SerializeToString())
            await log.append(Entry(command_id=new.id, events=(new,)))
        await fill(place, inventory.projections["StockLevel"], inventory.decoder, log, len(events))

        async def ask(request: Message) -> Any:
            return (await answers.answer(rpcs[type(request)], request, QueryCall())).response

        return ask

    yield after
    await reader.close()
    await log.close()


async def test_the_stock_list_comes_in_pages(asking: Any) -> None:
    ask = await asking(*EVENTS)
    first = await ask(ListStockRequest(page_size=1))
    last = await ask(ListStockRequest(page_size=1, page_token=first.next_page_token))
    assert [level.product_code for level in (*first.levels, *last.levels)] == ["A", "B"]
    assert last.next_page_token == ""


async def test_the_stock_list_may_be_of_what_is_left_or_of_what_is_not(asking: Any) -> None:
    ask = await asking(*EVENTS)
    for request, codes in (
        (ListStockRequest(), ["A", "B"]),
        (ListStockRequest(depleted=True), ["B"]),
        (ListStockRequest(depleted=False), ["A"]),
        (ListStockRequest(product_code=["B", "C"]), ["B"]),
    ):
        assert [level.product_code for level in (await ask(request)).levels] == codes


async def test_the_totals_sum_up_all_products(asking: Any) -> None:
    ask = await asking(*EVENTS)
    assert await ask(GetStockTotalsRequest()) == GetStockTotalsResponse(
        products=2,
        depleted=1,
        received=15,
        moved=8,
        returned=4,
        adjustments=2,
        adjusted=1,
        adjusted_micros=-500_000,
        on_hand=12,
    )


async def test_an_empty_warehouse_sums_up_to_nothing(asking: Any) -> None:
    ask = await asking()
    assert await ask(GetStockTotalsRequest()) == GetStockTotalsResponse()
