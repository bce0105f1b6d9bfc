"""The process of fulfilling an order: all that it takes is moved out for it, or nothing."""

from __future__ import annotations

from collections.abc import Iterator

from ceqs.model import Reaction
from shop.inventory.v1.commands_pb2 import MoveStockRequest, ReturnStockRequest, SettleOrderRequest
from shop.inventory.v1.events_pb2 import OrderReservationBegun, OrderReservationReleased, StockMoved, StockRefused
from shop.inventory.v1.inventory_ceqs import FulfilmentProcess, InventoryCommand
from shop.inventory.v1.states_pb2 import Fulfilment


class FulfilOrders(FulfilmentProcess):
    """Moves each product, waits for every answer, and puts back what was moved in vain."""

    def on_order_reservation_begun(
        self, event: OrderReservationBegun, fulfilment: Fulfilment, ctx: Reaction
    ) -> Iterator[InventoryCommand]:
        """Ask for each product."""
        fulfilment.open.extend(line.product_code for line in event.lines)
        for line in event.lines:
            yield MoveStockRequest(product_code=line.product_code, order_id=event.order_id, quantity=line.quantity)
        yield from _settled(fulfilment)

    def on_stock_moved(self, event: StockMoved, fulfilment: Fulfilment, ctx: Reaction) -> Iterator[InventoryCommand]:
        """Count the product, or put it back at once where the order is lost already."""
        if event.product_code in fulfilment.open:
            fulfilment.open.remove(event.product_code)
            fulfilment.moved.append(event.product_code)
            yield from _settled(fulfilment)

    def on_stock_refused(
        self, event: StockRefused, fulfilment: Fulfilment, ctx: Reaction
    ) -> Iterator[InventoryCommand]:
        """Give the order up."""
        if event.product_code in fulfilment.open:
            fulfilment.open.remove(event.product_code)
            fulfilment.missing.append(event.product_code)
            yield from _settled(fulfilment)

    def on_order_reservation_released(
        self, event: OrderReservationReleased, fulfilment: Fulfilment, ctx: Reaction
    ) -> Iterator[InventoryCommand]:
        """Put back what it has, and what is yet to come."""
        fulfilment.released = True
        yield from _settled(fulfilment)


def _settled(fulfilment: Fulfilment) -> Iterator[InventoryCommand]:
    """Compensate where the order is lost, and say what became of it when every product is answered for."""
    lost = fulfilment.released or fulfilment.missing
    if lost:
        for product in fulfilment.moved:
            yield ReturnStockRequest(product_code=product, order_id=fulfilment.order_id)
        del fulfilment.moved[:]
    if not fulfilment.open:
        if not fulfilment.released:
            yield SettleOrderRequest(order_id=fulfilment.order_id, missing=fulfilment.missing)
        if lost:
            fulfilment.Clear()  # it is over; an order that was fulfilled may still be withdrawn
