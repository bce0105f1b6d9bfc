"""Reading the histories of many boundaries at once."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol, TypeAlias

from ceqs.log._kept import read_kept
from ceqs.log._ledger import SQLITE, C, Dialect
from ceqs.log._types import MAX_SLICE_BYTES, Head, Kept, Slice, StateKey, StoredEvent, Wanted
from ceqs.model import Query

MOST_EVENTS = 4_000
"""How many events one shared read takes at most."""
MOST_BYTES = 8 * MAX_SLICE_BYTES

# Each item is a walk along a tag. What SQLite does in the order in which it is written, PostgreSQL has to be kept from
# turning round while it has no statistics: it would look at all tags there are.
_FOUND_SQLITE = """
SELECT json_extract(c.value, '$.key'), e.position, length(e.envelope)
FROM json_each(:items) AS c CROSS JOIN tags AS t CROSS JOIN events AS e
WHERE t.generation = (SELECT tag_generation FROM meta) AND t.tag = json_extract(c.value, '$.tag')
AND t.position > json_extract(c.value, '$.after') AND t.position <= :head
AND t.type IN (SELECT y.value FROM json_each(json_extract(c.value, '$.types')) AS y) AND e.position = t.position
LIMIT :limit
"""
_FOUND_POSTGRES = """
SELECT c.key, e.position, e.size
FROM jsonb_to_recordset(CAST(:items AS jsonb)) AS c(key integer, after bigint, tag text, types jsonb)
CROSS JOIN LATERAL (
    SELECT t.position FROM tags AS t
    WHERE t.generation = (SELECT tag_generation FROM meta) AND t.tag = c.tag
    AND t.position > c.after AND t.position <= :head
    AND t.type IN (SELECT jsonb_array_elements_text(c.types)) OFFSET 0) AS f
CROSS JOIN LATERAL (
    SELECT position, length(envelope) AS size FROM events WHERE position = f.position OFFSET 0) AS e
LIMIT :limit
"""
_EVENTS = """
SELECT position, public_position, type, envelope FROM events WHERE position IN (SELECT {value} FROM {each})
"""


class _Statements(NamedTuple):
    found: str
    events: str


_STATEMENTS: Mapping[str, _Statements] = {
    "sqlite": _Statements(_FOUND_SQLITE, _EVENTS.format(value="value", each="json_each(:positions)")),
    "postgresql": _Statements(
        _FOUND_POSTGRES,
        _EVENTS.format(
            value="CAST(p.value AS bigint)", each="jsonb_array_elements_text(CAST(:positions AS jsonb)) AS p(value)"
        ),
    ),
}


Found: TypeAlias = Slice | None
"""None for a history that is too long to be read together with others."""


def shareable(query: Query) -> bool:
    """Whether a query is a boundary's: types of one tag, or of several."""
    return bool(query.items) and all(item.types and len(item.tags) == 1 for item in query.items)


class Histories(Protocol):
    """Reads histories of boundaries."""

    async def ask(self, question: Wanted) -> Found:
        """Read one, perhaps together with others that are asked for at the time."""
        ...

    async def read(self, wanted: Sequence[Wanted]) -> Sequence[Found]:
        """Read several at once."""
        ...

    async def kept(self, wanted: Sequence[StateKey]) -> Sequence[Kept | None]:
        """Read kept states."""
        ...

    async def close(self) -> None:
        """Give up what they are read with."""
        ...


class SqliteHistories:
    """Reads one after the other: on SQLite that costs less than to bring those together who ask."""

    def __init__(self, uri: str) -> None:
        # Outside of transactions, so that each statement sees all that is committed and holds nothing afterwards.
        self._connection = sqlite3.connect(uri, uri=True, timeout=10, isolation_level=None, check_same_thread=False)

    async def ask(self, question: Wanted) -> Found:
        """Read one."""
        return read_histories(self._connection, SQLITE, [question])[0]

    async def read(self, wanted: Sequence[Wanted]) -> Sequence[Found]:
        """Read several at once."""
        return read_histories(self._connection, SQLITE, wanted)

    async def kept(self, wanted: Sequence[StateKey]) -> Sequence[Kept | None]:
        """Read kept states."""
        return read_kept(self._connection, SQLITE, wanted)

    def head(self) -> Head:
        """Say where the log stands."""
        return SQLITE.head(self._connection)[0]

    async def close(self) -> None:
        """Close the connection."""
        self._connection.close()


def read_histories(connection: C, dialect: Dialect[C], wanted: Sequence[Wanted]) -> Sequence[Found]:
    """Read histories of boundaries with the same few statements, however many they are."""
    statements = _STATEMENTS[dialect.name]
    head = dialect.head(connection)[0].position
    parameters = {
        "items": json.dumps(list(_items(wanted))),
        "head": head,
        "limit": MOST_EVENTS + 1,
    }
    rows = dialect.rows(connection, statements.found, parameters)
    sizes: list[dict[int, int]] = [{} for _ in wanted]
    for key, position, size in rows:
        sizes[key][position] = size
    if len(rows) > MOST_EVENTS or sum(size for found in sizes for size in found.values()) > MOST_BYTES:
        return [None] * len(wanted)
    positions = sorted({position for found in sizes for position in found})
    events: dict[int, StoredEvent] = {}
    if positions:
        found_events = dialect.rows(connection, statements.events, {"positions": json.dumps(positions)})
        for position, public_position, event_type, envelope in found_events:
            events[position] = StoredEvent(position, public_position or 0, event_type, envelope)
    return [
        Slice([events[position] for position in sorted(found)], max(one.after, head))
        if sum(found.values()) <= MAX_SLICE_BYTES
        else None
        for one, found in zip(wanted, sizes, strict=True)
    ]


def _items(wanted: Sequence[Wanted]) -> Iterable[dict[str, object]]:
    for key, one in enumerate(wanted):
        for item in one.query.items:
            (tag,) = item.tags
            yield {"key": key, "after": one.after, "tag": tag, "types": sorted(item.types)}
