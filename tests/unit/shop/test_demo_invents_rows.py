"""The demo's generator: as many rows as asked for, the same for the same seed, and as dirty as real ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from shop.demo.books import keep_books
from shop.demo.documents import documents_of
from shop.demo.generator import write_csv
from shop.demo.rows import Row, Unreadable, read_rows


def invented(tmp_path: Path, *, rows: int = 3000, seed: int = 1) -> bytes:
    path = tmp_path / "transactions.csv"
    write_csv(path, rows=rows, seed=seed)
    return path.read_bytes()


def test_the_same_seed_gives_the_same_file(tmp_path: Path) -> None:
    assert invented(tmp_path) == invented(tmp_path)


def test_another_seed_gives_another_file(tmp_path: Path) -> None:
    assert invented(tmp_path) != invented(tmp_path, seed=2)


@pytest.mark.parametrize("rows", [1, 7, 1000])
def test_there_are_as_many_rows_as_asked_for(tmp_path: Path, rows: int) -> None:
    invented(tmp_path, rows=rows)
    assert len(list(read_rows(tmp_path / "transactions.csv"))) == rows


def test_there_is_dirt_of_every_kind(tmp_path: Path) -> None:
    invented(tmp_path, rows=10_000)
    lines = list(read_rows(tmp_path / "transactions.csv"))
    documents = documents_of(line for line in lines if isinstance(line, Row))
    books = keep_books(lines, {product: units for product, (_, units) in documents.opening.items()})
    assert set(books.rejected) == {
        "MALFORMED_DATE",
        "MALFORMED_PRICE",
        "MALFORMED_QUANTITY",
        "NEGATIVE_PRICE",
        "NO_INVOICE",
        "NO_PRODUCT",
        "PRODUCT_UNKNOWN",
        "QUANTITY_NOT_POSITIVE",
        "ZERO_QUANTITY",
    }
    assert books.sold.rows > 9000
    assert 50 < books.credited.rows < 500
    assert books.adjusted.rows > 20
    assert books.adjusted.amount < 0
    assert books.depleted
    assert any(not row.customer for row in lines if isinstance(row, Row))
    assert sum(isinstance(line, Unreadable) for line in lines) < 100
