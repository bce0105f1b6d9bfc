"""What inventory decides."""

from __future__ import annotations

from collections.abc import Generator, Iterator

from ceqs.errors import Rejected
from ceqs.model import Decision
from shop.inventory.v1.commands_pb2 import (
    AdjustStockRequest,
    MoveStockRequest,
    ReceiveStockRequest,
    ReceiveStockResponse,
    ReleaseOrderRequest,
    ReserveOrderRequest,
    ReturnStockRequest,
    SettleOrderRequest,
)
from shop.inventory.v1.events_pb2 import (
    OrderReservationBegun,
    OrderReservationCompleted,
    OrderReservationFailed,
    OrderReservationReleased,
    ProductDepleted,
    ProductReplenished,
    StockAdjusted,
    StockMoved,
    StockReceived,
    StockRefused,
    StockReturned,
)
from shop.inventory.v1.inventory_ceqs import InventoryCommands, InventoryEvent
from shop.inventory.v1.states_pb2 import Reservation, ReservationStatus, Stock
from shop.inventory.v1.types_pb2 import AdjustmentReason

LARGEST = 2**63 - 1
"""What an int64 holds."""


class Inventory(InventoryCommands):
    """Keeps the warehouse: no product has fewer than no units."""

    def receive_stock(
        self, request: ReceiveStockRequest, stock: Stock, ctx: Decision
    ) -> Generator[InventoryEvent, None, ReceiveStockResponse]:
        """Take stock in. The first receipt makes the product known."""
        _require_positive(request.quantity)
        on_hand = _on_hand_after(stock, request.quantity)
        yield StockReceived(
            product_code=request.product_code, description=request.description, quantity=request.quantity
        )
        yield from _turn(stock, on_hand)
        return ReceiveStockResponse(on_hand=on_hand)

    def reserve_order(
        self, request: ReserveOrderRequest, reservation: Reservation, ctx: Decision
    ) -> Iterator[InventoryEvent]:
        """Begin, once. What follows is a process: FulfilOrders."""
        codes = [line.product_code for line in request.lines]
        if len(set(codes)) < len(codes):
            raise Rejected("PRODUCT_TWICE", f"order {request.order_id} names a product twice")
        if not reservation.status:
            yield OrderReservationBegun(order_id=request.order_id, lines=request.lines)

    def settle_order(
        self, request: SettleOrderRequest, reservation: Reservation, ctx: Decision
    ) -> Iterator[InventoryEvent]:
        """Say what became of a reservation that has begun."""
        _require_reservation(reservation)
        if reservation.status == ReservationStatus.RESERVATION_STATUS_BEGUN:
            if request.missing:
                yield OrderReservationFailed(order_id=request.order_id, missing=request.missing)
            else:
                yield OrderReservationCompleted(order_id=request.order_id)

    def release_order(
        self, request: ReleaseOrderRequest, reservation: Reservation, ctx: Decision
    ) -> Iterator[InventoryEvent]:
        """Release what has begun or is completed."""
        _require_reservation(reservation)
        if reservation.status in _RELEASABLE:
            yield OrderReservationReleased(order_id=request.order_id)

    def move_stock(self, request: MoveStockRequest, stock: Stock, ctx: Decision) -> Iterator[InventoryEvent]:
        """Move all that the order takes of the product, or nothing, once."""
        _require_positive(request.quantity)
        if request.order_id in stock.moved:
            return
        code, order_id, quantity = stock.product_code, request.order_id, request.quantity
        if quantity > stock.on_hand:
            yield StockRefused(product_code=code, order_id=order_id, quantity=quantity)
            return
        yield StockMoved(product_code=code, order_id=order_id, quantity=quantity)
        yield from _turn(stock, stock.on_hand - quantity)

    def return_stock(self, request: ReturnStockRequest, stock: Stock, ctx: Decision) -> Iterator[InventoryEvent]:
        """Put back what the order had moved, once."""
        _require_known(stock)
        if request.order_id not in stock.moved:
            raise Rejected("NOTHING_MOVED", f"order {request.order_id} has moved no {stock.product_code}")
        quantity = stock.moved[request.order_id]
        if quantity:
            on_hand = _on_hand_after(stock, quantity)
            yield StockReturned(product_code=stock.product_code, order_id=request.order_id, quantity=quantity)
            yield from _turn(stock, on_hand)

    def adjust_stock(self, request: AdjustStockRequest, stock: Stock, ctx: Decision) -> Iterator[InventoryEvent]:
        """Correct the books, but not to less than nothing."""
        if request.quantity == 0:
            raise Rejected("QUANTITY_ZERO", "there is nothing to adjust")
        if request.unit_value_micros < 0:
            raise Rejected("VALUE_NEGATIVE", f"no unit of {stock.product_code} is worth less than nothing")
        if abs(request.quantity) * request.unit_value_micros > LARGEST:
            raise Rejected("AMOUNT_OVERFLOW", f"the adjustment is worth more than {LARGEST} millionths")
        _require_known(stock)
        on_hand = _on_hand_after(stock, request.quantity)
        if on_hand < 0:
            raise Rejected(
                "STOCK_WOULD_BE_NEGATIVE",
                f"{-request.quantity} of {stock.product_code} are missing, of which {stock.on_hand} are left",
            )
        yield StockAdjusted(
            product_code=stock.product_code,
            quantity=request.quantity,
            unit_value_micros=request.unit_value_micros,
            reason=request.reason or AdjustmentReason.ADJUSTMENT_REASON_COUNTED,
            note=request.note,
        )
        yield from _turn(stock, on_hand)


def _require_positive(quantity: int) -> None:
    if quantity <= 0:
        raise Rejected("QUANTITY_NOT_POSITIVE", f"the quantity is {quantity}")


_RELEASABLE = (ReservationStatus.RESERVATION_STATUS_BEGUN, ReservationStatus.RESERVATION_STATUS_COMPLETED)


def _require_reservation(reservation: Reservation) -> None:
    if not reservation.status:
        raise Rejected("ORDER_UNKNOWN", f"nobody reserved anything for order {reservation.order_id}")


def _require_known(stock: Stock) -> None:
    if not stock.known:
        raise Rejected("PRODUCT_UNKNOWN", f"the warehouse has never received {stock.product_code}")


def _on_hand_after(stock: Stock, change: int) -> int:
    on_hand = stock.on_hand + change
    if on_hand > LARGEST:
        raise Rejected("STOCK_OVERFLOW", f"the stock of {stock.product_code} would be {on_hand}, beyond {LARGEST}")
    return on_hand


def _turn(stock: Stock, on_hand: int) -> Iterator[InventoryEvent]:
    """Say so where a change empties the shelf, or fills one that was empty."""
    if stock.on_hand > 0 and on_hand == 0:
        yield ProductDepleted(product_code=stock.product_code)
    if stock.known and stock.on_hand == 0 and on_hand > 0:
        yield ProductReplenished(product_code=stock.product_code, on_hand=on_hand)
