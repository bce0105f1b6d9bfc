"""What inventory answers from its projection. What it answers from a state needs no code."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import case, func, select

from ceqs.queries import read_page
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
        """Give one page."""
        stock = select(StockRow)
        if request.HasField("depleted"):
            stock = stock.where(StockRow.on_hand == 0 if request.depleted else StockRow.on_hand > 0)
        if request.product_codes:
            stock = stock.where(StockRow.product_code.in_(request.product_codes))
        page = await read_page(session, stock, request, by=[StockRow.product_code])
        return ListStockResponse(levels=map(_level, page.rows), next_page_token=page.next_page_token)

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
