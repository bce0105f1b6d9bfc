"""What orders knows of its events when it decides."""

from __future__ import annotations

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
from shop.orders.v1.orders_ceqs import (
    CreditNoteFoldBase,
    OrderFoldBase,
    ProductFoldBase,
    ReviewFoldBase,
    WithdrawalsFoldBase,
)
from shop.orders.v1.states_pb2 import CreditNote, Order, OrderStatus, Product, Review, Withdrawals


class OrderFold(OrderFoldBase):
    """An order from its placing to its cancellation."""

    def on_order_placed(self, order: Order, event: OrderPlaced) -> None:
        """Take over what was placed."""
        order.status = OrderStatus.ORDER_STATUS_PLACED
        order.customer_id = event.customer_id
        order.country = event.country
        order.lines.extend(event.lines)
        order.total_micros = event.total_micros
        order.ordered_at.CopyFrom(event.ordered_at)
        if event.HasField("pay_within"):
            order.pay_within.CopyFrom(event.pay_within)

    def on_order_paid(self, order: Order, event: OrderPaid) -> None:
        """Remember when."""
        order.paid_at.CopyFrom(event.paid_at)

    def on_order_confirmed(self, order: Order, event: OrderConfirmed) -> None:
        """Remember that its stock is reserved."""
        order.status = OrderStatus.ORDER_STATUS_CONFIRMED
        order.confirmed_at.CopyFrom(event.confirmed_at)

    def on_order_cancelled(self, order: Order, event: OrderCancelled) -> None:
        """Remember the order, as cancelled: its number is not free again."""
        order.status = OrderStatus.ORDER_STATUS_CANCELLED
        order.cancelled_at.CopyFrom(event.cancelled_at)


class CreditNoteFold(CreditNoteFoldBase):
    """A credit note, once it is issued."""

    def on_credit_note_issued(self, credit_note: CreditNote, event: CreditNoteIssued) -> None:
        """Take over what was issued."""
        credit_note.customer_id = event.customer_id
        credit_note.country = event.country
        credit_note.lines.extend(event.lines)
        credit_note.total_micros = event.total_micros
        credit_note.issued_at.CopyFrom(event.issued_at)


class ProductFold(ProductFoldBase):
    """Whether the warehouse has a product."""

    def on_product_marked_depleted(self, product: Product, event: ProductMarkedDepleted) -> None:
        """Set the mark."""
        product.depleted = True

    def on_product_marked_available(self, product: Product, event: ProductMarkedAvailable) -> None:
        """Take the mark off."""
        product.depleted = False

    def on_product_withdrawn(self, product: Product, event: ProductWithdrawn) -> None:
        """Out of the assortment, for good."""
        product.withdrawn = True


class WithdrawalsFold(WithdrawalsFoldBase):
    """The products that are out of the assortment."""

    def on_product_withdrawn(self, withdrawals: Withdrawals, event: ProductWithdrawn) -> None:
        """One more."""
        withdrawals.products[event.product_code] = True


class ReviewFold(ReviewFoldBase):
    """An order among the withdrawals, in the order in which they were recorded."""

    def on_order_placed(self, review: Review, event: OrderPlaced) -> None:
        """Whatever was withdrawn by now should not have been ordered."""
        OrderFold().on_order_placed(review.order, event)
        review.order.order_id = event.order_id
        codes = dict.fromkeys(line.product_code for line in event.lines)
        review.slipped_through.extend(code for code in codes if code in review.withdrawn)

    def on_order_cancelled(self, review: Review, event: OrderCancelled) -> None:
        """There is nothing left to do."""
        OrderFold().on_order_cancelled(review.order, event)

    def on_product_withdrawn(self, review: Review, event: ProductWithdrawn) -> None:
        """From now on."""
        review.withdrawn[event.product_code] = True
