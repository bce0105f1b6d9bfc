"""Which events are meant: by their types and their tags."""

from __future__ import annotations

from collections.abc import Iterable

from ceqs.contract import value


@value()
class QueryItem:
    """Events of any of the types (all types where empty) that carry all of the tags."""

    types: frozenset[str] = frozenset()
    tags: frozenset[str] = frozenset()


@value()
class Query:
    """Events that any of the items matches; every event where there is no item (see https://dcb.events)."""

    items: tuple[QueryItem, ...] = ()


ALL = Query()


def matches(query: Query, event_type: str, tags: Iterable[str]) -> bool:
    """Whether any item of the query matches: items OR-ed, types OR-ed, tags AND-ed (see https://dcb.events)."""
    for item in query.items:  # a generator costs more than what it looks at
        if item_matches(item, event_type, tags):
            return True
    return not query.items


def item_matches(item: QueryItem, event_type: str, tags: Iterable[str]) -> bool:
    """Whether the event is of one of the item's types and carries all of its tags."""
    return (not item.types or event_type in item.types) and item.tags.issubset(tags)
