"""What the two services tell each other, and that they know nothing else of each other."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from ceqs.model import Reaction
from ceqs.testing import given
from shop.inventory.context import inventory
from shop.inventory.publishing import PublishStock
from shop.inventory.v1.commands_pb2 import MoveStockRequest, ReleaseOrderRequest, ReserveOrderRequest
from shop.inventory.v1.events_pb2 import (
    OrderReservationCompleted,
    OrderReservationFailed,
    ProductDepleted,
    ProductReplenished,
    StockReceived,
)
from shop.inventory.v1.public_events_pb2 import OrderReserved, OrderUnavailable, StockDepleted, StockReplenished
from shop.inventory.v1.types_pb2 import OrderLine
from shop.orders.context import orders
from shop.orders.publishing import PublishOrders
from shop.orders.stock_news import NoteStock
from shop.orders.v1.commands_pb2 import MarkProductAvailableRequest, MarkProductDepletedRequest
from shop.orders.v1.events_pb2 import OrderCancelled, OrderPlaced
from shop.orders.v1.public_events_pb2 import OrderAccepted, OrderWithdrawn, StockLine
from shop.orders.v1.types_pb2 import Line

HERE = Path(__file__).parents[3]
CTX = Reaction(event_id="1", position=1, recorded_at=Timestamp())
LINES = [
    Line(product_code="B", quantity=2, unit_price_micros=1),
    Line(product_code="POST", quantity=1, unit_price_micros=1, charge=True),
    Line(product_code="A", quantity=1, unit_price_micros=1),
    Line(product_code="B", quantity=3, unit_price_micros=2),
]
STOCK_LINES = [StockLine(product_code="B", quantity=5), StockLine(product_code="A", quantity=1)]


def test_an_accepted_order_names_each_product_once_and_no_charges() -> None:
    event = OrderPlaced(order_id="1", customer_id="17850", country="France", lines=LINES, total_micros=12)
    assert list(PublishOrders().on_order_placed(event, CTX)) == [OrderAccepted(order_id="1", lines=STOCK_LINES)]


def test_an_order_of_charges_alone_is_accepted_without_lines() -> None:
    assert list(PublishOrders().on_order_placed(OrderPlaced(order_id="1", lines=LINES[1:2]), CTX)) == [
        OrderAccepted(order_id="1")
    ]


def test_a_cancelled_order_is_withdrawn_with_what_it_took() -> None:
    assert list(PublishOrders().on_order_cancelled(OrderCancelled(order_id="1", lines=LINES), CTX)) == [
        OrderWithdrawn(order_id="1", lines=STOCK_LINES)
    ]


def test_inventory_reserves_what_an_accepted_order_takes() -> None:
    lines = [OrderLine(product_code="B", quantity=5), OrderLine(product_code="A", quantity=1)]
    given(inventory).hears(OrderAccepted(order_id="1", lines=STOCK_LINES)).sends(
        ReserveOrderRequest(order_id="1", lines=lines)
    )


def test_inventory_releases_what_a_withdrawn_order_took() -> None:
    given(inventory).hears(OrderWithdrawn(order_id="1", lines=STOCK_LINES)).sends(ReleaseOrderRequest(order_id="1"))


def test_inventory_publishes_what_became_of_a_reservation() -> None:
    given(inventory).hears(OrderReservationCompleted(order_id="1")).publishes(OrderReserved(order_id="1"))
    given(inventory).hears(OrderReservationFailed(order_id="1", missing=["A"])).publishes(
        OrderUnavailable(order_id="1", missing=["A"])
    )


def test_inventory_publishes_that_a_product_has_run_out_and_is_back() -> None:
    assert list(PublishStock().on_product_depleted(ProductDepleted(product_code="A"), CTX)) == [
        StockDepleted(product_code="A")
    ]
    assert list(PublishStock().on_product_replenished(ProductReplenished(product_code="A", on_hand=3), CTX)) == [
        StockReplenished(product_code="A")
    ]


def test_orders_marks_what_has_run_out_and_what_is_back() -> None:
    assert list(NoteStock().on_stock_depleted(StockDepleted(product_code="A"), CTX)) == [
        MarkProductDepletedRequest(product_code="A")
    ]
    assert list(NoteStock().on_stock_replenished(StockReplenished(product_code="A"), CTX)) == [
        MarkProductAvailableRequest(product_code="A")
    ]


def test_the_last_unit_of_an_order_comes_back_to_orders_as_a_mark() -> None:
    moved = given(inventory, StockReceived(product_code="A", quantity=1)).when(
        MoveStockRequest(product_code="A", order_id="1", quantity=1)
    )
    depleted = moved.events[-1]
    assert isinstance(depleted, ProductDepleted)
    (public,) = PublishStock().on_product_depleted(depleted, CTX)
    assert isinstance(public, StockDepleted)
    (command,) = NoteStock().on_stock_depleted(public, CTX)
    marked = given(orders).when(command)
    marked.when(command).changes_nothing()
    # No loop: nobody hears of the mark.
    assert not set(PublishOrders().ceqs_heard()) & {event.DESCRIPTOR.full_name for event in marked.events}


@pytest.mark.parametrize(("service", "other"), [("orders", "inventory"), ("inventory", "orders")])
def test_the_services_know_each_other_by_public_events_and_queries_only(service: str, other: str) -> None:
    package = f"shop.{other}.v1"
    allowed = {f"{package}.{name}" for name in (f"{other}_ceqs", "public_events_pb2", f"{other}_client", "queries_pb2")}
    for portion in ("server", "projectors"):
        for path in (HERE / portion / "shop" / service).glob("*.py"):
            imported = {
                node.module
                for node in ast.walk(ast.parse(path.read_text()))
                if isinstance(node, ast.ImportFrom) and node.module
            }
            assert {name for name in imported if name.startswith(f"shop.{other}.")} <= allowed, path
