"""The shop's answers beside the books: every number must be the same."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import TypeVar, cast

from shop.demo.answers import Answers
from shop.demo.books import Books, Level, Sums
from shop.demo.replay import Outcome
from shop.inventory.v1.queries_pb2 import StockLevel
from shop.orders.v1.queries_pb2 import ProductSales, SalesSums

K = TypeVar("K", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Check:
    """One comparison, and what it showed."""

    name: str
    holds: bool
    told: str
    """What the shop answers; where it differs, the first difference."""


def one(name: str, expected: Decimal | int, found: Decimal | int) -> Check:
    """Compare a number of the books with one of the shop."""
    if expected == found:
        return Check(name, True, _shown(found))
    return Check(name, False, f"{_shown(found)} instead of {_shown(expected)}")


def many(name: str, expected: Mapping[K, object], found: Mapping[K, object]) -> Check:
    """Compare a table of the books with one of the shop."""
    for key in sorted({*expected, *found}, key=str):
        here, there = found.get(key), expected.get(key)
        if here != there:
            return Check(name, False, f"{_shown(key)}: {_shown(here)} instead of {_shown(there)}")
    return Check(name, True, f"all {len(found):,} the same")


def verify(books: Books, outcomes: Iterable[Outcome], answers: Answers) -> list[Check]:
    """Compare everything."""
    outcomes = list(outcomes)
    sales, stock = answers.sales.total, answers.totals
    parts = (books.sold, books.credited, books.adjusted, books.rejected_total)
    levels = books.stock.values()
    return [
        one("rows accounted for", books.total.rows, sum(part.rows for part in parts)),
        one("pounds accounted for", books.total.amount, sum((part.amount for part in parts), Decimal(0))),
        many("commands by outcome", dict(books.commands), dict(Counter((o.command, o.reason) for o in outcomes))),
        one("rows accepted", books.total.rows - parts[3].rows, sum(o.rows for o in outcomes if not o.reason)),
        one("sold, in pounds", books.sold.amount, pounds(sales.sold_micros)),
        one("credited, in pounds", -books.credited.amount, pounds(sales.credited_micros)),
        one("adjusted, in pounds", books.adjusted.amount, pounds(stock.adjusted_micros)),
        one("order lines", books.sold.rows, sales.order_lines),
        one("credit lines", books.credited.rows, sales.credit_lines),
        one("adjustments", books.adjusted.rows, stock.adjustments),
        many("sales by country", _by_country(books), {c.country: _country(c.sums) for c in answers.sales.countries}),
        many("sales by product", _by_product(books), {p.product_code: _product(p) for p in answers.products}),
        many(
            "stock by product",
            {code: _level(level) for code, level in books.stock.items()},
            {line.product_code: _level(line) for line in answers.levels},
        ),
        one("units on hand", sum(level.on_hand for level in levels), stock.on_hand),
        many("events by type", expected_events(books), dict(answers.events)),
        many("products marked as depleted, once", dict.fromkeys(books.depleted, 1), dict(answers.marked)),
        one("commands refused to subscribers", 0, sum(model.refused for model in answers.models)),
        one("timers that have not fired", 0, sum(model.timers for model in answers.models)),
        one("events that models lack", 0, sum(model.lag for model in answers.models)),
    ]


def expected_events(books: Books) -> dict[tuple[str, bool, str], int]:
    """Give how many events of each type there must be: by context, whether they are public, and type."""
    orders, depleted = books.commands["PlaceOrder", ""], len(books.depleted)
    reserved, lost = orders - books.unavailable, books.unavailable + books.expired
    counts = {
        ("orders", False, "OrderPlaced"): orders,
        ("orders", True, "OrderAccepted"): orders,
        ("orders", False, "OrderConfirmed"): reserved,
        ("orders", False, "OrderPaid"): books.commands["PayOrder", ""],
        ("orders", False, "OrderCancelled"): lost,
        ("orders", True, "OrderWithdrawn"): lost,
        ("orders", False, "CreditNoteIssued"): books.commands["IssueCreditNote", ""],
        ("orders", False, "ProductMarkedDepleted"): depleted,
        ("inventory", False, "StockReceived"): books.commands["ReceiveStock", ""],
        ("inventory", False, "StockMoved"): books.moves,
        ("inventory", False, "StockReturned"): books.returns,
        ("inventory", False, "StockRefused"): books.refusals,
        ("inventory", False, "OrderReservationBegun"): orders,
        ("inventory", False, "OrderReservationCompleted"): reserved,
        ("inventory", False, "OrderReservationFailed"): books.unavailable,
        ("inventory", False, "OrderReservationReleased"): books.expired,
        ("inventory", True, "OrderReserved"): reserved,
        ("inventory", True, "OrderUnavailable"): books.unavailable,
        ("inventory", False, "StockAdjusted"): books.commands["AdjustStock", ""],
        ("inventory", False, "ProductDepleted"): depleted,
        ("inventory", True, "StockDepleted"): depleted,
    }
    return {key: count for key, count in counts.items() if count}


def pounds(micros: int) -> Decimal:
    """Give millionths of a pound as pounds, exactly."""
    return Decimal(micros).scaleb(-6)


def _by_country(books: Books) -> dict[str, tuple[object, ...]]:
    countries = {*books.sold_by_country, *books.credited_by_country}
    none = Sums()
    return {
        country: _beside(books.sold_by_country.get(country, none), books.credited_by_country.get(country, none))
        for country in countries
    }


def _beside(sold: Sums, credited: Sums) -> tuple[object, ...]:
    return (sold.documents, sold.lines, sold.amount, credited.documents, credited.lines, credited.amount)


def _country(sums: SalesSums) -> tuple[object, ...]:
    return (
        sums.orders,
        sums.order_lines,
        pounds(sums.sold_micros),
        sums.credit_notes,
        sums.credit_lines,
        pounds(sums.credited_micros),
    )


def _level(level: Level | StockLevel) -> tuple[object, ...]:
    return (level.received, level.moved, level.returned, level.adjusted, level.on_hand)


def _by_product(books: Books) -> dict[str, tuple[object, ...]]:
    none = Sums()
    found: dict[str, tuple[object, ...]] = {}
    for code in {*books.sold_by_product, *books.credited_by_product}:
        sold, credited = books.sold_by_product.get(code, none), books.credited_by_product.get(code, none)
        found[code] = (sold.units, sold.amount, credited.units, credited.amount)
    return found


def _product(product: ProductSales) -> tuple[object, ...]:
    return (
        product.sold_quantity,
        pounds(product.sold_micros),
        product.credited_quantity,
        pounds(product.credited_micros),
    )


def _shown(value: object) -> str:
    if isinstance(value, Decimal):
        return f"{value:,.2f}" if value == round(value, 2) else f"{value:,}"
    if isinstance(value, tuple):
        return f"({', '.join(map(_shown, cast('tuple[object, ...]', value)))})"
    if isinstance(value, bool) or not isinstance(value, int):
        return str(value)
    return f"{value:,}"
