"""Rows of three tables go in by one statement, each as it is, and none that is not there."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from sqlalchemy import create_engine

from ceqs.log import Head, _guards
from ceqs.log._judge import Verdict
from ceqs.log._kept import KeptRow
from ceqs.log._rows_sqlite import insert, make_view
from ceqs.log._schema import metadata


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[sqlite3.Connection]:
    path = tmp_path_factory.mktemp("rows") / "log.db"
    engine = create_engine(f"sqlite:///{path}")
    with engine.begin() as connection:
        metadata.create_all(connection)
        for guard in _guards.SQLITE:
            connection.exec_driver_sql(guard)
    engine.dispose()
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        make_view(connection)
        yield connection


def verdict(events: int, tags: int, commands: int, keeps: int = 0) -> Verdict:
    found = Verdict(Head("log", events))
    found.events = [
        (n, None if n % 3 else (n + 2) // 3, f"e{n}", "shop.Placed", n % 7, n, f"c{n}", b"\0e%d" % n)
        for n in range(1, events + 1)
    ]
    public = 0
    for i, row in enumerate(found.events):
        if row[1] is not None:
            public += 1
            found.events[i] = (row[0], public, *row[2:])
    found.tags = [(1, f"order:{n}", n, "shop.Placed") for n in range(tags)]
    found.commands = {f"c{n}": (f"c{n}", b"h%d" % n, n % 2 > 0, n, n, b"r%d" % n, b"") for n in range(commands)}
    found.keeps = {("Order", f"order:{n}"): KeptRow("Order", f"order:{n}", "f", n, n, n, b"s") for n in range(keeps)}
    return found


SIZES = st.integers(0, 600)


@given(SIZES, SIZES, SIZES, SIZES)
@example(0, 0, 1, 0)
@example(1, 0, 1, 1)
@example(1, 1, 1, 17)
@example(16, 16, 16, 0)
@example(17, 17, 17, 0)
@example(256, 256, 256, 0)
@example(257, 1, 0, 0)
def test_every_row_is_stored_as_it_is(
    database: sqlite3.Connection, events: int, tags: int, commands: int, keeps: int
) -> None:
    rows = verdict(events, tags, commands, keeps)
    database.execute("BEGIN")
    try:
        insert(database, rows)
        assert database.execute("SELECT * FROM events ORDER BY position").fetchall() == rows.events
        assert database.execute("SELECT * FROM tags ORDER BY position").fetchall() == rows.tags
        stored = database.execute("SELECT * FROM commands ORDER BY position").fetchall()
        assert stored == list(rows.commands.values())
        assert database.execute("SELECT * FROM states ORDER BY position").fetchall() == list(rows.keeps.values())
    finally:
        database.execute("ROLLBACK")


def test_a_database_that_takes_few_parameters_is_given_few(database: sqlite3.Connection) -> None:
    before = database.setlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER, 999)
    database.execute("BEGIN")
    try:
        insert(database, verdict(100, 100, 100))
        assert database.execute("SELECT count(*) FROM events").fetchone() == (100,)
    finally:
        database.execute("ROLLBACK")
        database.setlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER, before)


def test_what_the_record_refuses_is_refused_here_too(database: sqlite3.Connection) -> None:
    database.execute("BEGIN")
    try:
        insert(database, verdict(2, 2, 2))
        for again, said in ((verdict(3, 0, 0), "the next position"), (verdict(0, 0, 1), "receipts are immutable")):
            with pytest.raises(sqlite3.IntegrityError, match=said):
                insert(database, again)
        assert database.execute("SELECT count(*) FROM events").fetchone() == (2,)
    finally:
        database.execute("ROLLBACK")
