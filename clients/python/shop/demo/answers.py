"""What the running shop answers in the end: its queries, its events and where its models stand."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import grpc.aio

from ceqs.client import ContextClient
from ceqs.errors import Unavailable
from ceqs.model import Context
from ceqs.projectors import HandlerStatus, read_status
from ceqs.v1.events_pb2 import GetHeadRequest, Head
from ceqs.v1.events_pb2_grpc import EventsServiceStub
from shop.demo.system import System
from shop.inventory.context import inventory
from shop.inventory.v1.queries_pb2 import (
    GetStockTotalsRequest,
    GetStockTotalsResponse,
    ListStockRequest,
    StockLevel,
)
from shop.orders.context import orders
from shop.orders.v1.events_pb2 import ProductMarkedDepleted
from shop.orders.v1.queries_pb2 import GetSalesRequest, GetSalesResponse, ListProductSalesRequest, ProductSales

CONTEXTS: dict[str, Context] = {"orders": orders, "inventory": inventory}
PAGE = 1000
PAUSE = 0.4
"""Seconds between two looks at the models."""
STANDSTILL = 60.0
"""Seconds without any progress after which the wait is given up."""


@dataclass(frozen=True, slots=True)
class Model:
    """Where a projection, publisher or subscriber stands."""

    context: str
    name: str
    kind: str
    position: int
    head: int
    """The last position of what it follows."""
    recorded_at: dt.datetime | None
    unsent: int
    refused: int
    """How many of its commands were not accepted."""
    problem: str
    timers: int = 0
    """Commands whose time is yet to come."""

    @property
    def lag(self) -> int:
        """How many events it is behind."""
        return self.head - self.position

    @property
    def idle(self) -> bool:
        """It has done everything that there is to do."""
        return not (self.lag or self.unsent or self.timers or self.problem)


@dataclass(frozen=True, slots=True)
class Answers:
    """What the shop answers."""

    sales: GetSalesResponse
    products: list[ProductSales]
    totals: GetStockTotalsResponse
    levels: list[StockLevel]
    events: Counter[tuple[str, bool, str]]
    """By context, whether they are public, and type."""
    marked: Counter[str]
    """The products that orders marked as depleted, and how often."""
    models: list[Model]


async def caught_up(system: System, progress: Callable[[int, int], None]) -> list[Model]:
    """Wait until nothing is left to do anywhere; give where the models stand.

    `progress` hears how many positions the models have reached, and how many there are. Raises Unavailable, naming
    a model, when nothing has moved for a minute.
    """
    clock = asyncio.get_running_loop().time
    before: list[Model] = []
    moved, stood = clock(), list[tuple[int, int, int]]()
    while True:
        models = await _models(system)
        # A model that fails in one way and then in another has not moved.
        stand = [(model.position, model.head, model.unsent) for model in models]
        progress(sum(model.position for model in models), sum(model.head for model in models))
        # Twice the same: whatever one model set off between being looked at and the next would have moved a log.
        if models and all(model.idle for model in models) and models == before:
            return models
        before = models
        if stand != stood:
            moved, stood = clock(), stand
        elif clock() - moved > STANDSTILL:
            late = next((model for model in models if not model.idle), None)
            raise Unavailable(
                f"{late.name} of {late.context} stands at {late.position} of {late.head}, {late.unsent} unsent, "
                f"{late.timers} timers: "
                f"{late.problem or 'no problem known'}"
                if late
                else "a service does not answer"
            )
        await asyncio.sleep(PAUSE)


async def ask(system: System, models: list[Model]) -> Answers:
    """Ask everything that the books can answer too."""
    events: Counter[tuple[str, bool, str]] = Counter()
    marked: Counter[str] = Counter()
    clients: dict[str, ContextClient] = {"orders": system.orders, "inventory": system.inventory}
    for context, client in clients.items():
        async for event in client.events(scope="private", live=False):
            events[context, bool(event.public_position), event.type.rpartition(".")[2]] += 1
            if isinstance(event.message, ProductMarkedDepleted):
                marked[event.message.product_code] += 1
    return Answers(
        sales=(await system.orders.get_sales(GetSalesRequest())).message,
        products=await _products(system),
        totals=(await system.inventory.get_stock_totals(GetStockTotalsRequest())).message,
        levels=await _levels(system),
        events=events,
        marked=marked,
        models=models,
    )


async def _models(system: System) -> list[Model]:
    """Say where every model stands; nothing while a service is away."""
    try:
        heads = {
            "orders": await _head(system.orders, system.key),
            "inventory": await _head(system.inventory, system.key),
        }
    except grpc.aio.AioRpcError:
        return []
    return [
        _model(name, status, heads[status.source])
        for name, context in CONTEXTS.items()
        for status in await read_status(system.models_url, context)
    ]


def _model(context: str, status: HandlerStatus, head: Head) -> Model:
    return Model(
        context=context,
        name=status.name,
        kind=status.kind,
        position=status.position,
        head=head.position if status.source == context else head.public_position,
        recorded_at=status.recorded_at,
        unsent=status.unsent,
        refused=status.refused,
        problem=status.reason or (status.state if status.state in ("missing", "paused") else ""),
        timers=status.timers,
    )


async def _head(client: ContextClient, key: str) -> Head:
    stub = EventsServiceStub(client.channel)
    return (await stub.GetHead(GetHeadRequest(), metadata=(("ceqs-key", key),), timeout=5)).head


async def _products(system: System) -> list[ProductSales]:
    products: list[ProductSales] = []
    request = ListProductSalesRequest(page_size=PAGE)
    while True:
        page = (await system.orders.list_product_sales(request)).message
        products.extend(page.products)
        if not page.next_page_token:
            return products
        request.page_token = page.next_page_token


async def _levels(system: System) -> list[StockLevel]:
    levels: list[StockLevel] = []
    request = ListStockRequest(page_size=PAGE)
    while True:
        page = (await system.inventory.list_stock(request)).message
        levels.extend(page.levels)
        if not page.next_page_token:
            return levels
        request.page_token = page.next_page_token
