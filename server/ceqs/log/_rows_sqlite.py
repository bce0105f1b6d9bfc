"""Inserting what is accepted of a batch on SQLite: rows of three tables by one statement.

A thread that inserts has to wait for a busy loop after every statement; within one, it works beside the loop. So a row
of events, one of tags and one of commands lie side by side, as a row of a view, whose triggers take them apart again.
"""

from __future__ import annotations

import sqlite3
from functools import cache
from itertools import zip_longest

from ceqs.log._judge import Verdict
from ceqs.log._kept import REPLACE
from ceqs.log._ledger import SQLITE
from ceqs.log._schema import commands, events, states, tags

_MOST = 256
"""How many rows one statement inserts at most."""
_STEP = 16
"""Beyond as many, their number is rounded up to a multiple of it: each number is a statement that SQLite keeps."""

_TABLES = events, tags, commands
_WIDTH = sum(len(table.columns) for table in _TABLES)
_NONE = [(None,) * len(table.columns) for table in _TABLES]


def make_view(connection: sqlite3.Connection) -> None:
    """Make the view, which only this connection sees."""
    names = [f"c{i}" for i in range(_WIDTH)]
    connection.execute(f"CREATE TEMP VIEW batch AS SELECT {', '.join(f'0 AS {name}' for name in names)}")
    for table in _TABLES:
        own, names = names[: len(table.columns)], names[len(table.columns) :]
        values = ", ".join(f"NEW.{name}" for name in own)
        insertion = f"INSERT INTO {table.name} VALUES ({values})"  # noqa: S608  # names of ours
        # No table has a row that begins with NULL.
        when = f"INSTEAD OF INSERT ON batch WHEN NEW.{own[0]} IS NOT NULL"
        connection.execute(f"CREATE TEMP TRIGGER insert_{table.name} {when} BEGIN {insertion}; END")


def insert(connection: sqlite3.Connection, verdict: Verdict) -> None:
    """Insert the rows of a verdict."""
    no_event, no_tag, no_command = _NONE
    values: list[object] = []
    for event, tag, command in zip_longest(verdict.events, verdict.tags, verdict.commands.values()):
        values += event or no_event
        values += tag or no_tag
        values += command or no_command
    for start in range(0, len(values), _MOST * _WIDTH):
        some = values[start : start + _MOST * _WIDTH]
        rows = len(some) // _WIDTH
        if rows > _STEP and rows % _STEP:
            padding = _STEP - rows % _STEP
            some += (None,) * (padding * _WIDTH)
            rows += padding
        connection.execute(_insertion(rows), some)
    if verdict.keeps:
        SQLITE.insert(connection, states, list(verdict.keeps.values()), REPLACE)


@cache
def _insertion(rows: int) -> str:
    row = f"({', '.join('?' * _WIDTH)})"
    return f"INSERT INTO batch VALUES {', '.join([row] * rows)}"  # noqa: S608  # ours
