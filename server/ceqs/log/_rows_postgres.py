"""Inserting on PostgreSQL: many rows, of several tables, by one statement.

It is executed while the next batch is decided: a second statement would have to wait until the loop is free for it. A
table's rows are one parameter, an array of its row type. An array for each column takes twice as long to write, since
the driver asks of each element whether it is an array itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from sqlalchemy import Table

from ceqs.log._driver_postgres import Driver, execute
from ceqs.log._judge import Verdict
from ceqs.log._kept import REPLACE
from ceqs.log._schema import commands, events, states, tags


def insert_verdict(driver: Driver, verdict: Verdict) -> None:
    """Insert the rows of a verdict."""
    keeps, accepted = list(verdict.keeps.values()), list(verdict.commands.values())
    parts = ((events, verdict.events, ""), (tags, verdict.tags, ""), (states, keeps, REPLACE), (commands, accepted, ""))
    _insert(driver, [(table, rows, conflict) for table, rows, conflict in parts if rows])


def insert(driver: Driver, table: Table, rows: Sequence[tuple[object, ...]]) -> None:
    """Insert rows, one at least, whose values are in the order of the table's columns."""
    _insert(driver, [(table, rows, "")])


def _insert(driver: Driver, parts: Sequence[tuple[Table, Sequence[tuple[object, ...]], str]]) -> None:
    """Insert rows into tables; the text says what becomes of those that are there."""
    if parts:
        statement = _insertion(tuple((table.name, conflict) for table, _, conflict in parts))
        execute(driver, statement, *(rows for _, rows, _ in parts))


@cache
def _insertion(parts: tuple[tuple[str, str], ...]) -> str:
    insertions = [
        f"INSERT INTO {table} SELECT * FROM unnest(${number}::{table}[]) {conflict}"  # noqa: S608  # names of ours
        for number, (table, conflict) in enumerate(parts, 1)
    ]
    *others, last = insertions
    named = ", ".join(f"part_{number} AS ({one})" for number, one in enumerate(others, 1))
    return f"WITH {named} {last}" if named else last
