"""The books, kept by hand: what the shop must answer in the end, computed from the rows alone.

Nothing here is shared with the services or with the replay, not even the sorting of rows into documents.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal

from shop.demo.rows import Row, Unreadable

NOT_GOODS = {"POST", "D", "M", "DOT", "C2", "BANK CHARGES", "AMAZONFEE", "B", "CRUK", "PADS", "S"}
MOST_LINES = 2000
TRIAL_COUNTRY = "United Kingdom"
LARGEST = Decimal(2**63 - 1).scaleb(-6)
"""Pounds that an int64 of millionths holds."""


@dataclass(slots=True)
class Part:
    """A part of the rows: how many, and what they are worth in pounds."""

    rows: int = 0
    amount: Decimal = Decimal(0)

    def add(self, rows: Iterable[Row | Unreadable]) -> None:
        """Add rows."""
        for row in rows:
            self.rows += 1
            self.amount += row.amount


@dataclass(slots=True)
class Sums:
    """Documents, lines, units and pounds: of orders, or of credit notes."""

    documents: int = 0
    lines: int = 0
    units: int = 0
    amount: Decimal = Decimal(0)


@dataclass(slots=True)
class Level:
    """Units of a product."""

    received: int = 0
    moved: int = 0
    returned: int = 0
    adjusted: int = 0

    @property
    def on_hand(self) -> int:
        """What is left."""
        return self.received - self.moved + self.returned + self.adjusted


@dataclass(slots=True)
class Books:
    """What came of all rows."""

    total: Part = field(default_factory=Part)
    sold: Part = field(default_factory=Part)
    credited: Part = field(default_factory=Part)
    adjusted: Part = field(default_factory=Part)
    rejected: dict[str, Part] = field(default_factory=lambda: defaultdict(Part))
    """By reason; the reader's reasons and the services'."""
    commands: Counter[tuple[str, str]] = field(default_factory=Counter[tuple[str, str]])
    """By command and reason; the reason is empty where it is accepted."""
    sold_by_country: dict[str, Sums] = field(default_factory=lambda: defaultdict(Sums))
    credited_by_country: dict[str, Sums] = field(default_factory=lambda: defaultdict(Sums))
    sold_by_product: dict[str, Sums] = field(default_factory=lambda: defaultdict(Sums))
    credited_by_product: dict[str, Sums] = field(default_factory=lambda: defaultdict(Sums))
    stock: dict[str, Level] = field(default_factory=lambda: defaultdict(Level))
    moves: int = 0
    """How often an order takes a product from the warehouse."""
    returns: int = 0
    """How often an order that came to nothing gives one back."""
    refusals: int = 0
    """How often the warehouse has too little of a product for an order."""
    unavailable: int = 0
    """Orders that the warehouse could not deliver whole."""
    expired: int = 0
    """Orders that nobody paid."""

    @property
    def rejected_total(self) -> Part:
        """All rejected rows."""
        parts = self.rejected.values()
        return Part(sum(part.rows for part in parts), sum((part.amount for part in parts), Decimal(0)))

    @property
    def depleted(self) -> set[str]:
        """The products of which nothing is left."""
        return {product for product, level in self.stock.items() if level.on_hand == 0}


def keep_books(
    lines: Iterable[Row | Unreadable], opening: Mapping[str, int], trials: Iterable[Mapping[str, int]] = ()
) -> Books:
    """Go through the lines of the file, with the units that the warehouse opens with.

    `trials` are the units of further orders, which nobody pays: they come to nothing in the end.
    """
    books = Books()
    for product, units in opening.items():
        books.commands["ReceiveStock", ""] += 1
        books.stock[product].received = units
    invoices: dict[str, list[Row]] = defaultdict(list)
    for line in lines:
        books.total.add([line])
        if isinstance(line, Unreadable):
            books.rejected[line.reason].add([line])
        elif line.invoice[0] != "C" and (line.quantity < 0 or line.price == 0):
            _adjust(books, line)
        else:
            invoices[line.invoice].append(line)
    for number, rows in invoices.items():
        if number[0] == "C":
            _credit(books, rows)
        else:
            _sell(books, rows)
    for trial in trials:
        _try(books, trial, opening)
    return books


def _try(books: Books, units: Mapping[str, int], opening: Mapping[str, int]) -> None:
    """Enter an order that is lost: what there is of it is taken and given back, and nothing is sold."""
    books.commands["PlaceOrder", ""] += 1
    books.sold_by_country[TRIAL_COUNTRY]  # known by now, with nothing to its name
    for product, quantity in units.items():
        books.sold_by_product[product]
        if product in opening:
            books.stock[product].moved += quantity
            books.stock[product].returned += quantity
            books.moves, books.returns = books.moves + 1, books.returns + 1
        else:
            books.refusals += 1
    if all(product in opening for product in units):
        books.expired += 1
    else:
        books.unavailable += 1


def _sell(books: Books, rows: list[Row]) -> None:
    reason = _refusal(rows, sign=1)
    books.commands["PlaceOrder", reason] += 1
    books.commands["PayOrder", "ORDER_UNKNOWN" if reason else ""] += 1
    if reason:
        books.rejected[reason].add(rows)
        return
    books.sold.add(rows)
    _count(books.sold_by_country, books.sold_by_product, rows, sign=1)
    goods = [row for row in rows if row.product not in NOT_GOODS]
    books.moves += len({row.product for row in goods})
    for row in goods:
        books.stock[row.product].moved += row.quantity


def _credit(books: Books, rows: list[Row]) -> None:
    reason = _refusal(rows, sign=-1)
    books.commands["IssueCreditNote", reason] += 1
    if reason:
        books.rejected[reason].add(rows)
        return
    books.credited.add(rows)
    _count(books.credited_by_country, books.credited_by_product, rows, sign=-1)


def _adjust(books: Books, row: Row) -> None:
    reason = ""
    if row.quantity == 0:
        reason = "QUANTITY_ZERO"
    elif row.price < 0:
        reason = "VALUE_NEGATIVE"
    elif abs(row.amount) > LARGEST:
        reason = "AMOUNT_OVERFLOW"
    elif row.product in NOT_GOODS:
        reason = "PRODUCT_UNKNOWN"
    books.commands["AdjustStock", reason] += 1
    if reason:
        books.rejected[reason].add([row])
        return
    books.adjusted.add([row])
    books.stock[row.product].adjusted += row.quantity


def _refusal(rows: list[Row], *, sign: int) -> str:
    """Say why an invoice is refused as a whole; empty where it is not."""
    if len(rows) > MOST_LINES:
        return "INVALID_ARGUMENT"
    for row in rows:
        if sign * row.quantity <= 0:
            return "QUANTITY_NOT_POSITIVE"
        if row.price <= 0:
            return "PRICE_NOT_POSITIVE"
    total = sum((row.amount for row in rows), Decimal(0))
    return "AMOUNT_OVERFLOW" if abs(total) > LARGEST else ""


def _count(countries: dict[str, Sums], products: dict[str, Sums], rows: list[Row], *, sign: int) -> None:
    country = countries[rows[0].country]
    country.documents += 1
    for row in rows:
        for sums in (country, products[row.product]):
            sums.lines += 1
            sums.units += sign * row.quantity
            sums.amount += sign * row.amount
