"""What the README says of handlers that ask and act elsewhere: an invoice is sent for each order that is paid."""

from __future__ import annotations

from dataclasses import dataclass, field

from ceqs.model import Reaction
from ceqs.testing import given
from shop.orders.commands import Orders
from shop.orders.customer_history import CustomerHistory
from shop.orders.folds import CreditNoteFold, OrderFold, ProductFold, ReviewFold, WithdrawalsFold
from shop.orders.overview import Overviews
from shop.orders.queries import Queries
from shop.orders.sales import Sales
from shop.orders.v1.events_pb2 import OrderPaid
from shop.orders.v1.orders_ceqs import OrdersAsker, OrdersContext, OrdersPrivateSubscriber
from shop.orders.v1.queries_pb2 import GetOrderRequest, GetOrderResponse
from shop.orders.v1.states_pb2 import Order


@dataclass
class Bank:
    """Remembers what it was asked for."""

    invoices: dict[str, tuple[str, int]] = field(default_factory=dict[str, tuple[str, int]])

    async def invoice(self, customer_id: str, micros: int, *, idempotency_key: str) -> None:
        self.invoices[idempotency_key] = customer_id, micros


class SendInvoices(OrdersPrivateSubscriber):
    def __init__(self, bank: Bank) -> None:
        self.bank = bank

    async def on_order_paid(self, event: OrderPaid, ctx: Reaction[OrdersAsker]) -> None:
        order = (await ctx.ask.get_order(GetOrderRequest(order_id=event.order_id))).message.order
        await self.bank.invoice(order.customer_id, order.total_micros, idempotency_key=ctx.event_id)


def test_whoever_has_paid_gets_an_invoice() -> None:
    bank = Bank()
    orders = OrdersContext(
        commands=Orders(),
        folds=[OrderFold(), CreditNoteFold(), ProductFold(), WithdrawalsFold(), ReviewFold()],
        projections=[Sales(), CustomerHistory()],
        subscribers=[SendInvoices(bank)],
        queries=[Queries(), Overviews()],
    )
    answer = GetOrderRequest(order_id="1"), GetOrderResponse(order=Order(customer_id="Ada", total_micros=5))
    given(orders).hears(OrderPaid(order_id="1"), answers=[answer]).does_nothing()
    assert list(bank.invoices.values()) == [("Ada", 5)]
