"""What orders does when inventory tells that a product has run out, or is back."""

from __future__ import annotations

from collections.abc import Iterator

from ceqs.model import Reaction
from shop.inventory.v1.inventory_ceqs import InventorySubscriber
from shop.inventory.v1.public_events_pb2 import StockDepleted, StockReplenished
from shop.orders.v1.commands_pb2 import MarkProductAvailableRequest, MarkProductDepletedRequest
from shop.orders.v1.orders_ceqs import OrdersCommand


class NoteStock(InventorySubscriber):
    """Keeps the marks on products. Nothing follows from a mark, so inventory and orders cannot chase each other."""

    def on_stock_depleted(self, event: StockDepleted, ctx: Reaction) -> Iterator[OrdersCommand]:
        """Mark the product as depleted."""
        yield MarkProductDepletedRequest(product_code=event.product_code)

    def on_stock_replenished(self, event: StockReplenished, ctx: Reaction) -> Iterator[OrdersCommand]:
        """Mark the product as available."""
        yield MarkProductAvailableRequest(product_code=event.product_code)
