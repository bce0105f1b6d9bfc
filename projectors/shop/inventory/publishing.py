"""What inventory makes public: that a product has run out or is back, and whether it has what an order takes."""

from __future__ import annotations

from collections.abc import Iterator

from ceqs.model import Reaction
from shop.inventory.v1.events_pb2 import (
    OrderReservationCompleted,
    OrderReservationFailed,
    ProductDepleted,
    ProductReplenished,
)
from shop.inventory.v1.inventory_ceqs import InventoryPublicEvent, InventoryPublisher
from shop.inventory.v1.public_events_pb2 import OrderReserved, OrderUnavailable, StockDepleted, StockReplenished


class PublishStock(InventoryPublisher):
    """Tells other services which products there are none of, and which orders have their stock.

    How much there is of a product is nobody's business.
    """

    def on_product_depleted(self, event: ProductDepleted, ctx: Reaction) -> Iterator[InventoryPublicEvent]:
        """Tell that the product has run out."""
        yield StockDepleted(product_code=event.product_code)

    def on_product_replenished(self, event: ProductReplenished, ctx: Reaction) -> Iterator[InventoryPublicEvent]:
        """Tell that it is back."""
        yield StockReplenished(product_code=event.product_code)

    def on_order_reservation_completed(
        self, event: OrderReservationCompleted, ctx: Reaction
    ) -> Iterator[InventoryPublicEvent]:
        """Tell that the order has all that it takes."""
        yield OrderReserved(order_id=event.order_id)

    def on_order_reservation_failed(
        self, event: OrderReservationFailed, ctx: Reaction
    ) -> Iterator[InventoryPublicEvent]:
        """Tell that it has nothing, and why."""
        yield OrderUnavailable(order_id=event.order_id, missing=event.missing)
