"""What orders does when inventory tells whether it has what an order takes."""

from __future__ import annotations

from collections.abc import Iterator

from ceqs.model import Reaction
from shop.inventory.v1.inventory_ceqs import InventorySubscriber
from shop.inventory.v1.public_events_pb2 import OrderReserved, OrderUnavailable
from shop.orders.v1.commands_pb2 import CancelOrderRequest, ConfirmOrderRequest
from shop.orders.v1.orders_ceqs import OrdersCommand

NAMED = 5
"""How many missing products the reason of a cancellation names."""


class FollowReservations(InventorySubscriber):
    """Confirms what is reserved, and cancels what the warehouse has not."""

    def on_order_reserved(self, event: OrderReserved, ctx: Reaction) -> Iterator[OrdersCommand]:
        """Confirm the order."""
        yield ConfirmOrderRequest(order_id=event.order_id)

    def on_order_unavailable(self, event: OrderUnavailable, ctx: Reaction) -> Iterator[OrdersCommand]:
        """Cancel the order."""
        more = f" and {len(event.missing) - NAMED} more" if event.missing[NAMED:] else ""
        named = ", ".join(code if len(code) <= 30 else f"{code[:29]}…" for code in event.missing[:NAMED])
        yield CancelOrderRequest(order_id=event.order_id, reason=f"out of stock: {named}{more}")
