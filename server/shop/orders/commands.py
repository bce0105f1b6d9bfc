"""What orders decides."""

from __future__ import annotations

from collections.abc import Iterator

from ceqs.errors import Rejected
from ceqs.model import Decision
from shop.orders.lines import total_of
from shop.orders.v1.commands_pb2 import (
    CancelOrderRequest,
    IssueCreditNoteRequest,
    MarkProductAvailableRequest,
    MarkProductDepletedRequest,
    PlaceOrderRequest,
)
from shop.orders.v1.events_pb2 import (
    CreditNoteIssued,
    OrderCancelled,
    OrderPlaced,
    ProductMarkedAvailable,
    ProductMarkedDepleted,
)
from shop.orders.v1.orders_ceqs import OrderCommands, OrdersEvent
from shop.orders.v1.states_pb2 import CreditNote, Order, OrderStatus, Product


class Orders(OrderCommands):
    """Takes orders and gives credit."""

    def place_order(self, request: PlaceOrderRequest, order: Order, ctx: Decision) -> Iterator[OrdersEvent]:
        """Place an order once, if it has lines with positive quantities and prices."""
        if order.status:
            raise Rejected("ORDER_EXISTS", f"order {request.order_id} was placed before")
        yield OrderPlaced(
            order_id=request.order_id,
            customer_id=request.customer_id,
            country=request.country,
            lines=request.lines,
            total_micros=total_of(request.lines),
            ordered_at=request.ordered_at if request.HasField("ordered_at") else ctx.now,
        )

    def cancel_order(self, request: CancelOrderRequest, order: Order, ctx: Decision) -> Iterator[OrdersEvent]:
        """Cancel an order that was placed, once."""
        if not order.status:
            raise Rejected("ORDER_UNKNOWN", f"nobody placed an order {request.order_id}")
        if order.status == OrderStatus.ORDER_STATUS_CANCELLED:
            raise Rejected("ORDER_ALREADY_CANCELLED", f"order {request.order_id} was cancelled before")
        yield OrderCancelled(
            order_id=order.order_id,
            customer_id=order.customer_id,
            country=order.country,
            lines=order.lines,
            total_micros=order.total_micros,
            reason=request.reason,
            cancelled_at=ctx.now,
        )

    def issue_credit_note(
        self, request: IssueCreditNoteRequest, credit_note: CreditNote, ctx: Decision
    ) -> Iterator[OrdersEvent]:
        """Issue a credit note once, over positive amounts."""
        if credit_note.lines:
            raise Rejected("CREDIT_NOTE_EXISTS", f"credit note {request.credit_note_id} was issued before")
        yield CreditNoteIssued(
            credit_note_id=request.credit_note_id,
            customer_id=request.customer_id,
            country=request.country,
            lines=request.lines,
            total_micros=total_of(request.lines),
            issued_at=request.issued_at if request.HasField("issued_at") else ctx.now,
        )

    def mark_product_depleted(
        self, request: MarkProductDepletedRequest, product: Product, ctx: Decision
    ) -> Iterator[OrdersEvent]:
        """Mark a product that has no mark. Cancels nothing."""
        if not product.depleted:
            yield ProductMarkedDepleted(product_code=request.product_code)

    def mark_product_available(
        self, request: MarkProductAvailableRequest, product: Product, ctx: Decision
    ) -> Iterator[OrdersEvent]:
        """Take the mark off a product that has one."""
        if product.depleted:
            yield ProductMarkedAvailable(product_code=request.product_code)
