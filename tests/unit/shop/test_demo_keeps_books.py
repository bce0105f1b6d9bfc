"""The demo's books and documents: every row in exactly one place, and every number worth comparing."""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from ceqs.client import Outcome
from ceqs.errors import Invalid, Rejected
from ceqs.testing import Given, given
from shop.demo.books import Books, Part, keep_books
from shop.demo.documents import Documents, documents_of
from shop.demo.generator import write_csv
from shop.demo.replay import commands_in, replay
from shop.demo.rows import Row, Unreadable, read_rows
from shop.demo.verification import expected_events
from shop.inventory.context import inventory
from shop.inventory.v1.commands_pb2 import (
    ReceiveStockRequest,
)
from shop.inventory.v1.events_pb2 import StockReceived
from shop.inventory.v1.inventory_client import InventoryClient
from shop.orders.context import orders
from shop.orders.v1.commands_pb2 import PayOrderRequest, PlaceOrderRequest
from shop.orders.v1.events_pb2 import OrderPlaced
from shop.orders.v1.orders_client import OrdersClient

REAL = Path(__file__).parents[4] / "shared" / "data" / "online_retail.csv"
NOON = dt.datetime(2010, 12, 1, 12, tzinfo=dt.UTC)


def row(invoice: str, product: str, quantity: int, price: str, number: int = 1) -> Row:
    return Row(
        number=number,
        invoice=invoice,
        product=product,
        description=f"A {product}",
        quantity=quantity,
        time=NOON,
        price=Decimal(price),
        customer="",
        country="France",
    )


ROWS = [
    row("1", "A", 2, "1.50"),
    row("1", "A", 1, "1.40"),
    row("1", "POST", 1, "18"),
    row("1", "K", -4, "0"),
    row("2", "K", 3, "0.10"),
    row("C3", "A", -1, "1.50"),
    row("C4", "A", 1, "1.50"),
    row("5", "A", -2, "1.50"),
    row("6", "M", 1, "0"),
    row("7", "K", 6, "0"),
]


def opened(documents: Documents) -> dict[str, int]:
    return {product: units for product, (_, units) in documents.opening.items()}


def read(path: Path) -> tuple[list[Row | Unreadable], Documents, Books]:
    lines = list(read_rows(path))
    documents = documents_of(line for line in lines if isinstance(line, Row))
    return lines, documents, keep_books(lines, opened(documents), [trial.units for trial in documents.trials])


def test_every_row_stands_in_exactly_one_document() -> None:
    documents = documents_of(ROWS)
    assert [(order.number, len(order.rows)) for order in documents.orders] == [("1", 3), ("2", 1)]
    assert [note.number for note in documents.credit_notes] == ["C3", "C4"]
    assert [row.invoice for row in documents.adjustments] == ["1", "5", "6", "7"]


def test_the_opening_stock_covers_all_that_goes_out() -> None:
    documents = documents_of(ROWS)
    assert set(documents.opening) == {"A", "K"}
    assert opened(documents)["A"] >= 3 + 2
    # Units are found later, which may be after those that go out.
    assert opened(documents)["K"] > 3 + 4


def test_the_books_split_all_rows() -> None:
    turned_away = Unreadable(number=9, reason="MALFORMED_DATE", amount=Decimal("1.10"))
    books = keep_books([*ROWS, turned_away], {"A": 5, "K": 20})
    assert books.total == Part(11, Decimal("20.80"))
    assert books.sold == Part(4, Decimal("22.70"))
    assert books.credited == Part(1, Decimal("-1.50"))
    assert books.adjusted == Part(3, Decimal("-3.00"))
    assert books.rejected == {
        "QUANTITY_NOT_POSITIVE": Part(1, Decimal("1.50")),
        "PRODUCT_UNKNOWN": Part(1, Decimal(0)),
        "MALFORMED_DATE": Part(1, Decimal("1.10")),
    }
    assert books.sold.amount + books.credited.amount + books.adjusted.amount + books.rejected_total.amount == (
        books.total.amount
    )


def test_the_books_follow_the_stock() -> None:
    books = keep_books(ROWS, {"A": 5, "K": 20})
    assert (books.stock["A"].on_hand, books.stock["K"].on_hand) == (0, 19)
    assert books.depleted == {"A"}
    assert books.moves == 2
    assert expected_events(books) == {
        ("orders", False, "OrderPlaced"): 2,
        ("orders", True, "OrderAccepted"): 2,
        ("orders", False, "OrderConfirmed"): 2,
        ("orders", False, "OrderPaid"): 2,
        ("orders", False, "CreditNoteIssued"): 1,
        ("orders", False, "ProductMarkedDepleted"): 1,
        ("inventory", False, "StockReceived"): 2,
        ("inventory", False, "StockMoved"): 2,
        ("inventory", False, "OrderReservationBegun"): 2,
        ("inventory", False, "OrderReservationCompleted"): 2,
        ("inventory", True, "OrderReserved"): 2,
        ("inventory", False, "StockAdjusted"): 3,
        ("inventory", False, "ProductDepleted"): 1,
        ("inventory", True, "StockDepleted"): 1,
    }


def test_the_books_know_what_becomes_of_trials() -> None:
    books = keep_books(ROWS, {"A": 5, "K": 20}, [{"K": 1}, {"K": 2, "X": 1}])
    assert (books.stock["K"].moved, books.stock["K"].returned, books.stock["K"].on_hand) == (6, 3, 19)
    assert (books.expired, books.unavailable, books.returns, books.refusals) == (1, 1, 2, 1)
    assert books.sold == keep_books(ROWS, {"A": 5, "K": 20}).sold
    counts = expected_events(books)
    assert counts["orders", False, "OrderCancelled"] == counts["orders", True, "OrderWithdrawn"] == 2
    assert counts["orders", False, "OrderConfirmed"] == counts["inventory", True, "OrderReserved"] == 3
    assert counts["inventory", False, "StockReturned"] == 2


