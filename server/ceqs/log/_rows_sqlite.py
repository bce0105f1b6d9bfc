"""Inserting what is accepted of a batch on SQLite: rows of three tables by one statement.

A thread that inserts has to wait for a busy loop after every statement; within one, it works beside the loop. So a row
of events, one of tags and one of commands lie side by side, as a row of a view, whose triggers take them apart again.
"""

from __future__ import annotations

import sqlite3
from functools import cache
from itertools import chain, zip_longest

from ceqs.log._judge import Verdict
from ceqs.log._kept import REPLACE
from ceqs.log._schema import commands, events, states, tags

_MOST = 256
"""How many rows one statement inserts at most."""
_STEP = 16
"""Beyond as many, their number is rounded up to a multiple of it: each number is a statement that is kept ready."""

_TABLES = events, tags, commands
_WIDTH = sum(len(table.columns) for table in _TABLES)
_NOTHING = [(0,) * len(table.columns) for table in _TABLES]


def make_view(connection: sqlite3.Connection) -> None:
    """Make the view, which only this connection sees."""
    names = [f"c{i}" for i in range(_WIDTH)]
    connection.execute(f"CREATE TEMP VIEW batch AS SELECT {', '.join(f'0 AS {name}' for name in names)}")
    for table in _TABLES:
        own, names = names[: len(table.columns)], names[len(table.columns) :]
        columns = zip(own, table.columns, strict=True)
        values = ", ".join(f"nullif(NEW.{name}, 0)" if column.nullable else f"NEW.{name}" for name, column in columns)
        insertion = f"INSERT INTO {table.name} VALUES ({values})"  # noqa: S608  # names of ours
        # No table has a row that begins with 0. The sign keeps a text from being taken for a number.
        when = f"INSTEAD OF INSERT ON batch WHEN +NEW.{own[0]} <> 0"
        connection.execute(f"CREATE TEMP TRIGGER insert_{table.name} {when} BEGIN {insertion}; END")


def insert(connection: sqlite3.Connection, verdict: Verdict) -> None:
    """Insert the rows of a verdict."""
    # What is neither an int nor a str nor a bytearray, the driver looks for a way to adapt: that takes several times as
    # long as to bind it, and keeps the loop waiting. So bytes are copied, and 0 stands for NULL.
    recorded = (
        (position, public_position or 0, event_id, kind, bucket, micros, command_id, bytearray(envelope))
        for position, public_position, event_id, kind, bucket, micros, command_id, envelope in verdict.events
    )
    accepted = (
        (command_id, bytearray(content_hash), int(derived), position, micros, bytearray(receipt), bytearray(response))
        for command_id, content_hash, derived, position, micros, receipt, response in verdict.commands.values()
    )
    no_event, no_tag, no_command = _NOTHING
    values: list[object] = []
    for event, tag, command in zip_longest(recorded, verdict.tags, accepted):
        values += event or no_event
        values += tag or no_tag
        values += command or no_command
    _insert(connection, "batch", values, (0,) * _WIDTH)
    if keeps := list(verdict.keeps.values()):
        # A state that is there already is left as it is.
        _insert(connection, states.name, list(chain.from_iterable(keeps)), keeps[-1], REPLACE)


def _insert(
    connection: sqlite3.Connection, into: str, values: list[object], filler: tuple[object, ...], conflict: str = ""
) -> None:
    """Insert the values of rows, and of as many fillers, which change nothing, as make their number one of few."""
    width = len(filler)
    most = connection.getlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER) // width // _STEP * _STEP
    step = min(most, _MOST) * width
    for start in range(0, len(values), step):
        some = values[start : start + step]
        rows = len(some) // width
        if rows > _STEP:
            some += filler * (-rows % _STEP)
        connection.execute(_insertion(into, width, len(some) // width, conflict), some)


@cache
def _insertion(into: str, width: int, rows: int, conflict: str) -> str:
    row = f"({', '.join('?' * width)})"
    return f"INSERT INTO {into} VALUES {', '.join([row] * rows)} {conflict}"  # noqa: S608  # ours
