"""How things stand with a customer: of two services, and all the same where one of them does not answer."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from ceqs.client import Services
from ceqs.log import Log, open_log
from ceqs.model import Context
from ceqs.projectors import ModelReader, fill, place_of
from ceqs.server import Served, Server, ServerSettings
from shop.inventory.context import inventory
from shop.inventory.v1.commands_pb2 import MoveStockRequest, ReceiveStockRequest
from shop.inventory.v1.inventory_client import InventoryClient
from shop.orders.context import orders
from shop.orders.v1.commands_pb2 import CancelOrderRequest, PlaceOrderRequest
from shop.orders.v1.orders_client import OrdersClient
from shop.orders.v1.queries_pb2 import GetCustomerOverviewRequest, GetCustomerOverviewResponse, OpenLine
from shop.orders.v1.types_pb2 import Line


@dataclass
class Shop:
    """Two services."""

    orders: OrdersClient
    inventory: InventoryClient
    servers: dict[str, Server]
    logs: dict[str, Log]
    url: str

    async def project(self) -> None:
        """Bring the query models up to date."""
        for context in (orders, inventory):
            log = self.logs[context.name]
            for name, projection in context.projections.items():
                place = place_of(self.url, context.name, name)
                await fill(place, projection, context.decoder, log, (await log.head()).position)


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[Shop]:
    url, addresses = f"sqlite:///{tmp_path}", dict[str, str]()
    contexts: list[Context] = [inventory, orders]
    servers, logs = dict[str, Server](), dict[str, Log]()
    async with AsyncExitStack() as stack:
        services = Services(addresses)
        stack.push_async_callback(services.close)
        for context in contexts:
            log = logs[context.name] = await open_log("memory:", context.name)
            stack.push_async_callback(log.close)
            models = {name: ModelReader(place_of(url, context.name, name)) for name in context.projections}
            for model in models.values():
                stack.push_async_callback(model.close)
            served = Served(context, log, models, services=services)
            server = servers[context.name] = Server([served], ServerSettings(grace=1))
            await server.start()
            stack.push_async_callback(server.stop)
            addresses[context.name] = server.address
        asking = await stack.enter_async_context(OrdersClient(addresses["orders"]))
        keeping = await stack.enter_async_context(InventoryClient(addresses["inventory"]))
        yield Shop(asking, keeping, servers, logs, url)


def line(code: str, quantity: int = 1, *, charge: bool = False) -> Line:
    return Line(product_code=code, quantity=quantity, unit_price_micros=1, charge=charge)


async def asked(shop: Shop) -> GetCustomerOverviewResponse:
    return (await shop.orders.get_customer_overview(GetCustomerOverviewRequest(customer_id="c"))).message


async def test_open_orders_come_with_the_stock_of_their_products(shop: Shop) -> None:
    for code, quantity in (("A", 9), ("B", 1)):
        await shop.inventory.receive_stock(ReceiveStockRequest(product_code=code, quantity=quantity))
    await shop.inventory.move_stock(MoveStockRequest(product_code="B", order_id="0", quantity=1))
    for number in ("1", "2", "3"):
        lines = [line("A", 2), line("POST", charge=True), line("A", 1), line("B"), line(f"Z{number}")]
        await shop.orders.place_order(PlaceOrderRequest(order_id=number, customer_id="c", country="Eire", lines=lines))
    await shop.orders.cancel_order(CancelOrderRequest(order_id="2"))
    await shop.orders.place_order(PlaceOrderRequest(order_id="4", customer_id="d", country="Eire", lines=[line("A")]))
    await shop.project()
    found = await asked(shop)
    assert found.documents == 3
    assert [order.order_id for order in found.open_orders] == ["3", "1"]
    assert list(found.open_orders[0].lines) == [
        OpenLine(product_code="A", quantity=3, on_hand=9),
        OpenLine(product_code="B", quantity=1, on_hand=0),
        OpenLine(product_code="Z3", quantity=1),
    ]
    assert set(found.parts) == {"history", "order 1", "order 3", "stock"}
    assert all(part.age.token and not part.missing for part in found.parts.values())
    assert found.parts["order 1"].age.token == found.parts["order 3"].age.token, "they are of one moment"
    assert found.parts["stock"].age.token != found.parts["history"].age.token


async def test_without_the_warehouse_there_is_an_overview_that_says_so_in_time(shop: Shop) -> None:
    request = PlaceOrderRequest(order_id="1", customer_id="c", country="Eire", lines=[line("A")])
    await shop.orders.place_order(request)
    await shop.project()
    await shop.servers["inventory"].stop()
    began = time.monotonic()
    found = await asked(shop)
    assert time.monotonic() - began < 5
    assert list(found.open_orders[0].lines) == [OpenLine(product_code="A", quantity=1)]
    assert found.parts["stock"].missing
    assert not found.parts["stock"].HasField("age")


async def test_a_customer_without_orders_asks_nothing_of_the_warehouse(shop: Shop) -> None:
    await shop.project()
    found = await asked(shop)
    assert (found.documents, len(found.open_orders), set(found.parts)) == (0, 0, {"history"})
