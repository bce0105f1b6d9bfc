"""The lines of orders and credit notes: what they must be, and what they add up to."""

from __future__ import annotations

from collections.abc import Iterable

from ceqs.errors import Rejected
from shop.orders.v1.types_pb2 import Line

LARGEST_AMOUNT = 2**63 - 1
"""In millionths of a pound: what an int64 holds."""


def total_of(lines: Iterable[Line]) -> int:
    """Give the sum of the lines in millionths of a pound.

    Raises Rejected where there are no lines, where one is not worth a positive amount, or where the sum is too large.
    """
    total = 0
    for number, line in enumerate(lines, start=1):
        if line.quantity <= 0:
            raise Rejected("QUANTITY_NOT_POSITIVE", f"line {number} is for {line.quantity} of {line.product_code}")
        if line.unit_price_micros <= 0:
            raise Rejected("PRICE_NOT_POSITIVE", f"line {number} has no positive price for {line.product_code}")
        total += line.quantity * line.unit_price_micros
    if total == 0:
        raise Rejected("NO_LINES", "there is no line")
    if total > LARGEST_AMOUNT:
        raise Rejected("AMOUNT_OVERFLOW", f"the lines add up to {total} millionths, beyond {LARGEST_AMOUNT}")
    return total
