"""What was just appended is given without a read, if it is all that a reader asks for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from ceqs.log import MAX_SLICE_BYTES, Query, QueryItem, Span, _fresh
from ceqs.log._fresh import Fresh
from ceqs.log._judge import EventRow


def rows(*positions: int, size: int = 10) -> Sequence[EventRow]:
    return [(p, None, f"e{p}", "A", 0, 0, "c", b"x" * size) for p in positions]


def given(fresh: Fresh, after: int, **bounds: Any) -> list[int] | None:
    found = fresh.give(Span(after=after, **bounds))
    return None if found is None else [event.position for event in found.events]


def test_batches_that_lie_side_by_side_are_one() -> None:
    fresh = Fresh()
    assert given(fresh, 0) is None
    fresh.add(rows(3, 4))
    fresh.add([])
    fresh.add(rows(5))
    assert [given(fresh, after) for after in (1, 2, 3, 4, 5)] == [None, [3, 4, 5], [4, 5], [5], None]
    assert given(fresh, 2, limit=2) == [3, 4]


def test_a_batch_of_another_process_between_them_ends_it() -> None:
    fresh = Fresh()
    fresh.add(rows(3, 4))
    fresh.add(rows(7))
    assert [given(fresh, after) for after in (2, 4, 6)] == [None, None, [7]]


def test_up_to_an_end_that_is_within_them_they_are_all() -> None:
    fresh = Fresh()
    fresh.add(rows(3, 4, 5))
    assert [given(fresh, 2, until=until) for until in (3, 4, 5, 6)] == [[3], [3, 4], [3, 4, 5], None]
    assert [given(fresh, after, until=5) for after in (1, 4, 5)] == [None, [5], None]


@pytest.mark.parametrize(
    "bounds", [{"public": True}, {"backwards": True}, {"until": 5}, {"query": Query((QueryItem(frozenset("A")),))}]
)
def test_every_other_span_is_read(bounds: dict[str, Any]) -> None:
    fresh = Fresh()
    fresh.add(rows(3, 4))
    assert given(fresh, 2, **bounds) is None


def test_it_is_bounded_in_number_and_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_fresh, "MOST_EVENTS", 3)
    fresh = Fresh()
    fresh.add(rows(1, 2))
    fresh.add(rows(3, 4))
    assert [given(fresh, after) for after in (0, 2)] == [None, [3, 4]]
    fresh.add(rows(5, size=MAX_SLICE_BYTES - 15))
    assert [given(fresh, after) for after in (2, 4)] == [None, [5]]
    fresh.add(rows(6, size=MAX_SLICE_BYTES + 1))
    assert [given(fresh, after) for after in (4, 5)] == [None, None]
