"""The context `orders`: everything that fills in its contract."""

from __future__ import annotations

from shop.orders.commands import Orders
from shop.orders.customer_history import CustomerHistory
from shop.orders.folds import CreditNoteFold, OrderFold, ProductFold, ReviewFold, WithdrawalsFold
from shop.orders.gatekeeper import Assortment
from shop.orders.overview import Overviews
from shop.orders.payment import ExpireOrders
from shop.orders.publishing import PublishOrders
from shop.orders.queries import Queries
from shop.orders.reservations import FollowReservations
from shop.orders.sales import Sales
from shop.orders.stock_news import NoteStock
from shop.orders.v1.orders_ceqs import OrdersContext
from shop.orders.withdrawals import ReviewOrders

orders = OrdersContext(
    commands=Orders(),
    folds=[OrderFold(), CreditNoteFold(), ProductFold(), WithdrawalsFold(), ReviewFold()],
    gatekeepers=[Assortment()],
    projections=[Sales(), CustomerHistory()],
    publishers=[PublishOrders()],
    subscribers=[NoteStock(), FollowReservations(), ExpireOrders(), ReviewOrders()],
    queries=[Queries(), Overviews()],
)
