"""Rows of three tables go in by one statement, each as it is, and none that is not there."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from sqlalchemy import create_engine

from ceqs.log import Head, _guards
from ceqs.log._judge import Verdict
from ceqs.log._kept import KeptRow
from ceqs.log._rows_sqlite import insert, make_view, rows_of
from ceqs.log._schema import metadata

NOW, GENERATION = 1_700_000_000_000_000, 7


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


def store(database: sqlite3.Connection, found: Verdict) -> None:
    for rows in rows_of(found):
        insert(database, rows)


Entry = tuple[int, int]
"""How many events an entry has, and how many tags each of them."""


def verdict(entries: Sequence[Entry], keeps: int = 0) -> Verdict:
    found = Verdict(Head("log", 0))
    position = public = 0
    for n, (events, tags) in enumerate(entries):
        for _ in range(events):
            position += 1
            public += position % 3 == 0
            row = position, None if position % 3 else public, f"e{position}", "shop.Placed", position % 7, NOW, f"c{n}"
            found.events.append((*row, b"\0e%d" % position))
            found.tags += [(GENERATION, f"tag:{tag}", position, "shop.Placed") for tag in range(tags)]
        found.commands[f"c{n}"] = (f"c{n}", b"h%d" % n if n % 5 else b"", n % 2 > 0, position, NOW, b"r%d" % n, b"")
    found.keeps = {("Order", f"order:{n}"): KeptRow("Order", f"order:{n}", "f", n, n, n, b"s") for n in range(keeps)}
    return found


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), max_size=300), st.integers(0, 600))
@example([], 0)
@example([(0, 0)], 0)
@example([(1, 0)], 1)
@example([(1, 1)], 17)
@example([(1, 1)] * 16, 0)
@example([(1, 1)] * 17, 0)
@example([(1, 1)] * 256, 0)
@example([(257, 0)], 0)
@example([(0, 0)] * 256, 0)
@example([(2, 3)] * 256, 0)
def test_every_row_is_stored_as_it_is(database: sqlite3.Connection, entries: Sequence[Entry], keeps: int) -> None:
    rows = verdict(entries, keeps)
    database.execute("BEGIN")
    try:
        store(database, rows)
        assert database.execute("SELECT * FROM events ORDER BY position").fetchall() == rows.events
        assert database.execute("SELECT * FROM tags ORDER BY position, tag").fetchall() == rows.tags
        stored = database.execute("SELECT * FROM commands").fetchall()
        assert sorted(stored) == sorted(rows.commands.values())
        assert database.execute("SELECT * FROM states ORDER BY position").fetchall() == list(rows.keeps.values())
    finally:
        database.execute("ROLLBACK")


def test_a_database_that_takes_few_parameters_is_given_few(database: sqlite3.Connection) -> None:
    before = database.setlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER, 999)
    database.execute("BEGIN")
    try:
        store(database, verdict([(1, 1)] * 100))
        assert database.execute("SELECT count(*) FROM events").fetchone() == (100,)
    finally:
        database.execute("ROLLBACK")
        database.setlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER, before)


def test_what_the_record_refuses_is_refused_here_too(database: sqlite3.Connection) -> None:
    database.execute("BEGIN")
    try:
        store(database, verdict([(1, 1)] * 2))
        for again, said in ((verdict([(3, 0)]), "the next position"), (verdict([(0, 0)]), "receipts are immutable")):
            with pytest.raises(sqlite3.IntegrityError, match=said):
                store(database, again)
        assert database.execute("SELECT count(*) FROM events").fetchone() == (2,)
    finally:
        database.execute("ROLLBACK")
