"""Projector processes that are killed at any moment: nothing is lost, nothing is done twice."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from google.protobuf.message import Message

from ceqs.contract import bucket_of, new_id, tags_of
from ceqs.embedded import NatsServer, PostgresServer
from ceqs.log import Entry, Log, NewEvent, open_log
from ceqs.model import Context
from ceqs.projectors import ModelReader, look_over, places_of, read_status
from ceqs.queries import Rows
from ceqs.relay import Relay
from ceqs.server import Served, Server, ServerSettings
from ceqs.testing import eventually
from ceqs.v1.events_pb2 import RecordedEvent
from shop.inventory.context import inventory
from shop.inventory.v1.events_pb2 import StockMoved, StockReceived
from shop.inventory.v1.queries_pb2 import StockLevel
from shop.orders.context import orders
from shop.orders.v1.events_pb2 import OrderConfirmed, OrderPlaced
from shop.orders.v1.public_events_pb2 import OrderAccepted
from shop.orders.v1.types_pb2 import Line

KEY = "the key"
RUN = Path(__file__).parent / "processes" / "run_projector.py"
PRODUCTS = [f"P{n}" for n in range(12)]
CONTEXTS = {"orders": orders, "inventory": inventory}


@dataclass
class Shop:
    """Both services with logs on SQLite and relays, in this process; their projectors are processes of their own."""

    models_url: str
    nats_url: str
    logs: dict[str, Log]
    addresses: dict[str, str]
    running: dict[str, asyncio.subprocess.Process] = field(default_factory=dict)
    placed: int = 0
    lease: float = 10.0

    async def start(self, name: str, *crash: str) -> None:
        settings = {"addresses": self.addresses, "models_url": self.models_url, "nats_url": self.nats_url, "key": KEY}
        self.running[name] = await asyncio.create_subprocess_exec(
            sys.executable,
            str(RUN),
            f"shop.{name}.context:{name}",
            json.dumps(settings | {"lease": self.lease}),
            *crash,
            stdout=asyncio.subprocess.PIPE if self.lease < 10 else None,
        )

    async def feeds(self, name: str) -> int:
        """Give the process that writes a projection of orders."""
        places = places_of(self.models_url, "orders", name)
        try:
            (one,) = await look_over(places)
            return int(one.fed_by.split()[1]) if one.fed_by else 0
        finally:
            await places.close()

    async def kill(self, name: str) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.running[name].kill()
        await self.running.pop(name).wait()

    async def dies(self, name: str) -> None:
        """Wait until a process has killed itself."""
        async with asyncio.timeout(30):
            assert await self.running.pop(name).wait() == -signal.SIGKILL

    async def record(self, context: Context, recorded: Sequence[Message]) -> None:
        events = []
        for message in recorded:
            kind = context.contract.event(message)
            tags = tags_of(message, kind.tags)
            payload, bucket = message.SerializeToString(), bucket_of(kind, tags)
            events.append(NewEvent(id=new_id(), type=kind.full_name, payload=payload, tags=tags, bucket=bucket))
        await self.logs[context.name].append(Entry(command_id=new_id(), events=tuple(events)))

    async def stock(self) -> None:
        await self.record(inventory, [StockReceived(product_code=code, quantity=1_000_000) for code in PRODUCTS])

    async def place(self, count: int) -> None:
        """Record orders, of two products each."""
        events = []
        for n in range(self.placed, self.placed + count):
            lines = [
                Line(product_code=PRODUCTS[n % 12], quantity=1 + n % 3, unit_price_micros=1000),
                Line(product_code=PRODUCTS[(n + 5) % 12], quantity=1, unit_price_micros=1000),
            ]
            events.append(OrderPlaced(order_id=f"o{n}", country=f"C{n % 5}", lines=lines, total_micros=1000 + n))
        self.placed += count
        await self.record(orders, events)

    async def events(self, name: str, kind: type[Any]) -> list[tuple[RecordedEvent, Any]]:
        found, after = [], 0
        while (part := await self.logs[name].read(after=after)).events:
            found += [RecordedEvent.FromString(event.envelope) for event in part.events]
            after = part.through
        return [(e, kind.FromString(e.payload)) for e in found if e.type == kind.DESCRIPTOR.full_name]

    async def everything_is_delivered(self) -> bool:
        statuses = await read_status(self.models_url, orders) + await read_status(self.models_url, inventory)
        heads = {name: await log.head() for name, log in self.logs.items()}
        by_name = {status.name: status for status in statuses}
        return (
            by_name["fulfil-orders"].outcomes.get("accepted", 0) >= 3 * self.placed
            and by_name["follow-reservations"].outcomes.get("accepted", 0) >= self.placed
            and all(
                by_name[n].position == heads["orders"].position for n in ("Sales", "CustomerHistory", "publish-orders")
            )
            and by_name["expire-orders"].timers == self.placed
            and by_name["StockLevel"].position == heads["inventory"].position
            and not any(status.unsent for status in statuses)
        )

    async def is_exact(self) -> None:
        """Check that every order was counted, published, delivered and confirmed once."""
        reader = ModelReader(places_of(self.models_url, "orders", "Sales"))
        async with reader.session() as (session, _):
            sums = sa.text("SELECT sum(orders), sum(order_lines), sum(sold_micros) FROM countries")
            counted = (await session.execute(sums)).one()
            units = (await session.execute(sa.text("SELECT sum(sold_quantity) FROM products"))).scalar_one()
        await reader.close()
        quantity = sum(2 + n % 3 for n in range(self.placed))
        assert tuple(counted) == (self.placed, 2 * self.placed, sum(1000 + n for n in range(self.placed)))
        assert units == quantity
        accepted = Counter(event.order_id for _, event in await self.events("orders", OrderAccepted))
        assert accepted == Counter(f"o{n}" for n in range(self.placed))
        confirmed = Counter(event.order_id for _, event in await self.events("orders", OrderConfirmed))
        assert confirmed == accepted
        moved = await self.events("inventory", StockMoved)
        assert Counter((event.order_id, event.product_code) for _, event in moved) == Counter(
            (f"o{n}", PRODUCTS[k % 12]) for n in range(self.placed) for k in (n, n + 5)
        )
        assert sum(event.quantity for _, event in moved) == quantity
        reader = ModelReader(places_of(self.models_url, "inventory", "StockLevel"))
        async with reader.session() as (session, _):
            levels = await Rows[StockLevel](inventory.contract.models["StockLevel"], session).where()
            assert sum(level.moved for level in levels) == quantity
        await reader.close()


@pytest.fixture
async def shop(tmp_path: Path, nats_server: NatsServer) -> AsyncIterator[Shop]:
    logs, servers, relays, addresses = {}, [], [], {}
    for name, context in CONTEXTS.items():
        logs[name] = await open_log(f"sqlite:///{tmp_path}/{name}/log.db", name)
        models = {p: ModelReader(places_of(f"sqlite:///{tmp_path}/models", name, p)) for p in context.projections}
        servers.append((Server([Served(context, logs[name], models)], ServerSettings(key=KEY, grace=1)), models))
        await servers[-1][0].start()
        addresses[name] = servers[-1][0].address
        relays.append(asyncio.create_task(Relay(logs[name], context.decoder, nats_server.url).run()))
    shop = Shop(f"sqlite:///{tmp_path}/models", nats_server.url, logs, addresses)
    yield shop
    for name in list(shop.running):
        await shop.kill(name)
    for relay in relays:
        relay.cancel()
    await asyncio.gather(*relays, return_exceptions=True)
    for server, models in servers:
        await server.stop()
        for model in models.values():
            await model.close()
    for log in logs.values():
        await log.close()


async def test_orders_are_counted_published_and_delivered_once_whenever_projectors_are_killed(shop: Shop) -> None:
    chance = random.Random(7)
    await shop.stock()
    for name in CONTEXTS:
        await shop.start(name)
    for _ in range(5):
        for _ in range(5):
            await shop.place(4)
            await asyncio.sleep(chance.uniform(0, 0.3))
        name = chance.choice(list(CONTEXTS))
        await shop.kill(name)
        await shop.place(4)
        await shop.start(name)
    await eventually(shop.everything_is_delivered, within=60)
    await shop.is_exact()


@pytest.mark.parametrize("point", ["commit", "settle"])
async def test_a_process_that_dies_at_the_worst_moment_does_nothing_twice(shop: Shop, point: str) -> None:
    await shop.stock()
    for n in (1, 3):
        await shop.place(30)
        await shop.start("orders", f"{point}:{n}")
        await shop.dies("orders")
        await shop.start("orders")  # it may have died before it published anything
        await shop.start("inventory", f"{point}:{n}")
        await shop.dies("inventory")
        await shop.kill("orders")
    for name in CONTEXTS:
        await shop.start(name)
    await eventually(shop.everything_is_delivered, within=60)
    await shop.is_exact()


@pytest.mark.parametrize("store", ["sqlite", "postgresql"])
async def test_a_projector_that_was_suspended_beyond_its_lease_writes_nothing_when_it_wakes_up(
    shop: Shop, store: str
) -> None:
    async with contextlib.AsyncExitStack() as stack:
        if store == "postgresql":
            shop.models_url = (await stack.enter_async_context(PostgresServer())).url
        shop.lease = 4.0
        await shop.stock()
        await shop.start("inventory")
        await shop.start("orders")
        first = shop.running["orders"]
        await shop.place(20)
        await eventually(shop.everything_is_delivered, within=60)
        assert await shop.feeds("Sales") == first.pid
        first.send_signal(signal.SIGSTOP)
        await shop.start("orders")
        second = shop.running["orders"]
        await shop.place(20)
        await eventually(shop.everything_is_delivered, within=60)
        assert await shop.feeds("Sales") == second.pid
        first.send_signal(signal.SIGCONT)  # it believes that it has the lease, and has twenty orders to apply
        await shop.place(20)
        await eventually(shop.everything_is_delivered, within=60)
        assert first.stdout
        async with asyncio.timeout(20):
            while b"Sales" not in (line := await first.stdout.readline()) or b"written by another process" not in line:
                assert line, "it has ended"
        assert await shop.feeds("Sales") == second.pid
        await shop.is_exact()
        await shop.kill("orders")  # and the first takes everything over again, each of its handlers
        await shop.place(20)
        await eventually(shop.everything_is_delivered, within=60)
        assert await shop.feeds("Sales") == first.pid
        await shop.is_exact()
        first.kill()
        await first.wait()
        for name in list(shop.running):
            await shop.kill(name)


async def test_nats_may_die_while_orders_flow(shop: Shop, nats_server: NatsServer) -> None:
    await shop.stock()
    for name in CONTEXTS:
        await shop.start(name)
    for _ in range(3):
        await shop.place(20)
        await nats_server.kill()
        await shop.place(20)
        await eventually(shop.everything_is_delivered, within=60)
        await nats_server.start()
    await shop.place(20)
    await eventually(shop.everything_is_delivered, within=60)
    await shop.is_exact()
