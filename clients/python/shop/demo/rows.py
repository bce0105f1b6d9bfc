"""Reading a file of transactions: every line becomes a row, or is turned away with a reason. None is lost."""

from __future__ import annotations

import csv
import datetime as dt
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from pathlib import Path

from ceqs.errors import Misconfigured

COLUMNS = ("InvoiceNo", "StockCode", "Description", "Quantity", "InvoiceDate", "UnitPrice", "CustomerID", "Country")
TIMES = ("%Y-%m-%d %H:%M", "%Y-%m-%d %H:%M:%S", "%m/%d/%Y %H:%M")
INT64 = 2**63 - 1
MICROS = 10**6


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of one invoice."""

    number: int
    """1-based, the header not counted."""
    invoice: str
    product: str
    """The product's code in capitals: 85123a and 85123A are one product."""
    description: str
    quantity: int
    time: dt.datetime
    """The minute of the invoice, taken as UTC."""
    price: Decimal
    """Of one unit, in pounds."""
    customer: str
    country: str

    @property
    def amount(self) -> Decimal:
        """What the row is worth, in pounds."""
        return self.quantity * self.price


@dataclass(frozen=True, slots=True, kw_only=True)
class Unreadable:
    """A line that makes no row."""

    number: int
    reason: str
    amount: Decimal
    """Quantity times price where both are numbers, else 0."""


class Refusal(Exception):
    """Why a line makes no row."""


def read_rows(path: Path) -> Iterator[Row | Unreadable]:
    """Read a CSV file with the columns of Online Retail (https://doi.org/10.24432/C5BW33).

    Raises Misconfigured where there is no such file, or the columns are others.
    """
    try:
        # Some editions are Latin-1: a name with a broken letter is better than no row.
        with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
            reader = csv.DictReader(file, restkey="", restval="")
            missing = [column for column in COLUMNS if column not in (reader.fieldnames or ())]
            if missing:
                raise Misconfigured(f"{path}: has no column {missing[0]}; the first line must be {','.join(COLUMNS)}")
            for number, line in enumerate(reader, start=1):
                yield _read(number, {column: line[column].strip() for column in COLUMNS})
    except (OSError, csv.Error) as error:
        raise Misconfigured(f"{path}: cannot be read: {error}") from error


def _read(number: int, line: dict[str, str]) -> Row | Unreadable:
    try:
        row = Row(
            number=number,
            invoice=_text(line["InvoiceNo"], 64, "NO_INVOICE").upper(),
            product=_text(line["StockCode"], 64, "NO_PRODUCT").upper(),
            description=_text(line["Description"], 200),
            quantity=_quantity(line["Quantity"]),
            time=_time(line["InvoiceDate"]),
            price=_price(line["UnitPrice"]),
            customer=_text(line["CustomerID"], 64),
            country=_text(line["Country"], 60, "NO_COUNTRY"),
        )
        if not row.invoice.startswith("C") and row.quantity >= 0 and row.price != 0:
            if row.quantity == 0:
                raise Refusal("ZERO_QUANTITY")
            if row.price < 0:
                raise Refusal("NEGATIVE_PRICE")
    except Refusal as refusal:
        return Unreadable(number=number, reason=str(refusal), amount=_amount(line))
    return row


def _text(text: str, longest: int, reason_if_empty: str = "") -> str:
    if not text and reason_if_empty:
        raise Refusal(reason_if_empty)
    if len(text) > longest or any(ord(character) < 32 or ord(character) == 127 for character in text):
        raise Refusal("MALFORMED_TEXT")
    return text


def _quantity(text: str) -> int:
    try:
        quantity = int(text)
    except ValueError:
        raise Refusal("MALFORMED_QUANTITY") from None
    if abs(quantity) > INT64:
        raise Refusal("MALFORMED_QUANTITY")
    return quantity


def _price(text: str) -> Decimal:
    """Give a price. It is a whole number of millionths of a pound."""
    try:
        price = Decimal(text)
    except InvalidOperation:
        raise Refusal("MALFORMED_PRICE") from None
    if not price.is_finite() or abs(price) * MICROS > INT64 or price * MICROS % 1 != 0:
        raise Refusal("MALFORMED_PRICE")
    return price


def _time(text: str) -> dt.datetime:
    for form in TIMES:
        try:
            time = dt.datetime.strptime(text, form).replace(tzinfo=dt.UTC)
        except ValueError:
            continue
        if time.year >= 1970:
            return time
    raise Refusal("MALFORMED_DATE")


def _amount(line: dict[str, str]) -> Decimal:
    try:
        return _quantity(line["Quantity"]) * _price(line["UnitPrice"])
    except Refusal:
        return Decimal(0)
