"""A product is withdrawn while an order for it is placed: it is refused, and what slipped through is cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from ceqs.errors import Rejected, Unavailable
from ceqs.log import open_log
from ceqs.projectors import ModelReader, Projector, ProjectorSettings, place_of
from ceqs.queries import Answers
from ceqs.server import Served, Server, ServerSettings
from ceqs.testing import NOW, given
from shop.orders.context import orders
from shop.orders.v1.commands_pb2 import PlaceOrderRequest, ReviewOrderRequest, WithdrawProductRequest
from shop.orders.v1.events_pb2 import OrderCancelled, OrderPlaced, ProductWithdrawn
from shop.orders.v1.orders_client import OrdersClient
from shop.orders.v1.queries_pb2 import WatchOrderRequest
from shop.orders.v1.states_pb2 import OrderStatus
from shop.orders.v1.types_pb2 import Line

KEY = "the key of orders"
LINES = [Line(product_code=code, quantity=1, unit_price_micros=1) for code in "AB"]
PLACED = OrderPlaced(order_id="1", country="Eire", lines=LINES, total_micros=2)
REVIEW = ReviewOrderRequest(order_id="1", product_codes=["A", "B"])


def test_a_product_is_withdrawn_once() -> None:
    request = WithdrawProductRequest(product_code="A")
    given(orders).when(request).yields(ProductWithdrawn(product_code="A")).when(request).changes_nothing()


def test_an_order_that_slipped_through_is_cancelled_once() -> None:
    cancelled = OrderCancelled(
        order_id="1", country="Eire", lines=LINES, total_micros=2, reason="withdrawn: B", cancelled_at=NOW
    )
    history = given(orders, ProductWithdrawn(product_code="B"), ProductWithdrawn(product_code="Z"), PLACED)
    history.when(REVIEW).yields(cancelled).when(REVIEW).changes_nothing()


def test_an_order_that_was_placed_before_the_withdrawal_stands() -> None:
    given(orders, PLACED, ProductWithdrawn(product_code="A")).when(REVIEW).changes_nothing()


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[OrdersClient]:
    """Orders, served with its projectors."""
    log, url = await open_log("memory:", "orders"), f"sqlite:///{tmp_path}"
    models = {name: ModelReader(place_of(url, "orders", name)) for name in orders.projections}
    server = Server([Served(orders, log, models)], ServerSettings(key=KEY, grace=5))
    await server.start()
    # Of inventory nobody hears anything here.
    addresses = {"orders": server.address, "inventory": "127.0.0.1:1"}
    projector = Projector(orders, ProjectorSettings(addresses=addresses, models_url=url, key=KEY))
    running = asyncio.create_task(projector.run())
    async with OrdersClient(server.address) as client:
        yield client
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await server.stop()
    for model in models.values():
        await model.close()
    await log.close()


def order(number: str) -> PlaceOrderRequest:
    return PlaceOrderRequest(order_id=number, country="Eire", lines=LINES)


async def test_what_is_withdrawn_is_not_ordered_and_what_slips_through_is_cancelled(
    client: OrdersClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    await client.place_order(order("1"))
    await client.withdraw_product(WithdrawProductRequest(product_code="B"))
    with pytest.raises(Rejected, match="B is not in the assortment any more") as refused:
        await client.place_order(order("2"))
    assert refused.value.reason == "PRODUCT_WITHDRAWN"

    def down(*_: Any) -> Any:
        raise Unavailable("nobody knows what is withdrawn")

    with monkeypatch.context() as patch:
        patch.setattr(Answers, "_from_state", down)
        await client.place_order(order("3"))
    live: Any = client.watch_order(WatchOrderRequest(order_id="3"))
    async with asyncio.timeout(20):
        async for answer in live:
            if answer.message.order.status == OrderStatus.ORDER_STATUS_CANCELLED:
                break
    await live.aclose()
    before: Any = client.watch_order(WatchOrderRequest(order_id="1"))
    assert (await anext(before)).message.order.status != OrderStatus.ORDER_STATUS_CANCELLED
    await before.aclose()
