"""The context `orders`: everything that fills in its contract."""

from __future__ import annotations

from shop.orders.commands import Orders
from shop.orders.customer_history import CustomerHistory
from shop.orders.folds import CreditNoteFold, OrderFold, ProductFold
from shop.orders.payment import ExpireOrders
from shop.orders.publishing import PublishOrders
from shop.orders.queries import Queries
from shop.orders.reservations import FollowReservations
from shop.orders.sales import Sales
from shop.orders.stock_news import NoteStock
from shop.orders.v1.orders_ceqs import OrdersContext

orders = OrdersContext(
    commands=Orders(),
    folds=[OrderFold(), CreditNoteFold(), ProductFold()],
    projections=[Sales(), CustomerHistory()],
    publishers=[PublishOrders()],
    subscribers=[NoteStock(), FollowReservations(), ExpireOrders()],
    queries=Queries(),
)
