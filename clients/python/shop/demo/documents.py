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
class Documents:
    """What the rows come to. Every row stands in exactly one document."""

    orders: list[Invoice]
    credit_notes: list[Invoice]
    adjustments: list[Row]
    opening: dict[str, tuple[str, int]]
    """The stock to open with: description and units by product code."""


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
    return Documents(
        list(orders.values()), list(credit_notes.values()), adjustments, _opening(orders.values(), adjustments)
    )


def _opening(orders: Iterable[Invoice], adjustments: Iterable[Row]) -> dict[str, tuple[str, int]]:
    """Give enough stock for everything that goes out, whatever the order in which it goes.

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
    return {
        product: (name, out[product] + _spare(product, scarce=out[product] > 0 and product not in found))
        for product, name in sorted(names.items())
    }


def _spare(product: str, *, scarce: bool) -> int:
    return 0 if scarce and zlib.crc32(product.encode()) % 3 == 0 else 10
