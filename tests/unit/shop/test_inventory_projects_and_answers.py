"""The projection of inventory, filled by its handlers and read by its queries, on a real database."""

from __future__ import annotations

import datetime as dt
from collections.abc import AsyncIterator

import pytest
from google.protobuf.message import Message
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

from ceqs.model import Recorded
from shop.inventory.queries import Queries
from shop.inventory.stock_levels import StockLevels
from shop.inventory.v1.events_pb2 import StockAdjusted, StockMoved, StockReceived, StockReturned
from shop.inventory.v1.queries_pb2 import (
    GetStockTotalsRequest,
    GetStockTotalsResponse,
    ListStockRequest,
    StockLevel,
)

META = Recorded(
    event_id="1", type="", position=1, public_position=0, recorded_at=dt.datetime(2010, 12, 1, tzinfo=dt.UTC)
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


@pytest.fixture
async def session() -> AsyncIterator[AsyncSession]:
    engine = create_async_engine("sqlite+aiosqlite://")
    async with engine.begin() as connection:
        await connection.run_sync(StockLevels.metadata.create_all)
    async with AsyncSession(engine) as session:
        yield session
    await engine.dispose()


async def project(session: AsyncSession, *events: Message) -> None:
    heard = StockLevels().ceqs_heard()
    for event in events:
        await heard[event.DESCRIPTOR.full_name](session, event, META)
        await session.commit()


async def test_every_movement_counts_where_it_belongs(session: AsyncSession) -> None:
    await project(session, *EVENTS)
    answer = await Queries().list_stock(ListStockRequest(), session)
    assert list(answer.levels) == [
        StockLevel(product_code="A", description="A LANTERN", received=10, moved=4, returned=4, adjusted=2, on_hand=12),
        StockLevel(product_code="B", received=5, moved=4, adjusted=-1),
    ]


async def test_the_stock_list_comes_in_pages(session: AsyncSession) -> None:
    await project(session, *EVENTS)
    first = await Queries().list_stock(ListStockRequest(page_size=1), session)
    last = await Queries().list_stock(ListStockRequest(page_size=1, page_token=first.next_page_token), session)
    assert [level.product_code for level in (*first.levels, *last.levels)] == ["A", "B"]
    assert last.next_page_token == ""


@pytest.mark.parametrize(("depleted", "codes"), [(None, ["A", "B"]), (True, ["B"]), (False, ["A"])])
async def test_the_stock_list_may_be_of_what_is_left_or_of_what_is_not(
    session: AsyncSession, depleted: bool | None, codes: list[str]
) -> None:
    await project(session, *EVENTS)
    answer = await Queries().list_stock(ListStockRequest(depleted=depleted), session)
    assert [level.product_code for level in answer.levels] == codes


async def test_the_totals_sum_up_all_products(session: AsyncSession) -> None:
    await project(session, *EVENTS)
    assert await Queries().get_stock_totals(GetStockTotalsRequest(), session) == GetStockTotalsResponse(
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


async def test_an_empty_warehouse_sums_up_to_nothing(session: AsyncSession) -> None:
    assert await Queries().get_stock_totals(GetStockTotalsRequest(), session) == GetStockTotalsResponse()
