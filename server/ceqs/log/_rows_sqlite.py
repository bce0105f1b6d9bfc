"""Inserting what is accepted of a batch on SQLite: rows of three tables by one statement.

A thread that inserts has to wait for a busy loop after every statement; within one, it works beside the loop. So a row
of events, one of tags and one of commands lie side by side, as a row of a view, whose triggers take them apart again.
For the same reason the loop puts the values together, and has the thread bind each but once.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from functools import cache
from itertools import chain

from ceqs.contract import value
from ceqs.log._judge import CommandRow, Verdict
from ceqs.log._kept import REPLACE
from ceqs.log._schema import commands, events, states, tags

_MOST = 256
"""How many rows one statement inserts at most."""
_STEP = 16
"""Beyond as many, their number is rounded up to a multiple of it: each number is a statement that is kept ready."""

_TABLES = events, tags, commands
_SHARED = "recorded_at", "generation"
"""Columns whose value all rows of a batch have."""
_COLUMNS = list(dict.fromkeys([*_SHARED, *(column.name for table in _TABLES for column in table.columns)]))
_OWN = len(_COLUMNS) - len(_SHARED)
_NO_COMMAND = (0, 0, 0, 0)


def make_view(connection: sqlite3.Connection) -> None:
    """Make the view, which only this connection sees."""
    connection.execute(f"CREATE TEMP VIEW batch AS SELECT {', '.join(f'0 AS {name}' for name in _COLUMNS)}")
    for table, sign in zip(_TABLES, (events.c.id, tags.c.tag, commands.c.content_hash), strict=True):
        values = (f"nullif(NEW.{one.name}, 0)" if one.nullable else f"NEW.{one.name}" for one in table.columns)
        insertion = f"INSERT INTO {table.name} VALUES ({', '.join(values)})"  # noqa: S608  # names of ours
        # What has no row of the table has 0 there. The plus keeps a text from being taken for a number.
        when = f"INSTEAD OF INSERT ON batch WHEN +NEW.{sign.name} <> 0"
        connection.execute(f"CREATE TEMP TRIGGER insert_{table.name} {when} BEGIN {insertion}; END")


@value()
class Rows:
    """Rows for one table, or for the view."""

    into: str
    shared: tuple[object, ...]
    """The values with which each of them begins."""
    values: list[object]
    """All others, row by row."""
    filler: tuple[object, ...]
    """The values, as far as they are not shared, of a row that changes nothing."""
    conflict: str = ""
    """What becomes of rows that are there."""


def rows_of(verdict: Verdict) -> Sequence[Rows]:
    """Give the rows of a verdict."""
    found: list[Rows] = []
    if values := _side_by_side(verdict):
        recorded_at = verdict.events[0][5] if verdict.events else next(iter(verdict.commands.values()))[4]
        generation = verdict.tags[0][0] if verdict.tags else 0
        found.append(Rows("batch", (recorded_at, generation), values, (0,) * _OWN))
    if keeps := list(verdict.keeps.values()):
        # A state that is there already is left as it is.
        found.append(Rows(states.name, (), list(chain.from_iterable(keeps)), keeps[-1], REPLACE))
    return found


def insert(connection: sqlite3.Connection, rows: Rows) -> None:
    """Insert rows, and as many that change nothing as make their number one of few."""
    shared, width = len(rows.shared), len(rows.filler)
    most = (connection.getlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER) - shared) // width // _STEP * _STEP
    step = min(most, _MOST) * width
    for start in range(0, len(rows.values), step):
        some = rows.values[start : start + step]
        number = len(some) // width
        if number > _STEP:
            some += rows.filler * (-number % _STEP)
        statement = _insertion(rows.into, shared, width, len(some) // width, rows.conflict)
        connection.execute(statement, (*rows.shared, *some))


def _side_by_side(verdict: Verdict) -> list[object]:
    """Give the values of rows of the view: beside an event its first tag, beside a command's last event the command."""
    # What is neither an int nor a str nor a bytearray, the driver looks for a way to adapt: that takes several times as
    # long as to bind it, and keeps the loop waiting. So bytes are copied, and 0 stands for NULL.
    first: dict[int, str] = {}
    further: list[tuple[int, str, str]] = []
    for _, tag, position, kind in verdict.tags:
        if first.setdefault(position, tag) is not tag:
            further.append((position, kind, tag))
    alone = verdict.commands.copy()
    values: list[object] = []
    for position, public_position, event_id, kind, bucket, _, command_id, envelope in verdict.events:
        values += position, public_position or 0, event_id, kind, bucket, command_id, bytearray(envelope)
        values.append(first.get(position, 0))
        values += _command(alone.pop(command_id)) if alone[command_id][3] == position else _NO_COMMAND
    for position, kind, tag in further:
        values += position, 0, 0, kind, 0, 0, 0, tag, *_NO_COMMAND
    for command in alone.values():
        values += command[3], 0, 0, 0, 0, command[0], 0, 0, *_command(command)
    return values


def _command(row: CommandRow) -> tuple[object, ...]:
    """Give what only the row of a command has."""
    _, content_hash, derived, _, _, receipt, response = row
    return bytearray(content_hash), int(derived), bytearray(receipt), bytearray(response)


@cache
def _insertion(into: str, shared: int, width: int, rows: int, conflict: str) -> str:
    values = ", ".join([f"({', '.join('?' * width)})"] * rows)
    selected = ", ".join(["?"] * shared + ["*"])
    # What becomes of conflicts is told from a join by the condition.
    return f"INSERT INTO {into} SELECT {selected} FROM (VALUES {values}) WHERE true {conflict}"  # noqa: S608  # ours
