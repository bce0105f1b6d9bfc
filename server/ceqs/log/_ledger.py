"""The stored log in SQL, as one transaction sees it under the log's lock."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any, Generic, NamedTuple, TypeAlias, TypeVar

from sqlalchemy import Table, text

from ceqs.log._driver_postgres import change, fetch
from ceqs.log._identity import refuse_another
from ceqs.log._judge import CommandRow
from ceqs.log._recent import Mark, Recent
from ceqs.log._retention import NOW_POSTGRES, NOW_SQLITE
from ceqs.log._rows_postgres import insert
from ceqs.log._tagging import Tagging, read_rules
from ceqs.log._times import from_micros
from ceqs.log._together import carries_all, together
from ceqs.log._types import BEYOND, Condition, Head
from ceqs.model import QueryItem

_HEAD = """
SELECT m.log_id, m.epoch, e.position, e.recorded_at, (
    SELECT public_position FROM events
    WHERE public_position IS NOT NULL ORDER BY public_position DESC LIMIT 1) AS public_position,
    m.tag_generation, m.tagging
FROM meta AS m LEFT JOIN (
    SELECT position, recorded_at FROM events ORDER BY position DESC LIMIT 1) AS e ON 1 = 1
"""
HEAD = text(_HEAD)


def to_head(row: Any) -> Head:
    """Give the row of HEAD as a value."""
    log_id, epoch, position, recorded_at, public_position, *_ = row
    return Head(
        log_id=log_id,
        position=position or 0,
        public_position=public_position or 0,
        recorded_at=from_micros(recorded_at) if position else None,
        epoch=epoch,
    )


class Index(NamedTuple):
    """The tags by which events are found."""

    generation: int
    """Which tags count."""
    tagging: int
    """The revision of the rules that they come from."""


Found: TypeAlias = tuple[Head, Index]
"""Where the log stands, and what it is indexed by."""

Rows: TypeAlias = Sequence[tuple[object, ...]]
"""Values in the order of a table's columns."""


C = TypeVar("C")


@dataclass(frozen=True, slots=True)
class Dialect(Generic[C]):
    """Where SQLite and PostgreSQL differ, for connections of a type.

    Each takes apart a JSON parameter in its own way, by which one statement serves a batch of any size; and one inserts
    many rows from many parameters, the other from an array of rows. Both find or write a row in a fraction of what
    SQLAlchemy spends on a statement, so their drivers are used as they are.
    """

    name: str
    commands: str
    moved: str
    forget: str
    now: str
    """Asks the database's clock, in microseconds since 1970."""
    rows: Callable[[C, str, Mapping[str, object]], Sequence[Any]]
    """Executes a statement, with a parameter for each `:name` in it, and gives its rows."""
    run: Callable[[C, str, Mapping[str, object]], int]
    """Executes a statement that changes rows, and gives how many."""
    insert: Callable[[C, Table, Rows], None]
    """Inserts rows, one at least."""

    def head(self, connection: C) -> Found:
        """Say where the log stands, and what it is indexed by."""
        (row,) = self.rows(connection, _HEAD, {})
        return to_head(row), Index(*row[-2:])


def _sqlite_rows(connection: sqlite3.Connection, statement: str, parameters: Mapping[str, object]) -> Sequence[Any]:
    return connection.execute(statement, parameters).fetchall()


def _sqlite_run(connection: sqlite3.Connection, statement: str, parameters: Mapping[str, object]) -> int:
    return connection.execute(statement, parameters).rowcount


def _insert_many(connection: sqlite3.Connection, table: Table, rows: Rows) -> None:
    connection.executemany(_insertion(table), rows)


@cache
def _insertion(table: Table) -> str:
    return f"INSERT INTO {table.name} VALUES ({', '.join('?' for _ in table.columns)})"  # noqa: S608  # ours


_COMMANDS = """
SELECT command_id, content_hash, derived, position, recorded_at, receipt, response
FROM commands WHERE command_id IN (SELECT value FROM {each})
"""

# For each item of each condition: is there, after its position, an event of one of its types that carries all its tags?
# CASE keeps the questions correlated walks along an index: along events_by_type, along a tag, along several together.
_MOVED = """
SELECT DISTINCT c.key FROM {items} AS c
WHERE CASE WHEN c.tag IS NULL
THEN EXISTS (
    SELECT 1 FROM {types} AS y CROSS JOIN events AS e
    WHERE e.type = y.value AND e.position > c.after)
WHEN c.others IS NULL
THEN EXISTS (
    SELECT 1 FROM tags AS t
    WHERE t.generation = :generation AND t.tag = c.tag AND t.position > c.after
    AND (c.types IS NULL OR t.type IN (SELECT y.value FROM {types} AS y)))
ELSE EXISTS (
    WITH RECURSIVE {walk}
    SELECT 1 FROM walk AS w WHERE w.position IS NOT NULL
    AND (c.types IS NULL OR (
        SELECT t.type FROM tags AS t
        WHERE t.generation = :generation AND t.tag = c.tag AND t.position = w.position)
        IN (SELECT y.value FROM {types} AS y))
    AND {carries_all})
END
"""


