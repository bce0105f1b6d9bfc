"""Reading what one has written, of one service and across both, over real servers, relays, projectors and NATS."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ceqs.cli import _roles
from ceqs.cli._settings import Settings
from ceqs.embedded import NatsServer
from ceqs.errors import Behind
from shop.inventory.v1.commands_pb2 import MoveStockRequest, ReceiveStockRequest
from shop.inventory.v1.inventory_client import InventoryClient
from shop.inventory.v1.queries_pb2 import GetStockRequest, GetStockTotalsRequest
from shop.orders.v1.commands_pb2 import PlaceOrderRequest
from shop.orders.v1.orders_client import OrdersClient
from shop.orders.v1.queries_pb2 import GetOrderRequest, GetProductRequest, GetSalesRequest
from shop.orders.v1.types_pb2 import Line

ROUNDS = 10


class Shop:
    """The shop, in this process, and a client of each service."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.orders = OrdersClient(settings.addresses["orders"], timeout=20)
        self.inventory = InventoryClient(settings.addresses["inventory"], timeout=20)
        self.tasks: dict[str, asyncio.Task[None]] = {}

    def start(self, *roles: str) -> None:
        for role in roles:
            work = getattr(_roles, role)(self.settings, [], lambda text, value: None)
            self.tasks[role] = asyncio.create_task(work)

    async def stop(self, *roles: str) -> None:
        for role in roles:
            task = self.tasks.pop(role)
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def order(self, number: str, code: str, quantity: int = 1) -> None:
        line = Line(product_code=code, quantity=quantity, unit_price_micros=10**6)
        await self.orders.place_order(PlaceOrderRequest(order_id=number, country="France", lines=[line]))


@pytest.fixture
async def shop(nats_server: NatsServer, tmp_path: Path) -> AsyncIterator[Shop]:
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as other:
        ports = [listening.getsockname()[1] for listening in (one, other)]
    settings = Settings(
        contexts=["shop.orders.context:orders", "shop.inventory.context:inventory"],
        addresses=dict(zip(("orders", "inventory"), (f"127.0.0.1:{port}" for port in ports), strict=True)),
        data=tmp_path,
        key="the key of the shop",
        nats_url=nats_server.url,
        grace=0,
    )
    shop = Shop(settings)
    shop.start("serve", "relay", "project")
    yield shop
    await shop.stop(*shop.tasks)
    await shop.orders.close()
    await shop.inventory.close()


async def test_whoever_writes_reads_it_at_once_from_every_model_of_both_services(shop: Shop) -> None:
    stop = asyncio.Event()

    async def others() -> None:
        dice, number = random.Random(1), 0
        while not stop.is_set():
            number += 1
            await shop.orders.with_token("").place_order(
                PlaceOrderRequest(
                    order_id=f"other-{number}",
                    country="Eire",
                    lines=[Line(product_code=f"P{dice.randint(1, 9)}", quantity=1, unit_price_micros=1)],
                )
            )
            await asyncio.sleep(0.1)

    received = await shop.inventory.receive_stock(ReceiveStockRequest(product_code="22423", quantity=ROUNDS))
    assert received.on_hand == ROUNDS
    load = asyncio.create_task(others())
    for sold in range(1, ROUNDS + 1):
        await shop.order(str(sold), "22423")
        order = await shop.orders.get_order(GetOrderRequest(order_id=str(sold)))
        assert order.message.order.order_id == str(sold)
        sales = await shop.orders.get_sales(GetSalesRequest(top=1))
        assert next(c.sums.orders for c in sales.message.countries if c.country == "France") == sold
        inventory = shop.inventory.with_token(shop.orders.token)
        stock, totals = await asyncio.gather(
            inventory.get_stock(GetStockRequest(product_code="22423")),
            inventory.get_stock_totals(GetStockTotalsRequest()),
        )
        assert stock.message.stock.on_hand == ROUNDS - sold
        assert totals.message.moved >= sold
    # And back again: that none is left, orders has heard from inventory.
    orders = shop.orders.with_token(shop.inventory.with_token(stock.age.token).token)
    product = await orders.get_product(GetProductRequest(product_code="22423"))
    assert product.message.product.depleted
    stop.set()
    await load


async def test_a_query_that_cannot_have_what_its_token_says_names_who_is_behind(shop: Shop) -> None:
    await shop.inventory.receive_stock(ReceiveStockRequest(product_code="22423", quantity=5))
    await shop.order("1", "22423")
    inventory = shop.inventory.with_token(shop.orders.token)
    await inventory.get_stock(GetStockRequest(product_code="22423"))
    await shop.stop("project")
    await shop.order("2", "22423")
    inventory = shop.inventory.with_token(shop.orders.token)

    with pytest.raises(Behind, match="publish-orders of the context orders has passed position"):
        await inventory.get_stock(GetStockRequest(product_code="22423"), timeout=2)
    moved = await shop.inventory.move_stock(MoveStockRequest(product_code="22423", order_id="x", quantity=1))
    with pytest.raises(Behind, match=rf"StockLevels stands at position \d+, \d+ before {moved.receipt.position}"):
        await shop.inventory.get_stock_totals(GetStockTotalsRequest(), timeout=3)
    shop.start("project")
    stock = await inventory.get_stock(GetStockRequest(product_code="22423"))
    assert stock.message.stock.on_hand == 2
