"""Reading what one has written, of one service and across both, over real servers, relays, projectors and NATS."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.ports import free_address
from tests.torture.written import Account, read_what_was_written

from ceqs.cli import _roles
from ceqs.cli._settings import Settings
from ceqs.embedded import NatsServer
from ceqs.errors import Behind
from shop.inventory.v1.commands_pb2 import MoveStockRequest, ReceiveStockRequest
from shop.inventory.v1.inventory_client import InventoryClient
from shop.inventory.v1.queries_pb2 import GetStockRequest, GetStockTotalsRequest
from shop.orders.v1.commands_pb2 import PlaceOrderRequest
from shop.orders.v1.orders_client import OrdersClient
from shop.orders.v1.types_pb2 import Line

ROUNDS = 100


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
    settings = Settings(
        contexts=["shop.orders.context:orders", "shop.inventory.context:inventory"],
        addresses={name: free_address() for name in ("orders", "inventory")},
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


@pytest.mark.timeout(300)  # on two busy cores; on two idle ones it takes a tenth
async def test_whoever_writes_reads_it_at_once_from_every_model_of_both_services_while_others_write(shop: Shop) -> None:
    """`make torture` goes through ten thousand rounds."""
    account = Account()
    addresses = shop.settings.addresses
    await read_what_was_written(addresses["orders"], addresses["inventory"], account, rounds=ROUNDS, clients=16)
    assert (account.stale, account.failures) == ([], [])
    assert account.rounds == ROUNDS
    kinds = "list", "projection", "projection, across", "state", "state, across", "state, there and back"
    assert set(account.reads) == set(kinds)


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
    with pytest.raises(Behind, match=rf"StockLevel stands at position \d+, \d+ before {moved.receipt.position}"):
        await shop.inventory.get_stock_totals(GetStockTotalsRequest(), timeout=3)
    shop.start("project")
    stock = await inventory.get_stock(GetStockRequest(product_code="22423"))
    assert stock.message.stock.on_hand == 2
