"""What orders decides."""

from __future__ import annotations

from collections.abc import Iterator

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from ceqs.errors import Rejected
from ceqs.model import Decision
from shop.orders.lines import total_of
from shop.orders.v1.commands_pb2 import (
    CancelOrderRequest,
    ConfirmOrderRequest,
    ExpireOrderRequest,
    IssueCreditNoteRequest,
    MarkProductAvailableRequest,
    MarkProductDepletedRequest,
    PayOrderRequest,
    PlaceOrderRequest,
    ReviewOrderRequest,
    WithdrawProductRequest,
)
from shop.orders.v1.events_pb2 import (
    CreditNoteIssued,
    OrderCancelled,
    OrderConfirmed,
    OrderPaid,
    OrderPlaced,
    ProductMarkedAvailable,
    ProductMarkedDepleted,
    ProductWithdrawn,
)
from shop.orders.v1.orders_ceqs import OrderCommands, OrdersEvent
from shop.orders.v1.states_pb2 import CreditNote, Order, OrderStatus, Product, Review

TWO_WEEKS = Duration(seconds=14 * 24 * 60 * 60)


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
            pay_within=request.pay_within if request.HasField("pay_within") else TWO_WEEKS,
        )

    def pay_order(self, request: PayOrderRequest, order: Order, ctx: Decision) -> Iterator[OrdersEvent]:
        """Note the payment of an order that is not cancelled, once."""
        _require_placed(order)
        _require_not_cancelled(order)
        if not order.HasField("paid_at"):
            yield OrderPaid(order_id=order.order_id, paid_at=ctx.now)

    def confirm_order(self, request: ConfirmOrderRequest, order: Order, ctx: Decision) -> Iterator[OrdersEvent]:
        """Confirm an order once, and give it its time to be paid."""
        _require_placed(order)
        if order.status == OrderStatus.ORDER_STATUS_PLACED:
            expires_at = None
            if not order.HasField("paid_at"):
                expires_at = Timestamp()
                # Orders of earlier builds do not say how long.
                within = order.pay_within if order.HasField("pay_within") else TWO_WEEKS
                expires_at.FromNanoseconds(ctx.now.ToNanoseconds() + within.ToNanoseconds())
            yield OrderConfirmed(order_id=order.order_id, confirmed_at=ctx.now, expires_at=expires_at)

    def expire_order(self, request: ExpireOrderRequest, order: Order, ctx: Decision) -> Iterator[OrdersEvent]:
        """Cancel an order that is neither paid nor cancelled: whoever was faster than the timer has won."""
        _require_placed(order)
        if order.status != OrderStatus.ORDER_STATUS_CANCELLED and not order.HasField("paid_at"):
            yield _cancelled(order, "not paid in time", ctx)

    def cancel_order(self, request: CancelOrderRequest, order: Order, ctx: Decision) -> Iterator[OrdersEvent]:
        """Cancel an order that was placed, once."""
        _require_placed(order)
        _require_not_cancelled(order)
        yield _cancelled(order, request.reason, ctx)

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

    def withdraw_product(
        self, request: WithdrawProductRequest, product: Product, ctx: Decision
    ) -> Iterator[OrdersEvent]:
        """Withdraw a product once. Orders that were placed before stand."""
        if not product.withdrawn:
            yield ProductWithdrawn(product_code=request.product_code)

    def review_order(self, request: ReviewOrderRequest, review: Review, ctx: Decision) -> Iterator[OrdersEvent]:
        """Cancel what slipped through: the gatekeeper had not heard of the withdrawal yet, or could not be asked."""
        order = review.order
        if review.slipped_through and order.status != OrderStatus.ORDER_STATUS_CANCELLED:
            reason = f"withdrawn: {', '.join(review.slipped_through)}"
            yield _cancelled(order, reason[:200], ctx)


def _require_placed(order: Order) -> None:
    if not order.status:
        raise Rejected("ORDER_UNKNOWN", f"nobody placed an order {order.order_id}")


def _require_not_cancelled(order: Order) -> None:
    if order.status == OrderStatus.ORDER_STATUS_CANCELLED:
        raise Rejected("ORDER_ALREADY_CANCELLED", f"order {order.order_id} was cancelled before")


def _cancelled(order: Order, reason: str, ctx: Decision) -> OrderCancelled:
    """Say what the order was, for those who hear it and do not remember the order."""
    return OrderCancelled(
        order_id=order.order_id,
        customer_id=order.customer_id,
        country=order.country,
        lines=order.lines,
        total_micros=order.total_micros,
        reason=reason,
        cancelled_at=ctx.now,
    )
