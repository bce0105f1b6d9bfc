"""What inventory answers with code. What is one state or one row of a model, or a list of them, needs none."""

from __future__ import annotations

from ceqs.queries import Rows
from shop.inventory.v1.inventory_ceqs import InventoryQueries
from shop.inventory.v1.queries_pb2 import GetStockTotalsRequest, GetStockTotalsResponse, StockLevel

SUMMED = ("depleted", "received", "moved", "returned", "adjustments", "adjusted", "adjusted_micros", "on_hand")


class Queries(InventoryQueries):
    """Reads the stock levels."""

    async def get_stock_totals(self, request: GetStockTotalsRequest, rows: Rows[StockLevel]) -> GetStockTotalsResponse:
        """Sum up all products."""
        levels = await rows.where()
        sums = {name: sum(getattr(level, name) for level in levels) for name in SUMMED}
        return GetStockTotalsResponse(products=len(levels), **sums)
