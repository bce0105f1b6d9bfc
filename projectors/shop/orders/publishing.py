"""What orders makes public: of an order, only what has to leave the warehouse."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from ceqs.model import Reaction
from shop.orders.v1.events_pb2 import OrderCancelled, OrderPlaced
from shop.orders.v1.orders_ceqs import OrdersPublicEvent, OrdersPublisher
from shop.orders.v1.public_events_pb2 import OrderAccepted, OrderWithdrawn, StockLine
from shop.orders.v1.types_pb2 import Line


class PublishOrders(OrdersPublisher):
    """Tells other services which orders to deliver."""

    def on_order_placed(self, event: OrderPlaced, ctx: Reaction) -> Iterator[OrdersPublicEvent]:
        """Accept whatever was placed."""
        yield OrderAccepted(order_id=event.order_id, lines=_stock_lines(event.lines))

    def on_order_cancelled(self, event: OrderCancelled, ctx: Reaction) -> Iterator[OrdersPublicEvent]:
        """Withdraw whatever was cancelled."""
        yield OrderWithdrawn(order_id=event.order_id, lines=_stock_lines(event.lines))


def _stock_lines(lines: Iterable[Line]) -> list[StockLine]:
    """Give one line per product, in the order of their first mention; charges take no stock."""
    units: Counter[str] = Counter()
    for line in lines:
        if not line.charge:
            units[line.product_code] += line.quantity
    return [StockLine(product_code=code, quantity=quantity) for code, quantity in units.items()]
