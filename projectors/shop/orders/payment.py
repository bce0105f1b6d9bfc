"""What orders does when an order is not paid in time."""

from __future__ import annotations

from collections.abc import Iterable

from ceqs.model import Reaction
from shop.orders.v1.commands_pb2 import ExpireOrderRequest
from shop.orders.v1.events_pb2 import OrderCancelled, OrderConfirmed, OrderPaid
from shop.orders.v1.orders_ceqs import OrdersCommand, OrdersPrivateSubscriber


class ExpireOrders(OrdersPrivateSubscriber):
    """Gives each confirmed order its time to be paid. The timers' keys are the orders' numbers."""

    def on_order_confirmed(self, event: OrderConfirmed, ctx: Reaction) -> Iterable[OrdersCommand]:
        """Set the timer, unless it is paid."""
        if event.HasField("expires_at"):
            ctx.schedule(ExpireOrderRequest(order_id=event.order_id), key=event.order_id, at=event.expires_at)
        return ()

    def on_order_paid(self, event: OrderPaid, ctx: Reaction) -> Iterable[OrdersCommand]:
        """Stop the timer."""
        ctx.cancel(event.order_id)
        return ()

    def on_order_cancelled(self, event: OrderCancelled, ctx: Reaction) -> Iterable[OrdersCommand]:
        """Stop the timer."""
        ctx.cancel(event.order_id)
        return ()
