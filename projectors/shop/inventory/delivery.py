"""What inventory does when orders tells that an order is to be delivered, or not after all."""

from __future__ import annotations

from collections.abc import Iterator

from ceqs.model import Reaction
from shop.inventory.v1.commands_pb2 import ReleaseOrderRequest, ReserveOrderRequest
from shop.inventory.v1.inventory_ceqs import InventoryCommand
from shop.inventory.v1.types_pb2 import OrderLine
from shop.orders.v1.orders_ceqs import OrdersSubscriber
from shop.orders.v1.public_events_pb2 import OrderAccepted, OrderWithdrawn


class DeliverOrders(OrdersSubscriber):
    """Has the stock of orders reserved and released."""

    def on_order_accepted(self, event: OrderAccepted, ctx: Reaction) -> Iterator[InventoryCommand]:
        """Reserve all that it takes."""
        lines = [OrderLine(product_code=line.product_code, quantity=line.quantity) for line in event.lines]
        yield ReserveOrderRequest(order_id=event.order_id, lines=lines)

    def on_order_withdrawn(self, event: OrderWithdrawn, ctx: Reaction) -> Iterator[InventoryCommand]:
        """Release whatever it has."""
        yield ReleaseOrderRequest(order_id=event.order_id)
