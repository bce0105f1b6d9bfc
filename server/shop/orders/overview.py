"""How things stand with a customer: what orders knows, and what the warehouse has."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from ceqs.client import Answer
from ceqs.queries import Gathering
from shop.inventory.v1.inventory_client import InventoryClient
from shop.inventory.v1.queries_pb2 import ListStockRequest, ListStockResponse
from shop.orders.v1.orders_ceqs import CustomerQueries, OrdersAsker
from shop.orders.v1.queries_pb2 import (
    GetCustomerOverviewRequest,
    GetCustomerOverviewResponse,
    GetOrderRequest,
    ListCustomerHistoryRequest,
    OpenLine,
    OpenOrder,
)
from shop.orders.v1.states_pb2 import Order, OrderStatus

NEWEST = 10
MOST = 1000
PATIENCE = 0.5
"""Seconds that the warehouse has: an overview without it is better than none."""


class Overviews(CustomerQueries):
    """Asks orders for its part, and inventory for its own."""

    async def get_customer_overview(
        self, request: GetCustomerOverviewRequest, ctx: Gathering[OrdersAsker]
    ) -> GetCustomerOverviewResponse:
        """Give the open orders, with the stock where the warehouse says in time."""
        asked = ListCustomerHistoryRequest(customer_id=request.customer_id, page_size=MOST)
        history = await ctx.part("history", ctx.ask.list_customer_history(asked))
        numbers = [one.order_id for one in history.entries if one.order_id and not one.cancelled][-NEWEST:]
        parts = [ctx.part(f"order {one}", ctx.ask.get_order(GetOrderRequest(order_id=one))) for one in numbers]
        # The history may not have heard yet of what the order itself knows.
        orders = [order for part in parts if (order := (await part).order).status != _CANCELLED]
        codes = sorted({line.product_code for order in orders for line in order.lines if not line.charge})
        on_hand: dict[str, int] = {}
        if codes and (stock := await ctx.optional("stock", _stock(ctx, codes[:MOST]), within=PATIENCE)):
            on_hand = {level.product_code: level.on_hand for level in stock.levels}
        return GetCustomerOverviewResponse(
            documents=len(history.entries), open_orders=[_open(order, on_hand) for order in reversed(orders)]
        )


_CANCELLED = OrderStatus.ORDER_STATUS_CANCELLED


async def _stock(ctx: Gathering[OrdersAsker], codes: Iterable[str]) -> Answer[ListStockResponse]:
    return await ctx.service(InventoryClient).list_stock(ListStockRequest(product_code=codes, page_size=MOST))


def _open(order: Order, on_hand: dict[str, int]) -> OpenOrder:
    units: Counter[str] = Counter()
    for line in order.lines:
        if not line.charge:
            units[line.product_code] += line.quantity
    lines = [OpenLine(product_code=code, quantity=count, on_hand=on_hand.get(code)) for code, count in units.items()]
    return OpenOrder(order_id=order.order_id, ordered_at=order.ordered_at, total_micros=order.total_micros, lines=lines)
