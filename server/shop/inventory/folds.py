"""What inventory knows of its events when it decides."""

from __future__ import annotations

from shop.inventory.v1.events_pb2 import StockAdjusted, StockMoved, StockReceived, StockReturned
from shop.inventory.v1.inventory_ceqs import StockFoldBase
from shop.inventory.v1.states_pb2 import Stock


class StockFold(StockFoldBase):
    """The stock of one product, and which orders took of it."""

    def on_stock_received(self, stock: Stock, event: StockReceived) -> None:
        """Know the product, and add what came."""
        stock.known = True
        stock.on_hand += event.quantity

    def on_stock_moved(self, stock: Stock, event: StockMoved) -> None:
        """Take away what the order took, and remember it."""
        stock.on_hand -= event.quantity
        stock.moved[event.order_id] = event.quantity

    def on_stock_returned(self, stock: Stock, event: StockReturned) -> None:
        """Add what the order gave back, and go on to remember the order: it takes no more."""
        stock.on_hand += event.quantity
        stock.moved[event.order_id] = 0

    def on_stock_adjusted(self, stock: Stock, event: StockAdjusted) -> None:
        """Follow the shelf."""
        stock.on_hand += event.quantity
