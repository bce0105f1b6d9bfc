"""Inserting on PostgreSQL: many rows, of several tables, by one statement.

It is executed while the next batch is decided: a second statement would have to wait until the loop is free for it. A
table's rows are one parameter, an array of its row type. An array for each column takes twice as long to write, since
the driver asks of each element whether it is an array itself.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING

from sqlalchemy import Table

from ceqs.log._driver_postgres import Driver, execute
from ceqs.log._judge import Verdict
from ceqs.log._kept import REPLACE
from ceqs.log._schema import commands, events, states, tags

if TYPE_CHECKING:
    from ceqs.log._ledger import Found, Rows

_TABLES = events, tags, states, commands
"""Of which a batch has rows."""


def insert_verdict(driver: Driver, verdict: Verdict) -> None:
    """Insert the rows of a verdict."""
    _insert(driver, {table: rows for table, rows in _rows(verdict).items() if rows}, {states: REPLACE})


def insert(driver: Driver, table: Table, rows: Rows) -> None:
    """Insert rows, one at least, whose values are in the order of the table's columns."""
    _insert(driver, {table: rows}, {})


def _rows(verdict: Verdict) -> Mapping[Table, Rows]:
    rows = verdict.events, verdict.tags, list(verdict.keeps.values()), list(verdict.commands.values())
    return dict(zip(_TABLES, rows, strict=True))


def _insert(driver: Driver, rows: Mapping[Table, Rows], conflicts: Mapping[Table, str]) -> None:
    """Insert rows into tables; the conflicts say what becomes of those that are there."""
    if rows:
        statement = _insertion(tuple((table.name, conflicts.get(table, "")) for table in rows))
        execute(driver, statement, *rows.values())


@cache
def _insertion(parts: tuple[tuple[str, str], ...]) -> str:
    return _inserting([(table, f"${number}", conflict) for number, (table, conflict) in enumerate(parts, 1)])


def _inserting(parts: Sequence[tuple[str, str, str]]) -> str:
    """Give the statement for tables, each with the expression of its rows and what becomes of those that are there."""
    insertions = [
        f"INSERT INTO {table} SELECT * FROM unnest({rows}::{table}[]) {conflict}"  # noqa: S608  # names of ours
        for table, rows, conflict in parts
    ]
    *others, last = insertions
    named = ", ".join(f"part_{number} AS ({one})" for number, one in enumerate(others, 1))
    return f"WITH {named} {last}" if named else last


_ROWS = {table: f"new_{table.name}" for table in _TABLES}

# A lock that is taken is not waited for: commands may expire meanwhile. What is looked at after it is a statement of
# its own, whose snapshot has all that was committed under it.
APPENDING = f"""
CREATE FUNCTION append(
    lock_key bigint, the_log text, the_generation integer, the_tagging integer, the_end bigint,
    new_ids text[], {", ".join(f"{rows} {table.name}[]" for table, rows in _ROWS.items())}
) RETURNS SETOF boolean LANGUAGE plpgsql AS
$$ BEGIN
    IF NOT pg_try_advisory_xact_lock(lock_key) THEN RETURN; END IF;
    IF EXISTS (SELECT 1 FROM commands WHERE command_id = ANY (new_ids)) OR NOT EXISTS (
        SELECT 1 FROM meta WHERE log_id = the_log AND tag_generation = the_generation AND tagging = the_tagging
        AND coalesce((SELECT max(position) FROM events), 0) = the_end
    ) THEN RETURN; END IF;
    {_inserting([(table.name, rows, REPLACE if table is states else "") for table, rows in _ROWS.items()])};
    RETURN NEXT true;
END $$
"""  # noqa: S608  # ours
"""Makes the function by which APPEND appends."""

APPEND = f"SELECT * FROM append({', '.join(f'${number}' for number in range(1, 7 + len(_ROWS)))})"  # noqa: S608  # ours
"""Inserts the rows of a verdict and commits, in one journey; see `appended`.

It gives one row where it did, and none where the log is being written, is not as it is to be found, or has one of the
commands that are to be new.
"""

APPENDED = "SELECT 1"
"""What APPEND has done where it did."""


def appended(lock_key: int, found: Found, new: Collection[str], verdict: Verdict) -> Sequence[object]:
    """Give what APPEND takes: the log's lock, how it is to be found, ids of commands that are to be new, the rows."""
    head, index = found
    return lock_key, head.log_id, *index, head.position, list(new), *_rows(verdict).values()
