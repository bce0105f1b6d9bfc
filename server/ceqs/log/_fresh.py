"""What this process has just appended: whoever follows the log is given it without asking the database."""

from __future__ import annotations

from collections.abc import Sequence

from ceqs.log._judge import EventRow
from ceqs.log._span import is_filter, to_slice
from ceqs.log._types import BEYOND, MAX_SLICE_BYTES, Slice, Span

MOST_EVENTS = 1000


class Fresh:
    """The events of the last batches, as far as they lie side by side and make one read."""

    def __init__(self) -> None:
        self._events: list[EventRow] = []
        self._bytes = 0

    def add(self, rows: Sequence[EventRow]) -> None:
        """Add the events of a batch that was committed."""
        if not rows:
            return
        size = sum([len(row[-1]) for row in rows])
        follows = bool(self._events) and self._events[-1][0] + 1 == rows[0][0]
        if not follows or len(self._events) + len(rows) > MOST_EVENTS or self._bytes + size > MAX_SLICE_BYTES:
            self._events, self._bytes = [], 0
        if size <= MAX_SLICE_BYTES:
            self._events += rows
            self._bytes += size

    def give(self, span: Span) -> Slice | None:
        """Give the events of a span that begins within them, and ends so or has no end; None for any other.

        Of one without an end, all are given: whether others have written beyond them is not known here.
        """
        if span.public or span.backwards or is_filter(span.query) or not self._events:
            return None
        first, last = self._events[0][0], self._events[-1][0]
        if not first <= span.after + 1 <= last or last < span.until < BEYOND:
            return None
        rows = self._events[span.after + 1 - first : span.until + 1 - first]
        return to_slice(span, ((number, public or 0, kind, raw) for number, public, _, kind, *_, raw in rows))
