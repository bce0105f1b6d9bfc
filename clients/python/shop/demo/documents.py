"""From rows to what the shop is asked to do: orders, credit notes and stock adjustments, and the stock to open with."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from shop.demo.rows import Row

CHARGES = frozenset({"AMAZONFEE", "B", "BANK CHARGES", "C2", "CRUK", "D", "DOT", "M", "PADS", "POST", "S"})
"""Codes of what no warehouse holds: fees, postage, discounts, manual entries."""


@dataclass(frozen=True, slots=True)
class Invoice:
    """The rows of one invoice that become one order, or one credit note, in their order."""

    number: str
    rows: list[Row] = field(default_factory=list[Row])


@dataclass(frozen=True, slots=True)
class Trial:
    """An order that no row asks for: nobody pays it, and it may take what no warehouse has."""

    number: str
    country: str
    units: dict[str, int]
    """By product code."""


@dataclass(frozen=True, slots=True)
class Documents:
    """What the rows come to. Every row stands in exactly one document."""

    orders: list[Invoice]
    credit_notes: list[Invoice]
    adjustments: list[Row]
    opening: dict[str, tuple[str, int]]
    """The stock to open with: description and units by product code."""
    trials: list[Trial]
    """Beside the rows, to see what becomes of orders that fail."""


def documents_of(rows: Iterable[Row]) -> Documents:
    """Sort rows into documents.

    Rows of an invoice `C...` are its credit note. Of the other rows, those of price 0 or of a negative quantity adjust
    stock, one by one; the others are the order of their invoice.
    """
    orders: dict[str, Invoice] = {}
    credit_notes: dict[str, Invoice] = {}
    adjustments: list[Row] = []
    for row in rows:
        if row.invoice.startswith("C"):
            credit_notes.setdefault(row.invoice, Invoice(row.invoice)).rows.append(row)
        elif row.price == 0 or row.quantity < 0:
            adjustments.append(row)
        else:
            orders.setdefault(row.invoice, Invoice(row.invoice)).rows.append(row)
    opening, spare = _opening(orders.values(), adjustments)
    return Documents(list(orders.values()), list(credit_notes.values()), adjustments, opening, _trials(spare))


def _trials(spare: list[str]) -> list[Trial]:
    """Give an order that could be delivered and is not paid, and one that cannot be delivered whole."""
    if not spare:
        return []
    return [
        Trial("UNPAID", "United Kingdom", {spare[0]: 1}),
        Trial("UNAVAILABLE", "United Kingdom", {spare[0]: 2, "NO SUCH PRODUCT": 1}),
    ]


def _opening(orders: Iterable[Invoice], adjustments: Iterable[Row]) -> tuple[dict[str, tuple[str, int]], list[str]]:
    """Give enough stock for everything that goes out, whatever the order in which it goes; and what there is more of.

    A third of the products gets no unit more than that, so that the last one to go out leaves an empty shelf; not
    those of which stock is found, for they are never empty for good.
    """
    names: dict[str, str] = {}
    out: Counter[str] = Counter()
    found: set[str] = set()
    ordered = (row for order in orders for row in order.rows)
    for row in (*ordered, *adjustments):
        if row.product in CHARGES:
            continue
        names[row.product] = names.get(row.product) or row.description
        if row.price == 0 or row.quantity < 0:
            out[row.product] += max(0, -row.quantity)
            if row.quantity > 0:
                found.add(row.product)
        else:
            out[row.product] += row.quantity
    spare = {product: _spare(product, scarce=out[product] > 0 and product not in found) for product in sorted(names)}
    opening = {product: (names[product], out[product] + units) for product, units in spare.items()}
    return opening, [product for product, units in spare.items() if units]


def _spare(product: str, *, scarce: bool) -> int:
    return 0 if scarce and zlib.crc32(product.encode()) % 3 == 0 else 10
