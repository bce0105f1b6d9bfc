"""What goes on while something else is down, measured beside the same with everything up.

Rates are compared within one run, in turns, with a generous bound: whoever waits for what is down would be far below.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import structlog

from ceqs.embedded import NatsServer, PostgresServer
from ceqs.log import LogReader, open_reader
from ceqs.projectors import Projector, ProjectorSettings, read_status
from ceqs.relay import Relay, differences
from ceqs.testing import eventually
from shop.orders.context import orders
from shop.orders.v1.commands_pb2 import CancelOrderRequest, PlaceOrderRequest
from shop.orders.v1.orders_client import OrdersClient
from shop.orders.v1.queries_pb2 import GetOrderRequest, GetSalesRequest, WatchOrderRequest
from shop.orders.v1.types_pb2 import Line

KEY = "the key of the bank"
ORDERS = {"CEQS_CONTEXTS": "shop.orders.context:orders", "CEQS_ADDRESSES": "orders=127.0.0.1:0"}
PATIENCE = 60.0
CLIENTS, SECONDS = 8, 0.3
KEPT = 0.5
"""The part of the rate that counts as kept."""
ATTEMPTS = 4
"""How often two rates are compared, for a busy machine may slow any one of them."""

Work = Callable[[], Awaitable[Any]]


@pytest.fixture(autouse=True)
def logs_as_processes_do() -> Iterator[None]:
    """Draw no local variables into tracebacks: that takes seconds of the event loop's time."""
    renderer = structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
    structlog.configure(processors=[structlog.processors.add_log_level, renderer])
    yield
    structlog.reset_defaults()


async def rate(work: Work) -> float:
    """Give how often some clients do it in a second, each one thing after the other."""
    done, end = 0, asyncio.get_running_loop().time() + SECONDS

    async def client() -> None:
        nonlocal done
        while asyncio.get_running_loop().time() < end:
            await work()
            done += 1

    await asyncio.gather(*(client() for _ in range(CLIENTS)))
    return done / SECONDS


async def is_kept(what: str, up: float, work: Work) -> None:
    """Check that work goes on as it did with everything up."""
    rates: list[float] = []
    for _ in range(ATTEMPTS):
        rates.append(await rate(work))
        if rates[-1] >= KEPT * up:
            print(f"{what}: {rates[-1]:.0f}/s, {up:.0f}/s before")
            return
    raise AssertionError(f"{what}: {rates} a second, {up:.0f} before")


@dataclass
class Behind:
    """What stands behind the command server of orders: a relay, a nats-server, a projector and its database."""

    log: LogReader
    nats: NatsServer
    models: PostgresServer
    address: str
    tasks: dict[str, asyncio.Task[None]] = field(default_factory=dict)

    def start(self, role: str) -> None:
        if role == "relay":
            work = Relay(self.log, orders.decoder, self.nats.url).run()
        else:
            settings = ProjectorSettings(
                addresses=dict.fromkeys(("orders", "inventory"), self.address),
                models_url=self.models.url,
                nats_url=self.nats.url,
                key=KEY,
            )
            work = Projector(orders, settings).run()
        self.tasks[role] = asyncio.create_task(work)

    async def stop(self, role: str) -> None:
        task = self.tasks.pop(role)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    @contextlib.asynccontextmanager
    async def without(self, what: str) -> AsyncIterator[None]:
        """Be without one of them meanwhile."""
        servers: dict[str, NatsServer | PostgresServer] = {
            "nats-server": self.nats,
            "projection database": self.models,
        }
        server = servers.get(what)
        await (server.kill() if server else self.stop(what))
        yield
        if server:
            await server.start()
        else:
            self.start(what)

    async def all_is_projected(self) -> bool:
        head = await self.log.head()
        with contextlib.suppress(Exception):  # the database is just starting again
            statuses = {status.name: status for status in await read_status(self.models.url, orders)}
            return statuses["Sales"].position == head.position
        return False

    async def all_is_published(self, placed: int) -> bool:
        """Whether each order was recorded once, and published once."""
        head = await self.log.head()
        return (head.position, head.public_position) == (2 * placed, placed)

    async def all_is_relayed(self) -> bool:
        return await differences(self.log, orders.decoder, self.nats.url) == []


