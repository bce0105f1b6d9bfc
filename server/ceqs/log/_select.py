"""Reading stored events: short statements that each walk along an index, for SQLite and PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cache
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from ceqs.log._span import Row, to_batch, to_slice
from ceqs.log._types import Span

T = TypeVar("T")


class Form(NamedTuple, Generic[T]):
    """What a read gives: the columns of `e`, the events, and the value that is made of the rows."""

    columns: str
    give: Callable[[Span, Iterable[Row]], T]


class Reads(Protocol):
    """Reads a log's tables; see LogReader."""

    async def head(self) -> Sequence[Any]:
        """Give the row of HEAD; see SqlReader.head."""
        ...

    async def read(self, span: Span, form: Form[T]) -> T:
        """Read events."""
        ...

    async def position_before(self, micros: int, *, public: bool) -> int:
        """Give the last position that was recorded before a time."""
        ...

    async def tagged(self, tags: Sequence[str], after: int, until: int) -> Sequence[tuple[int, str]]:
        """Give which of the positions carry which of the tags."""
        ...

    async def close(self) -> None:
        """Give up what is read with."""
        ...


SLICE = Form("e.position, coalesce(e.public_position, 0), e.type, e.envelope", to_slice)
BATCH = Form("e.{number}, e.envelope", to_batch)


def number_of(span: Span) -> str:
    """Give the column by which the reader counts."""
    return "public_position" if span.public else "position"


def order_of(span: Span) -> str:
    """Give the direction of a walk."""
    return "DESC" if span.backwards else "ASC"


@cache
def position_before(number: str, micros: str) -> str:
    """Give the statement that searches a time by halving: times ascend with positions, and positions have no gaps.

    So it needs no index besides the key, which every append would have to pay for.
    """
    return f"""
WITH RECURSIVE search(low, high) AS (
    SELECT CAST(0 AS bigint), coalesce(
        (SELECT {number} FROM events WHERE {number} IS NOT NULL ORDER BY {number} DESC LIMIT 1), 0) + 1
    UNION ALL
    SELECT CASE WHEN e.recorded_at < {micros} THEN e.{number} ELSE s.low END,
        CASE WHEN e.recorded_at < {micros} THEN s.high ELSE e.{number} END
    FROM search AS s CROSS JOIN events AS e WHERE s.high - s.low > 1 AND e.{number} = (s.low + s.high) / 2)
SELECT low FROM search WHERE high - low = 1
"""  # noqa: S608  # columns and parameters


GENERATION = "(SELECT tag_generation FROM meta)"
