"""What inventory answers from its projection. What it answers from a state needs no code."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import case, func, select

from shop.inventory.stock_levels import StockRow
from shop.inventory.v1.inventory_ceqs import InventoryQueries
from shop.inventory.v1.queries_pb2 import (
    GetStockTotalsRequest,
    GetStockTotalsResponse,
    ListStockRequest,
    ListStockResponse,
    StockLevel,
)

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

PAGE = 100
SUMMED = (
    StockRow.received,
    StockRow.moved,
    StockRow.returned,
    StockRow.adjustments,
    StockRow.adjusted,
    StockRow.adjusted_micros,
    StockRow.on_hand,
)


class Queries(InventoryQueries):
    """Reads the stock levels."""

    async def list_stock(self, request: ListStockRequest, session: AsyncSession) -> ListStockResponse:
        """Give one page. Its token is the last code of the page before."""
        size = request.page_size or PAGE
        page = (
            select(StockRow)
            .where(StockRow.product_code > request.page_token)
            .order_by(StockRow.product_code)
            .limit(size + 1)
        )
        levels = [_level(row) for row in await session.scalars(page)]
        more = len(levels) > size
        return ListStockResponse(levels=levels[:size], next_page_token=levels[size - 1].product_code if more else "")

    async def get_stock_totals(self, request: GetStockTotalsRequest, session: AsyncSession) -> GetStockTotalsResponse:
        """Sum up all products."""
        sums = [func.coalesce(func.sum(column), 0).label(column.key) for column in SUMMED]
        empty = func.count(case((StockRow.on_hand == 0, 1))).label("depleted")
        row = (await session.execute(select(func.count().label("products"), empty, *sums))).mappings().one()
        # PostgreSQL sums bigints to numerics.
        return GetStockTotalsResponse(**{name: int(value) for name, value in row.items()})


def _level(row: StockRow) -> StockLevel:
    return StockLevel(
        product_code=row.product_code,
        description=row.description,
        received=row.received,
        moved=row.moved,
        returned=row.returned,
        adjusted=row.adjusted,
        on_hand=row.on_hand,
    )