def _moved(*, items: str, types: str, others: str, further: str) -> str:
    walk = together(
        generation=":generation",
        lead="c.tag",
        others=others,
        start="c.after",
        stop=f"{BEYOND}",
        further=further,
    )
    carries = carries_all(generation=":generation", others=others, position="w.position")
    return _MOVED.format(items=items, types=types, walk=walk, carries_all=carries)


_FORGET = "DELETE FROM commands WHERE command_id IN (SELECT value FROM {each})"

_EACH_SQLITE = "json_each(:ids)"
_EACH_POSTGRES = "jsonb_array_elements_text(CAST(:ids AS jsonb)) AS i(value)"

SQLITE = Dialect(
    name="sqlite",
    commands=_COMMANDS.format(each=_EACH_SQLITE),
    moved=_moved(
        items="""(
    SELECT json_extract(value, '$.key') AS key, json_extract(value, '$.after') AS after,
        json_extract(value, '$.tag') AS tag, json_extract(value, '$.types') AS types,
        json_extract(value, '$.others') AS others
    FROM json_each(:items))""",
        types="json_each(c.types)",
        others="json_each(c.others)",
        further="max",
    ),
    forget=_FORGET.format(each=_EACH_SQLITE),
    now=f"SELECT {NOW_SQLITE}",
    rows=_sqlite_rows,
    run=_sqlite_run,
    insert=_insert_many,
)
POSTGRES = Dialect(
    name="postgresql",
    commands=_COMMANDS.format(each=_EACH_POSTGRES),
    moved=_moved(
        items="""(
    SELECT * FROM jsonb_to_recordset(CAST(:items AS jsonb))
        AS i(key integer, after bigint, tag text, types jsonb, others jsonb))""",
        types="(SELECT jsonb_array_elements_text(c.types) AS value)",
        others="(SELECT jsonb_array_elements_text(c.others) AS value)",
        further="greatest",
    ),
    forget=_FORGET.format(each=_EACH_POSTGRES),
    now=f"SELECT {NOW_POSTGRES}",
    rows=fetch,
    run=change,
    insert=insert,
)


class SqlLedger(Generic[C]):
    """Reads and writes the tables on a connection whose transaction holds the log's lock."""

    def __init__(
        self,
        connect: Callable[[], C],
        dialect: Dialect[C],
        found: Found,
        name: str,
        log_id: str,
        tagging: Tagging,
        recent: Recent,
    ) -> None:
        """Raise LogReplaced where the log is not the one that is expected, Unavailable where it is indexed otherwise.

        `connect` gives the connection when something has to be asked; `found` is how the log stands; `log_id` is the
        log that was opened; `tagging` has the rules that this process tags by; `recent` is told how the log is found.
        """
        self._connect = connect
        self._dialect = dialect
        self._recent = recent
        self._head, index = found
        refuse_another(name, log_id, self._head)
        self.generation = index.generation
        if not tagging.fits(index.tagging):
            tagging.judge(index.tagging, read_rules(connect(), dialect))
        recent.find(Mark(self._head.log_id, self._head.position, *index))

    def head(self) -> Head:
        """Say where the log stands."""
        return self._head

    def commands(self, command_ids: Collection[str]) -> Mapping[str, CommandRow]:
        """Give those of the commands that were accepted before."""
        return stored(self._connect(), self._dialect, command_ids=command_ids)

    def moved(self, conditions: Mapping[int, Condition]) -> Collection[int]:
        """Give the keys of the conditions that a stored event fails: one statement for all of them."""
        moved, items = set[int](), list[str]()
        for key, condition in conditions.items():
            if self._recent.untouched(condition):
                continue
            if all(item.types or item.tags for item in condition.query.items) and condition.query.items:
                items += _items(key, condition)
            elif condition.after < self._head.position:
                moved.add(key)
        if items:
            parameters = {"items": f"[{','.join(items)}]", "generation": self.generation}
            moved.update(key for (key,) in self._dialect.rows(self._connect(), self._dialect.moved, parameters))
        return moved


def stored(connection: C, dialect: Dialect[C], *, command_ids: Collection[str]) -> Mapping[str, CommandRow]:
    """Give those of the commands that are stored."""
    ids = json.dumps(list(command_ids))
    return {row[0]: to_command(row) for row in dialect.rows(connection, dialect.commands, {"ids": ids})}


def to_command(row: Any) -> CommandRow:
    """Give a row of the commands as it was inserted."""
    command_id, content_hash, derived, position, recorded_at, receipt, response = row
    return command_id, content_hash, bool(derived), position, recorded_at, receipt, response


def _items(key: int, condition: Condition) -> Iterable[str]:
    return [f'{{"key":{key},"after":{condition.after},{_said(item)}}}' for item in condition.query.items]


@lru_cache(maxsize=10_000)
def _said(item: QueryItem) -> str:
    """Give what an item asks for as members of a JSON object."""
    ordered = sorted(item.tags)
    said = {"tag": ordered[0] if ordered else None, "others": ordered[1:] or None, "types": sorted(item.types) or None}
    return json.dumps(said)[1:-1]
