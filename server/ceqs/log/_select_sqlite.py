"""Reading stored events from SQLite."""

from __future__ import annotations

import asyncio
import heapq
import json
import sqlite3
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from itertools import chain, groupby
from operator import itemgetter
from typing import Any

from ceqs.log._ledger import HEAD, SQLITE
from ceqs.log._select import GENERATION, Form, T, number_of, order_of, position_before
from ceqs.log._span import Row, is_filter, up_to
from ceqs.log._together import carries_all, together
from ceqs.log._types import Span

WINDOW = 50_000
"""How many positions a filtered read examines at a stretch: where few of many candidates match, others get a turn."""

TAGGED = f"""
SELECT t.position, t.tag FROM json_each(:tags) AS w CROSS JOIN tags AS t
WHERE t.generation = {GENERATION} AND t.tag = w.value AND t.position > :after AND t.position <= :until
"""  # noqa: S608  # ours


class SqliteReads:
    """Reads on the event loop's own thread, and takes no more rows from the database than one read gives."""

    def __init__(self, uri: str) -> None:
        self._connection = sqlite3.connect(uri, uri=True, timeout=10, isolation_level=None, check_same_thread=False)

    async def head(self) -> Sequence[Any]:
        """Give the row of HEAD."""
        row: tuple[Any, ...] = self._connection.execute(HEAD.text).fetchone()
        return row

    async def read(self, span: Span, form: Form[T]) -> T:
        """Read events; see LogReader."""
        if not is_filter(span.query):
            bounds = {"after": span.after, "until": span.until}
            return form.give(
                span, self._connection.execute(plain(form.columns, number_of(span), order_of(span)), bounds)
            )
        while True:
            with self._snapshot():
                head = SQLITE.head(self._connection)[0]
                whole = up_to(span, head.public_position if span.public else head.position)
                part = _window(whole)
                rows = self._matching(part, form.columns)
                first = next(rows, None)
                if first is not None or part == whole:
                    return form.give(part, chain(() if first is None else (first,), rows))
            span = replace(span, until=part.after) if span.backwards else replace(span, after=part.until)
            await asyncio.sleep(0)

    async def position_before(self, micros: int, *, public: bool) -> int:
        """Give the last position that was recorded before a time."""
        statement = position_before("public_position" if public else "position", ":micros")
        (found,) = self._connection.execute(statement, {"micros": micros}).fetchone()
        return int(found)

    async def tagged(self, tags: Sequence[str], after: int, until: int) -> Sequence[tuple[int, str]]:
        """Give which of the positions carry which of the tags."""
        return self._connection.execute(TAGGED, {"tags": json.dumps(tags), "after": after, "until": until}).fetchall()

    async def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    @contextmanager
    def _snapshot(self) -> Generator[None]:
        self._connection.execute("BEGIN")
        try:
            yield
        finally:
            self._connection.execute("ROLLBACK")

    def _matching(self, span: Span, columns: str) -> Iterator[Row]:
        """Give the rows of each index that is walked, merged and each once."""
        after, until = self._position(span, span.after), self._position(span, span.until)
        bounds = {"after": after, "until": until}
        walks: list[Iterator[Row]] = []
        for item in span.query.items:
            if item.tags:
                lead, *others = sorted(item.tags)
                chosen = {"tag": lead, "types": json.dumps(sorted(item.types)), "others": json.dumps(others)}
                statement = by_tag(
                    columns,
                    number_of(span),
                    order_of(span),
                    types=bool(item.types),
                    others=bool(others),
                    public=span.public,
                )
                walks.append(self._connection.execute(statement, bounds | chosen))
            else:
                statement = by_type(columns, number_of(span), order_of(span), public=span.public)
                walks.extend(self._connection.execute(statement, bounds | {"type": one}) for one in item.types)
        merged = heapq.merge(*walks, key=itemgetter(0), reverse=span.backwards)
        return (next(same) for _, same in groupby(merged, itemgetter(0)))

    def _position(self, span: Span, number: int) -> int:
        if not span.public or not number:
            return number
        (position,) = self._connection.execute(
            "SELECT position FROM events WHERE public_position = ?", (number,)
        ).fetchone() or (number,)
        return int(position)


def _window(span: Span) -> Span:
    if span.backwards:
        return replace(span, after=max(span.after, span.until - WINDOW))
    return replace(span, until=min(span.until, span.after + WINDOW))


@cache
def plain(columns: str, number: str, order: str) -> str:
    """Give the statement that walks along the positions."""
    return f"""
SELECT {columns.format(number=number)} FROM events AS e
WHERE e.{number} > :after AND e.{number} <= :until ORDER BY e.{number} {order}
"""  # noqa: S608  # columns and directions


@cache
def by_type(columns: str, number: str, order: str, *, public: bool) -> str:
    """Give the statement that walks along the events of one type."""
    return f"""
SELECT {columns.format(number=number)} FROM events AS e INDEXED BY events_by_type
WHERE e.type = :type AND e.position > :after AND e.position <= :until
{"AND e.public_position IS NOT NULL" if public else ""} ORDER BY e.position {order}
"""  # noqa: S608  # as above


@cache
def by_tag(columns: str, number: str, order: str, *, types: bool, others: bool, public: bool) -> str:
    """Give the statement that walks along the events that carry one tag, and leaves out those that do not match."""
    is_public = "AND e.public_position IS NOT NULL" if public else ""
    if others:
        return by_tags(columns.format(number=number), order, types=types) + is_public
    return f"""
SELECT {columns.format(number=number)} FROM tags AS t CROSS JOIN events AS e
WHERE t.generation = {GENERATION} AND t.tag = :tag AND t.position > :after AND t.position <= :until
AND e.position = t.position
{"AND t.type IN (SELECT value FROM json_each(:types))" if types else ""} {is_public}
ORDER BY t.position {order}
"""  # noqa: S608  # as above


def by_tags(columns: str, order: str, *, types: bool) -> str:
    """Give the statement that walks along the events that carry several tags. The walk is in order by itself."""
    backwards = order == "DESC"
    start, stop = (":until + 1", ":after") if backwards else (":after", ":until")
    others, further = "json_each(:others)", "min" if backwards else "max"
    walk = together(
        generation=GENERATION,
        lead=":tag",
        others=others,
        start=start,
        stop=stop,
        further=further,
        backwards=backwards,
    )
    return f"""
WITH RECURSIVE {walk}
SELECT {columns} FROM walk CROSS JOIN events AS e
WHERE walk.position > :after AND walk.position <= :until AND e.position = walk.position
{"AND e.type IN (SELECT value FROM json_each(:types))" if types else ""}
AND {carries_all(generation=GENERATION, others=others, position="walk.position")}
"""  # noqa: S608  # as above
