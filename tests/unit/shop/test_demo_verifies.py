"""The demo's verification: one wrong number anywhere is found, and nothing else is blamed."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Callable
from decimal import Decimal

import pytest

from shop.demo.answers import Answers, Model
from shop.demo.books import Books, Sums, keep_books
from shop.demo.replay import Outcome
from shop.demo.report import Report
from shop.demo.rows import Row
from shop.demo.verification import expected_events, many, one, verify
from shop.inventory.v1.queries_pb2 import GetStockTotalsResponse, StockLevel
from shop.orders.v1.queries_pb2 import CountrySales, GetSalesResponse, ProductSales, SalesSums

NOON = dt.datetime(2010, 12, 1, 12, tzinfo=dt.UTC)
NONE = Sums()


def row(invoice: str, product: str, quantity: int, price: str, country: str = "France") -> Row:
    return Row(
        number=1,
        invoice=invoice,
        product=product,
        description="",
        quantity=quantity,
        time=NOON,
        price=Decimal(price),
        customer="",
        country=country,
    )


BOOKS = keep_books(
    [
        row("1", "A", 2, "1.50"),
        row("1", "POST", 1, "18"),
        row("2", "K", 3, "0.10", "Japan"),
        row("C3", "A", -1, "1.50"),
        row("C4", "A", 1, "1.50"),
        row("5", "A", -2, "1.50"),
    ],
    {"A": 4, "K": 20},
)
OUTCOMES = [
    Outcome("ReceiveStock", 0),
    Outcome("ReceiveStock", 0),
    Outcome("PlaceOrder", 2),
    Outcome("PlaceOrder", 1),
    Outcome("PayOrder", 0),
    Outcome("PayOrder", 0),
    Outcome("IssueCreditNote", 1),
    Outcome("IssueCreditNote", 1, "QUANTITY_NOT_POSITIVE"),
    Outcome("AdjustStock", 1),
]


def right(books: Books = BOOKS) -> Answers:
    """Give what a shop answers that has done everything right."""
    return Answers(
        sales=GetSalesResponse(
            total=SalesSums(
                orders=2,
                order_lines=3,
                sold_micros=21_300_000,
                credit_notes=1,
                credit_lines=1,
                credited_micros=1_500_000,
            ),
            countries=[
                CountrySales(
                    country="France",
                    sums=SalesSums(
                        orders=1,
                        order_lines=2,
                        sold_micros=21_000_000,
                        credit_notes=1,
                        credit_lines=1,
                        credited_micros=1_500_000,
                    ),
                ),
                CountrySales(country="Japan", sums=SalesSums(orders=1, order_lines=1, sold_micros=300_000)),
            ],
        ),
        products=[
            ProductSales(
                product_code="A",
                sold_quantity=2,
                sold_micros=3_000_000,
                credited_quantity=1,
                credited_micros=1_500_000,
            ),
            ProductSales(product_code="POST", sold_quantity=1, sold_micros=18_000_000),
            ProductSales(product_code="K", sold_quantity=3, sold_micros=300_000),
        ],
        totals=GetStockTotalsResponse(adjusted_micros=-3_000_000, adjustments=1, on_hand=17),
        levels=[
            StockLevel(product_code="A", received=4, moved=2, adjusted=-2),
            StockLevel(product_code="K", received=20, moved=3, on_hand=17),
        ],
        events=Counter(expected_events(books)),
        marked=Counter({"A": 1}),
        models=[Model("orders", "Sales", "projection", 5, 5, NOON, 0, 0, "")],
    )


def differing(answers: Answers, outcomes: list[Outcome] = OUTCOMES) -> list[str]:
    return [check.name for check in verify(BOOKS, outcomes, answers) if not check.holds]


def test_nothing_differs_where_all_is_right() -> None:
    assert differing(right()) == []


def penny_short(answers: Answers) -> None:
    answers.sales.total.sold_micros -= 10_000


def millionth_too_much(answers: Answers) -> None:
    answers.sales.total.credited_micros += 1


def wrong_country(answers: Answers) -> None:
    answers.sales.countries[1].country = "Norway"


def product_missing(answers: Answers) -> None:
    answers.products.pop()


def adjusted_twice(answers: Answers) -> None:
    answers.totals.adjusted_micros *= 2


def never_returned(answers: Answers) -> None:
    answers.levels[1].returned -= 1


def moved_twice(answers: Answers) -> None:
    answers.levels[0].moved *= 2


def event_repeated(answers: Answers) -> None:
    answers.events["orders", False, "OrderPlaced"] += 1


def event_nobody_expects(answers: Answers) -> None:
    answers.events["inventory", True, "StockReplenished"] += 1


def marked_twice(answers: Answers) -> None:
    answers.marked["A"] += 1


@pytest.mark.parametrize(
    ("spoil", "found"),
    [
        (penny_short, "sold, in pounds"),
        (millionth_too_much, "credited, in pounds"),
        (wrong_country, "sales by country"),
        (product_missing, "sales by product"),
        (adjusted_twice, "adjusted, in pounds"),
        (moved_twice, "stock by product"),
        (never_returned, "stock by product"),
        (event_repeated, "events by type"),
        (event_nobody_expects, "events by type"),
        (marked_twice, "products marked as depleted, once"),
    ],
)
def test_one_wrong_number_is_found(spoil: Callable[[Answers], None], found: str) -> None:
    answers = right()
    spoil(answers)
    assert differing(answers) == [found]


def test_a_comparison_names_the_first_difference() -> None:
    sales = {"France": (1, Decimal("2.00")), "Japan": (1, Decimal(3))}
    assert many("sales", sales, {**sales, "France": (1, Decimal("2.01"))}).told == (
        "France: (1, 2.01) instead of (1, 2.00)"
    )
    assert many("sales", sales, sales).told == "all 2 the same"
    assert many("sales", {}, {"Spain": 1}).told == "Spain: 1 instead of None"
    assert one("rows", 1000, 999).told == "999 instead of 1,000"


def test_a_command_that_came_out_otherwise_is_found() -> None:
    other = [*OUTCOMES[:-1], Outcome("AdjustStock", 1, "STOCK_WOULD_BE_NEGATIVE")]
    assert differing(right(), other) == ["commands by outcome", "rows accepted"]


@pytest.mark.parametrize(
    ("model", "found"),
    [
        (Model("orders", "Sales", "projection", 4, 5, NOON, 0, 0, ""), "events that models lack"),
        (Model("orders", "note-stock", "subscriber", 5, 5, NOON, 0, 1, ""), "commands refused to subscribers"),
        (Model("orders", "expire-orders", "subscriber", 5, 5, NOON, 0, 0, "", 1), "timers that have not fired"),
    ],
)
def test_a_model_that_lags_or_was_refused_is_found(model: Model, found: str) -> None:
    answers = right()
    answers.models.append(model)
    assert differing(answers) == [found]


def test_a_report_with_one_difference_is_not_verified() -> None:
    answers = right()
    penny_short(answers)
    checks = verify(BOOKS, OUTCOMES, answers)
    report = Report("rows.csv", 1.0, {}, OUTCOMES, answers, BOOKS, checks)
    assert not report.verified
    assert report.as_json()["verified"] is False
    assert [line["shop_and_books"] for line in report.as_json()["verification"] if line["result"] == "DIFFERS"] == [
        "21.29 instead of 21.30"
    ]
