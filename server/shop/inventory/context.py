"""The context `inventory`: everything that fills in its contract."""

from __future__ import annotations

from shop.inventory.commands import Inventory
from shop.inventory.delivery import DeliverOrders
from shop.inventory.folds import ReservationFold, StockFold
from shop.inventory.fulfilment import FulfilOrders
from shop.inventory.publishing import PublishStock
from shop.inventory.queries import Queries
from shop.inventory.stock_levels import StockLevels
from shop.inventory.v1.inventory_ceqs import InventoryContext

inventory = InventoryContext(
    commands=Inventory(),
    folds=[StockFold(), ReservationFold()],
    projections=[StockLevels()],
    publishers=[PublishStock()],
    subscribers=[DeliverOrders(), FulfilOrders()],
    queries=Queries(),
)
