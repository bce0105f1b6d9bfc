"""Inserting what is accepted of a batch on SQLite: rows of three tables by one statement.

A thread that inserts has to wait for a busy loop after every statement; within one, it works beside the loop. So a row
of events, one of tags and one of commands lie side by side, as a row of a view, whose triggers take them apart again.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from functools import cache
from itertools import chain, islice, zip_longest
from typing import TypeAlias

from ceqs.log._judge import Verdict
from ceqs.log._kept import REPLACE
from ceqs.log._schema import commands, events, states, tags

Row: TypeAlias = tuple[object, ...]

_MOST = 256
"""How many rows one statement inserts at most."""
_STEP = 16
"""Beyond as many, their number is rounded up to a multiple of it: each number is a statement that is kept ready."""

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
    sides = zip_longest(verdict.events, verdict.tags, verdict.commands.values())
    rows = ((*(event or no_event), *(tag or no_tag), *(command or no_command)) for event, tag, command in sides)
    _insert(connection, "batch", rows, (None,) * _WIDTH)
    if keeps := list(verdict.keeps.values()):
        # A state that is there already is left as it is.
        _insert(connection, states.name, keeps, keeps[-1], REPLACE)


def _insert(connection: sqlite3.Connection, into: str, rows: Iterable[Row], filler: Row, conflict: str = "") -> None:
    """Insert rows, and as many fillers, which change nothing, as make their number one of few."""
    most = connection.getlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER) // len(filler) // _STEP * _STEP
    left = iter(rows)
    while some := list(islice(left, min(most, _MOST))):
        if len(some) > _STEP:
            some += [filler] * (-len(some) % _STEP)
        connection.execute(_insertion(into, len(filler), len(some), conflict), list(chain.from_iterable(some)))


@cache
def _insertion(into: str, width: int, rows: int, conflict: str) -> str:
    row = f"({', '.join('?' * width)})"
    return f"INSERT INTO {into} VALUES {', '.join([row] * rows)} {conflict}"  # noqa: S608  # ours
