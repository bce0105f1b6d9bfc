"""What inventory makes public: that a product has run out, and that it is back."""

from __future__ import annotations

from collections.abc import Iterator

from ceqs.model import Reaction
from shop.inventory.v1.events_pb2 import ProductDepleted, ProductReplenished
from shop.inventory.v1.inventory_ceqs import InventoryPublicEvent, InventoryPublisher
from shop.inventory.v1.public_events_pb2 import StockDepleted, StockReplenished


class PublishStock(InventoryPublisher):
    """Tells other services which products there are none of. How many there are is nobody's business."""

    def on_product_depleted(self, event: ProductDepleted, ctx: Reaction) -> Iterator[InventoryPublicEvent]:
        """Tell that the product has run out."""
        yield StockDepleted(product_code=event.product_code)

    def on_product_replenished(self, event: ProductReplenished, ctx: Reaction) -> Iterator[InventoryPublicEvent]:
        """Tell that it is back."""
        yield StockReplenished(product_code=event.product_code)
