"""What inventory knows of its events when it decides."""

from __future__ import annotations

from shop.inventory.v1.events_pb2 import (
    OrderReservationBegun,
    OrderReservationCompleted,
    OrderReservationFailed,
    OrderReservationReleased,
    StockAdjusted,
    StockMoved,
    StockReceived,
    StockReturned,
)
from shop.inventory.v1.inventory_ceqs import ReservationFoldBase, StockFoldBase
from shop.inventory.v1.states_pb2 import Reservation, ReservationStatus, Stock


class StockFold(StockFoldBase):
    """The stock of one product, and which orders took of it."""

    def on_stock_received(self, stock: Stock, event: StockReceived) -> None:
        """Know the product, and add what came."""
        stock.known = True
        stock.on_hand += event.quantity

    def on_stock_moved(self, stock: Stock, event: StockMoved) -> None:
        """Take away what the order took, and remember it."""
        stock.on_hand -= event.quantity
        stock.moved[event.order_id] = event.quantity

    def on_stock_returned(self, stock: Stock, event: StockReturned) -> None:
        """Add what the order gave back, and go on to remember the order: it takes no more."""
        stock.on_hand += event.quantity
        stock.moved[event.order_id] = 0

    def on_stock_adjusted(self, stock: Stock, event: StockAdjusted) -> None:
        """Follow the shelf."""
        stock.on_hand += event.quantity


class ReservationFold(ReservationFoldBase):
    """How far the reservation of an order has come."""

    def on_order_reservation_begun(self, reservation: Reservation, event: OrderReservationBegun) -> None:
        """Wait for its products."""
        reservation.status = ReservationStatus.RESERVATION_STATUS_BEGUN

    def on_order_reservation_completed(self, reservation: Reservation, event: OrderReservationCompleted) -> None:
        """Remember that it has them."""
        reservation.status = ReservationStatus.RESERVATION_STATUS_COMPLETED

    def on_order_reservation_failed(self, reservation: Reservation, event: OrderReservationFailed) -> None:
        """Remember that it has nothing."""
        reservation.status = ReservationStatus.RESERVATION_STATUS_FAILED

    def on_order_reservation_released(self, reservation: Reservation, event: OrderReservationReleased) -> None:
        """Remember that it wants nothing any more."""
        reservation.status = ReservationStatus.RESERVATION_STATUS_RELEASED
