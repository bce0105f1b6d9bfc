"""Reading stored events from PostgreSQL."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager, suppress
from functools import cache
from typing import Any, cast

from asyncpg import Connection
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from ceqs.log._ledger import HEAD, to_head
from ceqs.log._select import GENERATION, Form, T, number_of, order_of, position_before
from ceqs.log._span import FRAME, is_filter, up_to
from ceqs.log._sql_reader import FAILURES
from ceqs.log._together import carries_all, together
from ceqs.log._types import MAX_SLICE_BYTES, Span

TAGGED = f"""
SELECT position, tag FROM tags
WHERE generation = {GENERATION} AND tag = ANY ($1::text[]) AND position > $2 AND position <= $3
"""  # noqa: S608  # ours


class PostgresReads:
    """Reads with the driver itself: its statements are prepared once for each connection."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def head(self) -> Sequence[Any]:
        """Give the row of HEAD."""
        async with self._driver() as driver:
            return tuple(cast("Any", await driver.fetchrow(HEAD.text)))

    async def read(self, span: Span, form: Form[T]) -> T:
        """Read events; see LogReader."""
        async with self._driver() as driver:
            if not is_filter(span.query):
                statement = plain(form.columns, number_of(span), order_of(span))
                return form.give(span, await driver.fetch(statement, span.after, span.until, span.limit))
            # Looked up first, and a bound of the search: what is recorded in between is not skipped.
            head = to_head(await driver.fetchrow(HEAD.text))
            span = up_to(span, head.public_position if span.public else head.position)
            statement = filtered(form.columns, number_of(span), order_of(span), public=span.public)
            return form.give(span, await driver.fetch(statement, span.after, span.until, span.limit, _items(span)))

    async def position_before(self, micros: int, *, public: bool) -> int:
        """Give the last position that was recorded before a time."""
        statement = position_before("public_position" if public else "position", "$1::bigint")
        async with self._driver() as driver:
            return int(await driver.fetchval(statement, micros))

    async def tagged(self, tags: Sequence[str], after: int, until: int) -> Sequence[tuple[int, str]]:
        """Give which of the positions carry which of the tags."""
        async with self._driver() as driver:
            return cast("Sequence[tuple[int, str]]", await driver.fetch(TAGGED, tags, after, until))

    async def close(self) -> None:
        """Leave the connections to their owner."""

    @asynccontextmanager
    async def _driver(self) -> AsyncGenerator[Connection[Any]]:
        async with connected(self._engine) as connection:
            raw = await connection.get_raw_connection()
            yield cast("Connection[Any]", raw.driver_connection)


@asynccontextmanager
async def connected(engine: AsyncEngine) -> AsyncGenerator[AsyncConnection]:
    """Give a connection of a pool, for the driver's use."""
    async with engine.connect() as connection:
        try:
            yield connection
        except FAILURES:
            # The pool does not see what the driver raises, and would hand out lost connections again: now it sees.
            with suppress(*FAILURES):
                await connection.exec_driver_sql("SELECT 1")
            await connection.invalidate()
            raise
        except asyncio.CancelledError:
            # The driver is asking the database to stop, and for a while takes nothing else, or fails whoever asks.
            await connection.invalidate()
            raise


def _items(span: Span) -> str:
    items: list[dict[str, object]] = []
    for item in span.query.items:
        if item.tags:
            lead, *others = sorted(item.tags)
            items.append({"tag": lead, "types": sorted(item.types) or None, "others": others or None})
        else:
            items.extend({"type": one} for one in item.types)
    return json.dumps(items)


@cache
def plain(columns: str, number: str, order: str) -> str:
    """Give the statement that walks along the positions."""
    return _capped(
        columns,
        number,
        order,
        f"SELECT * FROM events AS p WHERE {number} > $1 AND {number} <= $2 ORDER BY {number} {order} LIMIT $3",  # noqa: S608  # columns
    )


@cache
def filtered(columns: str, number: str, order: str, *, public: bool) -> str:
    """Give the statement that walks, for each tag or type of its items, along the events that have it.

    Each walk gives its first matches; together they hold the first of them all.
    """
    is_public = """
AND (SELECT x.public_position FROM events AS x WHERE x.position = {0}.position) IS NOT NULL
"""
    after, until = "$1", "$2"
    if public:
        at = "coalesce((SELECT position FROM events WHERE public_position = {0}), {0})"
        after, until = at.format("$1::bigint"), at.format("$2::bigint")
    others = "(SELECT jsonb_array_elements_text(i.others) AS value)"
    backwards = order == "DESC"
    # It is in order by itself: sorted, it would be walked to its end.
    walk = together(
        generation=GENERATION,
        lead="i.tag",
        others=others,
        start=f"{until} + 1" if backwards else after,
        stop=after if backwards else until,
        further="least" if backwards else "greatest",
        backwards=backwards,
    )
    return _capped(
        columns,
        number,
        order,
        f"""
SELECT p.* FROM (
    SELECT DISTINCT m.position
    FROM jsonb_to_recordset($4::jsonb) AS i(type text, tag text, types jsonb, others jsonb) CROSS JOIN LATERAL (
        (SELECT y.position FROM events AS y
        WHERE y.type = i.type AND y.position > {after} AND y.position <= {until}
        {is_public.format("y") if public else ""} ORDER BY y.position {order} LIMIT $3)
        UNION ALL
        (SELECT t.position FROM tags AS t
        WHERE i.others IS NULL
        AND t.generation = {GENERATION} AND t.tag = i.tag AND t.position > {after} AND t.position <= {until}
        AND (i.types IS NULL OR t.type IN (SELECT jsonb_array_elements_text(i.types)))
        {is_public.format("t") if public else ""} ORDER BY t.position {order} LIMIT $3)
        UNION ALL
        (WITH RECURSIVE {walk}
        SELECT w.position FROM walk AS w
        WHERE i.others IS NOT NULL AND w.position > {after} AND w.position <= {until}
        AND (i.types IS NULL OR (
            SELECT t.type FROM tags AS t
            WHERE t.generation = {GENERATION} AND t.tag = i.tag AND t.position = w.position)
            IN (SELECT jsonb_array_elements_text(i.types)))
        AND {carries_all(generation=GENERATION, others=others, position="w.position")}
        {is_public.format("w") if public else ""} LIMIT $3)
    ) AS m ORDER BY m.position {order} LIMIT $3
) AS f CROSS JOIN LATERAL (SELECT * FROM events AS e WHERE e.position = f.position) AS p
""",  # noqa: S608  # columns and directions
    )


def _capped(columns: str, number: str, order: str, picked: str) -> str:
    """Leave out what a read has no room for. Its sizes are known to the database without reading the envelopes."""
    return f"""
SELECT {columns.format(number=number)} FROM (
    SELECT p.*, sum(length(p.envelope) + {FRAME}) OVER walk - length(p.envelope) - {FRAME} AS before
    FROM ({picked}) AS p WINDOW walk AS (ORDER BY p.position {order} ROWS UNBOUNDED PRECEDING)
) AS e WHERE e.before <= {MAX_SLICE_BYTES} ORDER BY e.position {order}
"""  # noqa: S608  # as above
