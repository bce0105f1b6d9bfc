"""What one read gives: as many of the rows of a span as it has room for, as values or as ready bytes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain
from typing import Any, TypeAlias

from ceqs.contract import prefix
from ceqs.log._types import MAX_SLICE_BYTES, Batch, Slice, Span, StoredEvent
from ceqs.model import Query

FRAME = 4
"""Bytes by which an event is longer in a batch: the tag of a field, and a length below 2 MiB."""

Row: TypeAlias = Sequence[Any]
"""Begins with what the rows are ordered by and ends with the envelope."""


def is_filter(query: Query) -> bool:
    """Whether the query leaves out any event."""
    return bool(query.items) and all(item.types or item.tags for item in query.items)


def up_to(span: Span, head: int) -> Span:
    """Give the span that ends at the head, if this one goes beyond it."""
    return replace(span, until=max(span.after, min(span.until, head)))


def to_slice(span: Span, rows: Iterable[Row]) -> Slice:
    """Give rows of position, public position, type and envelope as a value."""
    taken, complete = _take(span, rows)
    events = [StoredEvent(*row) for row in taken]
    last = (events[-1].public_position if span.public else events[-1].position) if events else span.after
    return Slice(events, _through(span, last, complete=complete))


def to_batch(span: Span, rows: Iterable[Row]) -> Batch:
    """Give rows of number and envelope as ready bytes."""
    taken, complete = _take(span, rows)
    last = taken[-1][0] if taken else span.after
    return Batch(splice([row[-1] for row in taken]), len(taken), _through(span, last, complete=complete))


def splice(envelopes: Sequence[bytes]) -> bytes:
    """Give the bytes of a message that has these messages in its field 1."""
    return b"".join(chain.from_iterable(zip(map(partial(prefix, 1), map(len, envelopes)), envelopes, strict=True)))


def _take(span: Span, rows: Iterable[Row]) -> tuple[list[Row], bool]:
    """Take as many rows as one read may give. Say whether they were all."""
    taken: list[Row] = []
    size = 0
    for row in rows:
        size += len(row[-1]) + FRAME
        if size > MAX_SLICE_BYTES and taken:
            return taken, False
        taken.append(row)
        if len(taken) == span.limit:
            return taken, False
    return taken, True


def _through(span: Span, last: int, *, complete: bool) -> int:
    if not complete:
        return last
    if span.backwards:
        return span.after + 1
    # Without a filter, the last event is the last position; with one, `until` is not beyond the head.
    return max(span.after, span.until if is_filter(span.query) else last)
