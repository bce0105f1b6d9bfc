"""The statement by which stored events are read."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, Select, func, literal, or_, select, union
from sqlalchemy.sql.selectable import ScalarSelect

from ceqs.log._schema import events, meta, tags
from ceqs.log._types import MAX_SLICE_BYTES
from ceqs.model import Query, QueryItem

_GENERATION: ScalarSelect[int] = select(meta.c.tag_generation).scalar_subquery()


def is_filter(query: Query) -> bool:
    """Whether the query leaves out any event."""
    return bool(query.items) and all(item.types or item.tags for item in query.items)


def select_events(after: int, until: int | None, limit: int, query: Query, *, public: bool) -> Select[*tuple[Any, ...]]:
    """Select events in order: position, public_position, type, envelope, and `found`, how many there are in all.

    Sizes are summed up from the picked rows alone, so that neither database reads envelopes which the cap leaves out;
    `found` tells a slice that was cut from one that is complete.
    """
    number = events.c.public_position if public else events.c.position
    size: ColumnElement[int] = func.length(events.c.envelope)
    picked = select(events.c.position, size.label("size")).where(number > after)
    if until is not None:
        picked = picked.where(number <= until)
    if is_filter(query):
        picked = picked.where(
            events.c.position.in_(_positions(query, _first(after, public=public), limit, public=public))
        )
    rows = picked.order_by(number).limit(limit).subquery("picked")
    total = func.sum(rows.c.size).over(order_by=rows.c.position)
    sized = select(rows.c.position, rows.c.size, total.label("total"), func.count().over().label("found")).subquery(
        "sized"
    )
    return (
        select(events.c.position, events.c.public_position, events.c.type, events.c.envelope, sized.c.found)
        .join(sized, sized.c.position == events.c.position)
        .where(or_(sized.c.total <= MAX_SLICE_BYTES, sized.c.total == sized.c.size))
        .order_by(events.c.position)
    )


def _first(after: int, *, public: bool) -> ColumnElement[int]:
    """Give the position after which the walk along an index begins."""
    if not public:
        return literal(after)
    return func.coalesce(select(events.c.position).where(events.c.public_position == after).scalar_subquery(), 0)


def _positions(query: Query, first: ColumnElement[int], limit: int, *, public: bool) -> Any:
    """Each item gives its first `limit` positions from its own index; together they hold the query's first `limit`."""
    branches = [
        select(_positions_of(item, first, public=public).limit(limit).subquery().c.position) for item in query.items
    ]
    return union(*branches) if len(branches) > 1 else branches[0]


def _positions_of(item: QueryItem, first: ColumnElement[int], *, public: bool) -> Select[tuple[int]]:
    if not item.tags:
        found = select(events.c.position).where(events.c.type.in_(sorted(item.types)), events.c.position > first)
        found = found.order_by(events.c.position)
        return found.where(events.c.public_position.is_not(None)) if public else found
    lead_tag, *other_tags = sorted(item.tags)
    lead = tags.alias()
    found = select(lead.c.position).where(
        lead.c.generation == _GENERATION, lead.c.tag == lead_tag, lead.c.position > first
    )
    if item.types:
        found = found.where(lead.c.type.in_(sorted(item.types)))
    for tag in other_tags:
        # A lookup for each candidate. As a join, PostgreSQL without statistics compares all with all.
        other = tags.alias()
        carries = select(other.c.position).where(
            other.c.generation == _GENERATION, other.c.tag == tag, other.c.position == lead.c.position
        )
        found = found.where(lead.c.position == carries.scalar_subquery())
    if public:
        event = events.alias()
        is_public = select(event.c.position).where(
            event.c.position == lead.c.position, event.c.public_position.is_not(None)
        )
        found = found.where(lead.c.position == is_public.scalar_subquery())
    return found.order_by(lead.c.position)
