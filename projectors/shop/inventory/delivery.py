"""What inventory does when orders tells that an order is to be delivered, or not after all."""

from __future__ import annotations

from collections.abc import Iterator

from ceqs.model import Reaction
from shop.inventory.v1.commands_pb2 import MoveStockRequest, ReturnStockRequest
from shop.inventory.v1.inventory_ceqs import InventoryCommand
from shop.orders.v1.orders_ceqs import OrdersSubscriber
from shop.orders.v1.public_events_pb2 import OrderAccepted, OrderWithdrawn


class DeliverOrders(OrdersSubscriber):
    """Moves the stock of orders, product by product: one that is short holds up no other."""

    def on_order_accepted(self, event: OrderAccepted, ctx: Reaction) -> Iterator[InventoryCommand]:
        """Move each product out."""
        for line in event.lines:
            yield MoveStockRequest(product_code=line.product_code, order_id=event.order_id, quantity=line.quantity)

    def on_order_withdrawn(self, event: OrderWithdrawn, ctx: Reaction) -> Iterator[InventoryCommand]:
        """Put each product back."""
        for line in event.lines:
            yield ReturnStockRequest(product_code=line.product_code, order_id=event.order_id)
