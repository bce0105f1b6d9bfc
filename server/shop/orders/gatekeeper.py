"""What orders refuses before it decides."""

from __future__ import annotations

from ceqs.errors import Rejected
from ceqs.model import Admission, gate
from shop.orders.v1.commands_pb2 import PlaceOrderRequest
from shop.orders.v1.orders_ceqs import OrderGatekeeper, OrdersAsker
from shop.orders.v1.queries_pb2 import GetWithdrawalsRequest


class Assortment(OrderGatekeeper):
    """Lets nobody order what was withdrawn.

    No boundary includes the whole assortment, so an order may be recorded at the moment of a withdrawal, and none is
    refused while nobody knows what is withdrawn. `ReviewOrders` finds both afterwards.
    """

    @gate(within=0.5, when_down="open")
    async def place_order(self, request: PlaceOrderRequest, ctx: Admission[OrdersAsker]) -> None:
        """Ask which products are withdrawn."""
        withdrawn = (await ctx.ask.get_withdrawals(GetWithdrawalsRequest())).message.withdrawals.products
        for line in request.lines:
            if line.product_code in withdrawn:
                raise Rejected("PRODUCT_WITHDRAWN", f"{line.product_code} is not in the assortment any more")
