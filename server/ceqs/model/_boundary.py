"""The boundary of a request: the events that its decision or its answer depends on."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

from google.protobuf.message import Message

from ceqs.contract import StateType, TagField, tags_of
from ceqs.errors import Invalid, Misconfigured, Violation
from ceqs.model._query import Query, QueryItem


@dataclass(frozen=True, slots=True)
class Boundary:
    """The events of a state's types that carry any of the tags; all events of its types where there is no tag."""

    state: StateType
    tags: tuple[str, ...]
    query: Query

    @property
    def key(self) -> tuple[str, tuple[str, ...]]:
        """What tells this boundary from others."""
        return self.state.name, self.tags

    def holds(self, event_type: str, tags: Iterable[str]) -> bool:
        """Whether an event of that type with these tags belongs to the boundary."""
        listed = any(event.full_name == event_type for event in self.state.folds)
        return listed and (not self.tags or not frozenset(self.tags).isdisjoint(tags))

    def values(self) -> dict[str, str]:
        """Give the value of each tag key that has exactly one."""
        found: dict[str, str] = {}
        for key in self.state.boundary:
            values = [tag[len(key) + 1 :] for tag in self.tags if tag.startswith(key + ":")]
            if len(values) == 1:
                found[key] = values[0]
        return found


def boundary_of(state: StateType, fields: Iterable[TagField], request: Message) -> Boundary:
    """Give the boundary that a request addresses by its annotated fields.

    Raises Invalid, naming the field, where the request has no value for a key of the boundary: leaving the key out
    would widen the boundary.
    """
    fields = tuple(fields)
    tags = tags_of(request, fields)
    if not state.boundary:
        return Boundary(state, (), Query((QueryItem(_types(state)),)))
    chosen: set[str] = set()
    for key in state.boundary:
        of_key = [tag for tag in tags if tag.startswith(key + ":")]
        if not of_key:
            raise _without(key, fields, request)
        chosen.update(of_key)
    ordered = tuple(sorted(chosen))
    types = _types(state)
    return Boundary(state, ordered, Query(tuple(QueryItem(types, frozenset((tag,))) for tag in ordered)))


@cache
def _types_of(full_name: str, names: tuple[str, ...]) -> frozenset[str]:
    if not names:
        raise Misconfigured(f"the state {full_name} folds no event; name some in its option `folds`")
    return frozenset(names)


def _types(state: StateType) -> frozenset[str]:
    return _types_of(state.full_name, tuple(event.full_name for event in state.folds))


def _without(key: str, fields: tuple[TagField, ...], request: Message) -> Invalid | Misconfigured:
    names = [tag.field for tag in fields if tag.key == key]
    if not names:
        return Misconfigured(f"{request.DESCRIPTOR.full_name} has no field with the tag {key!r}, which its state needs")
    return Invalid(violations=[Violation(names[0], f"must have a value: it says which {key} is meant")])
