"""What orders does about an order that the gatekeeper should not have let pass."""

from __future__ import annotations

from collections.abc import Iterator

from ceqs.model import Reaction
from shop.orders.v1.commands_pb2 import ReviewOrderRequest
from shop.orders.v1.events_pb2 import OrderPlaced
from shop.orders.v1.orders_ceqs import OrdersCommand, OrdersPrivateSubscriber


class ReviewOrders(OrdersPrivateSubscriber):
    """Has every order looked at once more, against what is recorded of its products."""

    def on_order_placed(self, event: OrderPlaced, ctx: Reaction) -> Iterator[OrdersCommand]:
        """Look at what is no charge."""
        codes = dict.fromkeys(line.product_code for line in event.lines if not line.charge)
        if codes:
            yield ReviewOrderRequest(order_id=event.order_id, product_codes=codes)
