"""`ceqs serve --role`: processes that only read, and may not write, beside the one that serves commands."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from sqlalchemy import make_url

from ceqs.projectors import Projector, ProjectorSettings
from shop.orders.context import orders
from shop.orders.v1.commands_pb2 import PlaceOrderRequest
from shop.orders.v1.events_pb2 import OrderPlaced
from shop.orders.v1.orders_client import OrdersClient
from shop.orders.v1.queries_pb2 import GetOrderRequest, GetSalesRequest, WatchOrderRequest
from shop.orders.v1.states_pb2 import Order
from shop.orders.v1.types_pb2 import Line

KEY = "the key of the bank"
PATIENCE = 60.0
READING = ("queries", "events")
ORDERS = {"CEQS_CONTEXTS": "shop.orders.context:orders", "CEQS_ADDRESSES": "orders=127.0.0.1:0"}


@asynccontextmanager
async def projected(writing: str, reading: str, models_url: str) -> AsyncIterator[None]:
    """Keep the query models of orders up to date meanwhile, by the events of the one, with commands to the other."""
    settings = ProjectorSettings(
        addresses=dict.fromkeys(("orders", "inventory"), writing),
        event_addresses={"orders": reading},
        models_url=models_url,
        key=KEY,
    )
    running = asyncio.create_task(Projector(orders, settings).run())
    yield
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def check_that_it_answers(writing: str, queries: str, events: str) -> None:
    """Write to the one process, and read everything from the others."""
    async with OrdersClient(writing, queries=queries, events=events, key=KEY, timeout=PATIENCE) as client:
        live: Any = client.watch_order(WatchOrderRequest(order_id="2"))
        recorded = client.events(scope="private", types=["shop.orders.v1.OrderPlaced"])
        for number in (1, 2, 3):
            line = Line(product_code="a", quantity=1, unit_price_micros=1)
            order_id = str(number)
            await client.place_order(PlaceOrderRequest(order_id=order_id, country="Eire", lines=[line]))
            # Neither is older than what the client has written.
            order = await client.get_order(GetOrderRequest(order_id=order_id))
            assert order.message.order.country == "Eire"
            sales = await client.get_sales(GetSalesRequest())
            assert sales.message.total.orders == number
            assert (await asyncio.wait_for(anext(recorded), PATIENCE)).message == order_placed(order.message.order)
        async with asyncio.timeout(PATIENCE):
            async for answer in live:
                if answer.message.order.country:
                    break
        await live.aclose()
        await recorded.aclose()


def order_placed(order: Order) -> OrderPlaced:
    return OrderPlaced(
        order_id=order.order_id,
        country=order.country,
        lines=order.lines,
        total_micros=order.total_micros,
        ordered_at=order.ordered_at,
        pay_within=order.pay_within,
    )


@pytest.fixture
def reads_only(database: str) -> str:
    """The url of the database for a user without any right yet."""
    name = f"reader_{make_url(database).database}"
    return make_url(database).set(username=name, password="reads").render_as_string(hide_password=False)


@pytest.fixture
async def admin(database: str, reads_only: str) -> AsyncIterator[Any]:
    connection = await asyncpg.connect(database)
    await connection.execute(f"CREATE ROLE {make_url(reads_only).username} LOGIN PASSWORD 'reads'")
    yield connection
    await connection.close()


async def test_a_user_of_postgresql_who_may_only_read_serves_queries_and_events(
    servers: Any, database: str, reads_only: str, admin: Any
) -> None:
    await admin.execute(f"GRANT pg_read_all_data TO {make_url(reads_only).username}")
    async with servers.serving(roles=["commands"], **ORDERS) as writing:
        # It is the user that may not write: this connection says nothing of the kind.
        own = await asyncpg.connect(reads_only)
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await own.execute("INSERT INTO ceqs_orders.taggings VALUES ('a', '')")
        await own.close()
        # The user who may write is not even known to this process.
        only = {"CEQS_DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none", "CEQS_READ_URL": reads_only}
        async with (
            servers.serving(2, roles=READING, **ORDERS, **only) as reading,
            projected(writing.address, reading.address, database),
        ):
            assert reading.said[0]["roles"] == ["queries", "events"]
            await check_that_it_answers(writing.address, reading.address, reading.address)


async def test_a_user_who_may_not_read_is_told_what_to_grant(servers: Any, reads_only: str, admin: Any) -> None:
    async with servers.serving(roles=["commands"], **ORDERS):
        with pytest.raises(AssertionError, match=f"GRANT pg_read_all_data TO {make_url(reads_only).username}"):
            async with servers.serving(roles=READING, **ORDERS, CEQS_READ_URL=reads_only):
                pass


async def test_files_are_opened_for_reading_beside_the_process_that_writes_them(servers_on_files: Any) -> None:
    data = servers_on_files.directory / "data"
    async with (
        servers_on_files.serving(roles=["commands"], **ORDERS) as writing,
        servers_on_files.serving(2, roles=READING, **ORDERS) as reading,
        projected(writing.address, reading.address, f"sqlite:///{data / 'models'}"),
    ):
        await check_that_it_answers(writing.address, reading.address, reading.address)
        for pid in reading.pids:
            # Of the files beside a database, SQLite says itself what it needs; through this one nothing can be written.
            databases = {p: flags & os.O_ACCMODE for p, flags in files_of(pid).items() if p.suffix == ".db"}
            assert data / "logs/orders.db" in databases
            assert set(databases.values()) == {os.O_RDONLY}


def files_of(pid: int) -> dict[Path, int]:
    """Give the files that a process has opened, with the flags of opening."""
    found: dict[Path, int] = {}
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            info = Path(f"/proc/{pid}/fdinfo/{link.name}").read_text()
            flags = next(line for line in info.splitlines() if line.startswith("flags:"))
            found[link.readlink()] = int(flags.split()[1], 8)
    return found