@contextlib.asynccontextmanager
async def behind(log_url: str, address: str, directory: Path) -> AsyncIterator[Behind]:
    log = await open_reader(log_url, "orders")
    async with NatsServer(directory / "nats") as nats, PostgresServer() as models:
        found = Behind(log, nats, models, address)
        for role in ("relay", "projector"):
            found.start(role)
        try:
            yield found
        finally:
            for role in list(found.tasks):
                await found.stop(role)
            await log.close()


def order(number: int) -> PlaceOrderRequest:
    line = Line(product_code="a", quantity=1, unit_price_micros=1)
    return PlaceOrderRequest(order_id=str(number), country="Eire", lines=[line])


@pytest.mark.timeout(300)
async def test_commands_keep_their_rate_without_projector_relay_nats_server_or_projection_database(
    servers_on_files: Any, tmp_path: Path
) -> None:
    """Each of the four is down in its turn. Afterwards everything is where the log is, without help."""
    numbers = itertools.count()
    log_url = f"sqlite:///{servers_on_files.directory}/data/logs/orders.db"
    async with (
        servers_on_files.serving(**ORDERS) as serving,
        OrdersClient(serving.address, key=KEY, timeout=PATIENCE) as client,
        behind(log_url, serving.address, tmp_path) as line,
    ):

        async def place() -> None:
            await client.place_order(order(next(numbers)))

        await place()
        await eventually(line.all_is_projected, within=PATIENCE)
        for what in ("projector", "relay", "nats-server", "projection database"):
            up = await rate(place)
            async with line.without(what):
                await is_kept(f"commands without the {what}", up, place)
        placed = next(numbers)
        await eventually(lambda: line.all_is_published(placed), within=PATIENCE)
        await eventually(line.all_is_projected, within=PATIENCE)
        await eventually(line.all_is_relayed, within=PATIENCE)


async def test_queries_and_live_queries_keep_answering_without_the_command_server(servers_on_files: Any) -> None:
    """From states and from projections; and what was being watched is watched on when it is back."""
    models_url = f"sqlite:///{servers_on_files.directory}/data/models"
    async with (
        servers_on_files.serving(roles=["commands"], **ORDERS) as writing,
        servers_on_files.serving(roles=["queries", "events"], **ORDERS) as reading,
    ):
        settings = ProjectorSettings(
            addresses=dict.fromkeys(("orders", "inventory"), writing.address),
            event_addresses={"orders": reading.address},
            models_url=models_url,
            key=KEY,
        )
        projecting = asyncio.create_task(Projector(orders, settings).run())
        async with OrdersClient(writing.address, queries=reading.address, key=KEY, timeout=PATIENCE) as client:
            for number in range(20):
                await client.place_order(order(number))
            assert (await client.get_sales(GetSalesRequest())).message.total.orders == 20

            async def ask() -> None:
                assert (await client.get_order(GetOrderRequest(order_id="7"))).message.order.country == "Eire"
                assert (await client.get_sales(GetSalesRequest())).message.total.orders == 20

            watched: Any = client.watch_order(WatchOrderRequest(order_id="7"))
            assert (await anext(watched)).message.order.country == "Eire"
            up = await rate(ask)
            assert await writing.ends(signal.SIGKILL) == -signal.SIGKILL
            next_answer = asyncio.ensure_future(anext(watched))
            await is_kept("queries without the command server", up, ask)
            late: Any = client.watch_order(WatchOrderRequest(order_id="8"))
            assert (await asyncio.wait_for(anext(late), PATIENCE)).message.order.country == "Eire"
            await late.aclose()
            assert not next_answer.done(), "the live query has not ended"

            again = {**ORDERS, "CEQS_ADDRESSES": f"orders={writing.address}"}
            async with servers_on_files.serving(roles=["commands"], **again):
                await client.cancel_order(CancelOrderRequest(order_id="7", reason="changed"))
                cancelled = await asyncio.wait_for(next_answer, PATIENCE)
                assert cancelled.message.order != (await client.get_order(GetOrderRequest(order_id="8"))).message.order
                assert (await client.get_sales(GetSalesRequest())).age.lag_events == 0
            await watched.aclose()
        projecting.cancel()
        await asyncio.gather(projecting, return_exceptions=True)
