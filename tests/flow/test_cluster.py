"""Three nats-servers that are one JetStream: the leader of the streams is killed under load, and nobody has to help."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nats.errors
import pytest
import sqlalchemy as sa

from ceqs.contract import bucket_of, new_id, tags_of
from ceqs.embedded import NatsCluster
from ceqs.errors import CeqsError
from ceqs.log import Entry, Log, NewEvent, open_log
from ceqs.projectors import ModelReader, Projector, ProjectorSettings, places_of
from ceqs.relay import Relay, StreamLimits, differences
from ceqs.server import Served, Server, ServerSettings
from ceqs.streams import connected
from ceqs.testing import eventually
from shop.inventory.context import inventory
from shop.orders.context import orders
from shop.orders.v1.events_pb2 import OrderPlaced
from shop.orders.v1.public_events_pb2 import OrderAccepted

KEY = "the key"
STREAMS = ("CEQS_orders_1", "CEQS_orders_PUBLIC_1")
LEADERLESS = CeqsError, nats.errors.Error
"""What is raised while the servers elect who is to answer, as they may at any moment."""


@dataclass
class Line:
    """Orders on a cluster: a log, two relays, a projector."""

    cluster: NatsCluster
    log: Log
    sales: ModelReader
    relays: list[Relay] = field(default_factory=list)
    projector: Any = None
    placed: int = 0

    async def place(self) -> None:
        """Record orders, private events and public ones, until cancelled."""
        while True:
            messages: list[Any] = [
                message
                for number in range(self.placed, self.placed + 10)
                for message in (OrderPlaced(order_id=f"o{number}", country="C"), OrderAccepted(order_id=f"o{number}"))
            ]
            # Counted before: who is cancelled meanwhile has them recorded all the same.
            self.placed += 10
            await self.log.append(Entry(command_id=new_id(), events=tuple(map(_event, messages))))
            await asyncio.sleep(0.01)

    async def led_by(self, stream: str) -> str:
        """Give the name of the server that leads a stream; empty while they elect one, or not all are up to date."""
        try:
            async with connected(self.cluster.url) as client:
                cluster = (await client.jetstream().stream_info(stream)).cluster
        except LEADERLESS:
            return ""
        assert cluster
        assert len(cluster.replicas or []) == 2
        current = all(peer.current and not peer.offline for peer in cluster.replicas or [])
        return (cluster.leader or "") if current else ""

    async def listened_to(self) -> bool:
        """Whether the projector follows the stream again, not only the log."""
        try:
            async with connected(self.cluster.url) as client:
                return bool(await client.jetstream().consumers_info(STREAMS[0]))
        except LEADERLESS:
            return False

    async def is_exact(self) -> bool:
        """Whether the streams are what the log is."""
        try:
            return await differences(self.log, orders.decoder, self.cluster.url) == []
        except LEADERLESS:
            return False

    async def relayed(self, beyond: tuple[int, int] = (0, 0)) -> bool:
        return all(
            one.position > position
            for relay in self.relays
            for one, position in zip(relay.status(), beyond, strict=True)
        )

    async def all_is_there(self) -> bool:
        head = await self.log.head()
        positions = (head.position, head.public_position)
        at = [tuple(one.position for one in relay.status()) for relay in self.relays]
        sales = next(status for status in self.projector.status() if status.name == "Sales")
        return at == [positions] * 2 and sales.position == head.position


def _event(message: Any) -> NewEvent:
    kind = orders.contract.event(message)
    tags = tags_of(message, kind.tags)
    return NewEvent(
        id=new_id(),
        type=kind.full_name,
        payload=message.SerializeToString(),
        tags=tags,
        public=kind.public,
        bucket=bucket_of(kind, tags),
    )


@pytest.fixture
async def line(tmp_path: Path) -> AsyncIterator[Line]:
    log, other = await open_log("memory:", "orders"), await open_log("memory:", "inventory")
    models_url = f"sqlite:///{tmp_path}/models"
    sales = ModelReader(places_of(models_url, "orders", "Sales"))
    models: dict[str, Any] = dict.fromkeys([*orders.projections, *inventory.projections])
    served = [Served(orders, log, models), Served(inventory, other, models)]
    server = Server(served, ServerSettings(key=KEY, grace=0))
    await server.start()
    async with AsyncExitStack() as stack:
        cluster = await stack.enter_async_context(NatsCluster(tmp_path / "nats"))
        line = Line(cluster, log, sales)
        line.relays = [Relay(log, orders.decoder, cluster.url, StreamLimits(replicas=3)) for _ in range(2)]
        settings = ProjectorSettings(
            addresses={"orders": server.address, "inventory": server.address},
            models_url=models_url,
            nats_url=cluster.url,
            key=KEY,
        )
        line.projector = Projector(orders, settings)
        tasks = [asyncio.create_task(role.run()) for role in (*line.relays, line.projector)]
        try:
            yield line
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
    await sales.close()
    await server.stop()
    await log.close()
    await other.close()


async def test_the_leader_of_the_streams_is_killed_under_load_and_nothing_is_lost_or_done_twice(line: Line) -> None:
    placing = asyncio.create_task(line.place())
    await eventually(line.relayed, within=60)
    await eventually(lambda: line.led_by(STREAMS[1]), within=60)
    leader: str = await eventually(lambda: line.led_by(STREAMS[0]), within=60)
    await line.cluster.named(leader).kill()
    head = await line.log.head()
    await eventually(lambda: line.relayed((head.position, head.public_position)), within=60)
    await eventually(line.listened_to, within=60)
    await line.cluster.named(leader).start()
    placing.cancel()
    await eventually(line.all_is_there, within=60)
    await eventually(line.is_exact, within=60)
    async with line.sales.session() as (session, _):
        counted = (await session.execute(sa.text("SELECT sum(orders) FROM countries"))).scalar_one()
    assert counted == line.placed
    assert [alarm for relay in line.relays for status in relay.status() for alarm in status.alarms] == []
