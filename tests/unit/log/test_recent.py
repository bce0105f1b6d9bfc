"""What a process knows of the events of late spares the database only questions whose answer is no."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ceqs.log import Condition, Head, _recent
from ceqs.log._judge import Verdict
from ceqs.log._recent import Mark, Recent
from ceqs.model import ALL, Query, QueryItem, matches

TYPES = st.sampled_from(["shop.Placed", "shop.Paid", "shop.Shipped"])
TAGS = st.frozensets(st.sampled_from(["order:1", "order:2", "product:1"]))
EVENTS = st.lists(st.tuples(TYPES, TAGS), max_size=8)
QUERIES = st.lists(st.builds(QueryItem, st.frozensets(TYPES), TAGS), max_size=3).map(lambda items: Query(tuple(items)))


def found(position: int, log_id: str = "log", generation: int = 1, tagging: int = 1) -> Mark:
    return Mark(log_id, position, generation, tagging)


def append(recent: Recent, before: int, *events: tuple[str, frozenset[str]]) -> None:
    recent.find(found(before))
    verdict = Verdict(Head("log", before + len(events)))
    for position, (event_type, tags) in enumerate(events, before + 1):
        verdict.events.append((position, None, f"e{position}", event_type, 0, 0, "c", b""))
        verdict.tags += [(1, tag, position, event_type) for tag in tags]
    recent.leave(verdict)


@given(EVENTS, EVENTS, QUERIES, st.integers(0, 20))
def test_what_is_held_to_be_untouched_was_matched_by_nothing(
    first: list[tuple[str, frozenset[str]]], second: list[tuple[str, frozenset[str]]], query: Query, after: int
) -> None:
    recent, base = Recent(), 3
    append(recent, base, *first)
    append(recent, base + len(first), *second)
    events = [*first, *second]
    matched = any(matches(query, *event) for event in events[max(0, after - base) :])
    untouched = recent.untouched(Condition(query, after))
    assert not (untouched and (matched or after < base))


@given(EVENTS, TAGS, TYPES, st.integers(3, 12))
def test_one_tag_or_one_type_is_known_for_certain(
    events: list[tuple[str, frozenset[str]]], tags: frozenset[str], event_type: str, after: int
) -> None:
    recent, base = Recent(), 3
    append(recent, base, *events)
    for item in (*(QueryItem(tags=frozenset([tag])) for tag in tags), QueryItem(types=frozenset([event_type]))):
        query = Query((item,))
        matched = any(matches(query, *event) for event in events[after - base :])
        assert recent.untouched(Condition(query, after)) is not matched


def test_what_another_process_appended_is_not_taken_for_nothing() -> None:
    recent, order = Recent(), Query((QueryItem(tags=frozenset(["order:1"])),))
    append(recent, 0, ("shop.Placed", frozenset(["order:1"])))
    assert recent.untouched(Condition(order, 1))
    recent.find(found(2))
    assert not recent.untouched(Condition(order, 1))
    assert recent.untouched(Condition(order, 2))


@pytest.mark.parametrize("mark", [found(1, log_id="other"), found(1, generation=2), found(1, tagging=2)])
def test_tags_count_only_in_the_log_and_by_the_rules_that_they_were_told_for(mark: Mark) -> None:
    recent, order = Recent(), Query((QueryItem(tags=frozenset(["order:1"])),))
    append(recent, 0, ("shop.Placed", frozenset(["order:2"])))
    assert recent.untouched(Condition(order, 0))
    recent.find(mark)
    assert not recent.untouched(Condition(order, 0))


def test_what_any_event_touches_is_left_to_the_database() -> None:
    recent = Recent()
    append(recent, 0)
    for query in (ALL, Query((QueryItem(),))):
        assert not recent.untouched(Condition(query, 0))


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_recent, "MOST", 10)
    recent, order = Recent(), Query((QueryItem(tags=frozenset(["order:1"])),))
    for position in range(100):
        append(recent, position, ("shop.Placed", frozenset([f"order:{position}"])))
        assert len(recent._last) <= 12
    assert not recent.untouched(Condition(order, 1)), "that was forgotten"
    assert recent.untouched(Condition(order, 99))
