"""The keyed model `StockLevel`: what came, went and is left of every product."""

from __future__ import annotations

from ceqs.model import Recorded
from shop.inventory.v1.events_pb2 import StockAdjusted, StockMoved, StockReceived, StockReturned
from shop.inventory.v1.inventory_ceqs import StockLevelProjection
from shop.inventory.v1.queries_pb2 import StockLevel


class StockLevels(StockLevelProjection):
    """Adds up the movements of every product."""

    def on_stock_received(self, stock_level: StockLevel, event: StockReceived, meta: Recorded) -> None:
        """Count what came."""
        stock_level.description = event.description or stock_level.description
        stock_level.received += event.quantity
        _move(stock_level, event.quantity)

    def on_stock_moved(self, stock_level: StockLevel, event: StockMoved, meta: Recorded) -> None:
        """Count what an order took."""
        stock_level.moved += event.quantity
        _move(stock_level, -event.quantity)

    def on_stock_returned(self, stock_level: StockLevel, event: StockReturned, meta: Recorded) -> None:
        """Count what an order gave back."""
        stock_level.returned += event.quantity
        _move(stock_level, event.quantity)

    def on_stock_adjusted(self, stock_level: StockLevel, event: StockAdjusted, meta: Recorded) -> None:
        """Count what was found or is missing."""
        stock_level.adjustments += 1
        stock_level.adjusted += event.quantity
        stock_level.adjusted_micros += event.quantity * event.unit_value_micros
        _move(stock_level, event.quantity)


def _move(stock_level: StockLevel, quantity: int) -> None:
    stock_level.on_hand += quantity
    stock_level.depleted = stock_level.on_hand == 0