def test_trials_take_of_what_there_is_more_than_enough() -> None:
    documents = documents_of(ROWS)
    assert [trial.units for trial in documents.trials] == [{"A": 1}, {"A": 2, "NO SUCH PRODUCT": 1}]
    assert documents_of([row("1", "POST", 1, "18")]).trials == []


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ([row("1", "A", 2, "9000000000000")], "AMOUNT_OVERFLOW"),
        ([row("C1", "A", -2, "9000000000000")], "AMOUNT_OVERFLOW"),
        ([row("1", "A", -2, "9000000000000")], "AMOUNT_OVERFLOW"),
        ([row("C1", "A", -1, "0")], "PRICE_NOT_POSITIVE"),
        ([row("1", "A", -1, "-1")], "VALUE_NEGATIVE"),
        ([row("1", "A", 0, "0")], "QUANTITY_ZERO"),
        ([row("1", "A", 1, "1")] * 2001, "INVALID_ARGUMENT"),
    ],
)
async def test_the_books_know_what_the_services_refuse(rows: list[Row], reason: str) -> None:
    documents = documents_of(rows)
    books = keep_books(rows, opened(documents), [trial.units for trial in documents.trials])
    assert set(books.rejected) == {reason}
    assert books.commands == await outcomes(documents)


async def test_the_services_refuse_what_the_books_say_of_a_thousand_invented_rows(tmp_path: Path) -> None:
    write_csv(tmp_path / "rows.csv", rows=1000, seed=3)
    _, documents, books = read(tmp_path / "rows.csv")
    assert books.commands == await outcomes(documents)


@pytest.mark.skipif(not REAL.exists(), reason="the real transactions are not part of the project")
def test_the_real_transactions_add_up_to_the_penny() -> None:
    lines, documents, books = read(REAL)
    assert len(lines) == 10_000
    assert books.total == Part(10_000, Decimal("180667.75"))
    assert books.sold == Part(9854, Decimal("184248.33"))
    assert books.credited == Part(100, Decimal("-3580.58"))
    assert books.adjusted == Part(46, Decimal(0))
    assert not books.rejected
    assert (len(documents.orders), len(documents.credit_notes), len(documents.adjustments)) == (424, 43, 46)
    assert len(books.credited_by_country) == 3


async def test_every_command_has_an_id_of_its_own_that_is_the_same_in_every_run() -> None:
    documents = documents_of(dataclasses.replace(row, number=n) for n, row in enumerate(ROWS))
    first, second = FakeOrders(), FakeOrders()
    await replay(documents, first, FakeInventory(), lambda: None)
    await replay(documents, second, FakeInventory(), lambda: None)
    assert sorted(first.ids) == sorted(second.ids)
    assert len(set(first.ids)) == len(first.ids) == 8


async def test_the_opening_stock_is_in_before_anything_else_is_sent() -> None:
    ids: list[str] = []
    await replay(documents_of(ROWS), FakeOrders(ids), FakeInventory(ids), lambda: None)
    kinds = [name.partition("/")[0] for name in ids]
    assert kinds[:2] == ["opening"] * 2
    assert {kind: kinds[2:].count(kind) for kind in kinds[2:]} == {
        "trial": 2,
        "order": 2,
        "credit": 2,
        "adjustment": 4,
        "payment": 2,
    }


async def outcomes(documents: Documents) -> dict[tuple[str, str], int]:
    done: list[None] = []
    counts: dict[tuple[str, str], int] = {}
    for one in await replay(documents, FakeOrders(), FakeInventory(), lambda: done.append(None)):
        counts[one.command, one.reason] = counts.get((one.command, one.reason), 0) + 1
    assert len(done) == commands_in(documents)
    return counts


class FakeOrders(OrdersClient):
    """Decides as the service does, on a history without this document."""

    def __init__(self, ids: list[str] | None = None) -> None:
        self.ids = [] if ids is None else ids
        self.placed: dict[str, OrderPlaced] = {}

    async def execute_many(self, requests: Any, *, timeout: float | None = None) -> AsyncIterator[Outcome[Any]]:
        for command_id, request in requests:
            paying = isinstance(request, PayOrderRequest) and request.order_id in self.placed
            outcome = decide(
                given(orders, *([self.placed[request.order_id]] if paying else [])), request, self.ids, command_id
            )
            if isinstance(request, PlaceOrderRequest) and outcome.error is None:
                self.placed[request.order_id] = OrderPlaced(order_id=request.order_id)
            yield outcome


class FakeInventory(InventoryClient):
    """Decides as the service does, knowing what has been received."""

    def __init__(self, ids: list[str] | None = None) -> None:
        self.ids = [] if ids is None else ids
        self.received: list[StockReceived] = []

    async def execute_many(self, requests: Any, *, timeout: float | None = None) -> AsyncIterator[Outcome[Any]]:
        for command_id, request in requests:
            opening = isinstance(request, ReceiveStockRequest)
            yield decide(given(inventory, *([] if opening else self.received)), request, self.ids, command_id)
            if opening:
                self.received.append(StockReceived(product_code=request.product_code, quantity=request.quantity))


def decide(before: Given, request: Any, ids: list[str], command_id: str) -> Outcome[Any]:
    ids.append(command_id)
    result = before.when(request).result
    error = result if isinstance(result, (Rejected, Invalid)) else None
    return Outcome(request, command_id, error=error)
