"""The demo's reading of transactions: every line becomes a row or is turned away with a reason."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from pathlib import Path

import pytest

from ceqs.errors import Misconfigured
from shop.demo.rows import COLUMNS, Row, Unreadable, read_rows

GOOD = ("536365", "85123a", "WHITE HEART", "6", "2010-12-01 08:26", "2.55", "17850", "United Kingdom")


def read(tmp_path: Path, *lines: str) -> list[Row | Unreadable]:
    path = tmp_path / "transactions.csv"
    path.write_text("\n".join([",".join(COLUMNS), *lines]) + "\n", encoding="utf-8")
    return list(read_rows(path))


def line(**changed: str) -> str:
    return ",".join(changed.get(column, value) for column, value in zip(COLUMNS, GOOD, strict=True))


def test_a_good_line_becomes_a_row(tmp_path: Path) -> None:
    (row,) = read(tmp_path, line())
    assert row == Row(
        number=1,
        invoice="536365",
        product="85123A",
        description="WHITE HEART",
        quantity=6,
        time=dt.datetime(2010, 12, 1, 8, 26, tzinfo=dt.UTC),
        price=Decimal("2.55"),
        customer="17850",
        country="United Kingdom",
    )
    assert row.amount == Decimal("15.30")


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"InvoiceNo": ""}, "NO_INVOICE"),
        ({"StockCode": " "}, "NO_PRODUCT"),
        ({"Country": ""}, "NO_COUNTRY"),
        ({"Quantity": "a dozen"}, "MALFORMED_QUANTITY"),
        ({"Quantity": "1.5"}, "MALFORMED_QUANTITY"),
        ({"Quantity": ""}, "MALFORMED_QUANTITY"),
        ({"Quantity": str(2**63)}, "MALFORMED_QUANTITY"),
        ({"Quantity": "0"}, "ZERO_QUANTITY"),
        ({"InvoiceDate": "yesterday"}, "MALFORMED_DATE"),
        ({"InvoiceDate": "2010-02-30 08:26"}, "MALFORMED_DATE"),
        ({"InvoiceDate": "1969-12-31 23:59"}, "MALFORMED_DATE"),
        ({"UnitPrice": "n/a"}, "MALFORMED_PRICE"),
        ({"UnitPrice": "NaN"}, "MALFORMED_PRICE"),
        ({"UnitPrice": "1e30"}, "MALFORMED_PRICE"),
        ({"UnitPrice": "0.0000001"}, "MALFORMED_PRICE"),
        ({"UnitPrice": "-11062.06"}, "NEGATIVE_PRICE"),
        ({"Description": "x" * 201}, "MALFORMED_TEXT"),
        ({"StockCode": "x" * 65}, "MALFORMED_TEXT"),
        ({"CustomerID": "17\x01850"}, "MALFORMED_TEXT"),
    ],
)
def test_a_line_that_makes_no_sense_is_turned_away_with_a_reason(
    tmp_path: Path, changed: dict[str, str], reason: str
) -> None:
    first, second = read(tmp_path, line(**changed), line())
    assert isinstance(first, Unreadable)
    assert (first.number, first.reason) == (1, reason)
    assert isinstance(second, Row)


def test_what_is_turned_away_keeps_its_amount_where_it_has_one(tmp_path: Path) -> None:
    first, second = read(tmp_path, line(InvoiceDate="?"), line(UnitPrice="?"))
    assert (first.amount, second.amount) == (Decimal("15.30"), Decimal(0))


def test_a_line_that_is_too_short_or_too_long_is_not_lost(tmp_path: Path) -> None:
    short, long = read(tmp_path, "536365,85123A", line() + ",and,more")
    assert isinstance(short, Unreadable)
    assert isinstance(long, Row)


@pytest.mark.parametrize("changed", [{"UnitPrice": "0"}, {"Quantity": "-3"}, {"Quantity": "-3", "UnitPrice": "0"}])
def test_corrections_of_the_stock_are_rows(tmp_path: Path, changed: dict[str, str]) -> None:
    assert isinstance(read(tmp_path, line(**changed))[0], Row)


def test_a_credit_note_is_read_whatever_its_sign(tmp_path: Path) -> None:
    assert all(isinstance(row, Row) for row in read(tmp_path, line(InvoiceNo="C1", Quantity="0"), line(InvoiceNo="c1")))


def test_dates_of_the_original_edition_are_read_too(tmp_path: Path) -> None:
    (row,) = read(tmp_path, line(InvoiceDate="12/1/2010 8:26"))
    assert isinstance(row, Row)
    assert row.time == dt.datetime(2010, 12, 1, 8, 26, tzinfo=dt.UTC)


def test_a_latin_1_edition_loses_a_letter_but_no_row(tmp_path: Path) -> None:
    path = tmp_path / "latin.csv"
    path.write_bytes((",".join(COLUMNS) + "\n" + line(Description="CAFÉ") + "\n").encode("latin-1"))
    assert [type(row) for row in read_rows(path)] == [Row]


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match=r"nothing\.csv: cannot be read: .*No such file"):
        list(read_rows(tmp_path / "nothing.csv"))


def test_a_file_with_other_columns_is_refused_by_the_first_that_it_lacks(tmp_path: Path) -> None:
    path = tmp_path / "other.csv"
    path.write_text("a,b\n1,2\n")
    with pytest.raises(Misconfigured, match="has no column InvoiceNo"):
        list(read_rows(path))


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "empty.csv"
    path.write_text("")
    with pytest.raises(Misconfigured, match="has no column InvoiceNo"):
        list(read_rows(path))
