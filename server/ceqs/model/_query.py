"""Which events are meant: by their types and their tags."""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class QueryItem:
    """Events of any of the types (all types where empty) that carry all of the tags."""

    types: frozenset[str] = frozenset()
    tags: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Query:
    """Events that any of the items matches; every event where there is no item (see https://dcb.events)."""

    items: tuple[QueryItem, ...] = ()


ALL = Query()


def matches(query: Query, event_type: str, tags: AbstractSet[str]) -> bool:
    """Whether any item of the query matches: items OR-ed, types OR-ed, tags AND-ed (see https://dcb.events)."""
    return not query.items or any(item_matches(item, event_type, tags) for item in query.items)


def item_matches(item: QueryItem, event_type: str, tags: AbstractSet[str]) -> bool:
    """Whether the event is of one of the item's types and carries all of its tags."""
    return (not item.types or event_type in item.types) and item.tags <= tags
