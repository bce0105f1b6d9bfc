"""The boundary of a request: the events that its decision or its answer depends on."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import field, replace
from functools import lru_cache

from google.protobuf.message import Message

from ceqs.contract import EventType, StateType, TagField, checked_value, tags_of, value
from ceqs.errors import Invalid, Misconfigured, Violation
from ceqs.model._query import Query, QueryItem, matches


@value()
class Boundary:
    """The events of a state's types that carry any of the tags; all events of its types where there is no tag.

    A command may narrow or widen it (`only`, `without`, `also`). The state is then folded from the events that are
    left, and only they can make a decision obsolete. What no event can match is refused, never left out in silence: a
    type that the state does not fold, or tags that no event of the types carries, are Misconfigured; a tag without a
    value is Invalid.
    """

    state: StateType
    tags: tuple[str, ...]
    """What the request addresses, in a tailored boundary too."""
    query: Query
    tailored: bool = False
    """Whether code has narrowed or widened it: its state is then another one than that of the whole boundary."""
    key: str = field(init=False, compare=False, repr=False)
    """What tells this boundary from others; the same text in every process."""
    paths: tuple[str, ...] = field(init=False, compare=False, repr=False)
    """A tag of each item of the query: whatever matches the item has it. Empty where an item has no tag."""

    def __post_init__(self) -> None:
        items = self.query.items
        parts = [self.state.name, *self.tags]
        if self.tailored:
            # No tag has a line break in it.
            parts += sorted("\n".join(("", *sorted(item.types), "", *sorted(item.tags))) for item in items)
        paths = tuple(min(item.tags) for item in items) if all(item.tags for item in items) else ()
        object.__setattr__(self, "key", "\n".join(parts))
        object.__setattr__(self, "paths", paths)

    def holds(self, event_type: str, tags: Iterable[str]) -> bool:
        """Whether an event of that type with these tags belongs to the boundary."""
        if tags == self.tags and not self.tailored:  # as it mostly is with what its own commands decide
            return event_type in self.state.types
        return matches(self.query, event_type, tags)

    def values(self) -> dict[str, str]:
        """Give the value of each tag key that has exactly one."""
        found: dict[str, str] = {}
        for key in self.state.boundary:
            values = [tag[len(key) + 1 :] for tag in self.tags if tag.startswith(key + ":")]
            if len(values) == 1:
                found[key] = values[0]
        return found

    def only(self, *events: type[Message], tags: Iterable[str] = ()) -> Boundary:
        """Narrow it to events of these types (all types where none is named) that carry all of these tags.

        `boundary.only(StudentSubscribed, tags=boundary.tags)` holds what this student did in this course.
        """
        wanted, chosen = self._named(events, tags)
        narrowed = (QueryItem(item.types & wanted, item.tags | chosen) for item in self.query.items)
        return self._with(QueryItem(item.types & self._carriers(item.tags), item.tags) for item in narrowed)

    def without(self, *events: type[Message]) -> Boundary:
        """Narrow it to the events of other types than these."""
        if not events:
            return self
        unwanted, _ = self._named(events, ())
        return self._with(QueryItem(item.types - unwanted, item.tags) for item in self.query.items)

    def also(self, *events: type[Message], tags: Iterable[str] = ()) -> Boundary:
        """Widen it by the events of these types (all types where none is named) that carry all of these tags.

        `boundary.also(CourseDefined, tags=["department:maths"])` holds the other courses of a department as well.
        """
        wanted, chosen = self._named(events, tags)
        if not events and not chosen:
            raise Misconfigured(
                f"a boundary of {self.state.name} is to hold something more: name its types or its tags"
            )
        return self._with((*self.query.items, QueryItem(wanted, chosen)))

    def _named(self, events: Iterable[type[Message]], tags: Iterable[str]) -> tuple[frozenset[str], frozenset[str]]:
        """Give the types as the log has them, where none is named all that can carry the tags; and the tags."""
        declared = {event.full_name: event for event in self.state.folds}
        chosen = frozenset(self._checked(tag) for tag in tags)
        named = frozenset(event.DESCRIPTOR.full_name for event in events)
        for full_name in named:
            if full_name not in declared:
                names = ", ".join(event.name for event in self.state.folds)
                raise Misconfigured(f"{self.state.name} does not fold {full_name}; what it folds is {names}")
            if not declared[full_name].can_carry(chosen):
                raise Misconfigured(f"no {declared[full_name].name} carries {_all(chosen)}")
        found = _recorded_as(declared[name] for name in named) or self._carriers(chosen)
        if not found:
            raise Misconfigured(f"no event that {self.state.name} folds carries {_all(chosen)}")
        return found, chosen

    def _carriers(self, tags: frozenset[str]) -> frozenset[str]:
        return _recorded_as(event for event in self.state.folds if event.can_carry(tags))

    def _checked(self, tag: str) -> str:
        key, colon, value = tag.partition(":")
        if not colon or not any(event.can_carry((tag,)) for event in self.state.folds):
            keys = sorted({declared.key for event in self.state.folds for declared in event.tags})
            near = difflib.get_close_matches(key, keys, 1)
            hint = f"did you mean {near[0]}:...?" if near else f"their keys are {', '.join(keys) or 'none'}"
            raise Misconfigured(f"{tag!r} is no tag of an event that {self.state.name} folds; {hint}")
        if not value:
            raise Invalid(violations=[Violation(key, f"must have a value: it says which {key} is meant")])
        checked_value(key, value)
        return tag

    def _with(self, items: Iterable[QueryItem]) -> Boundary:
        """Give this boundary with other items, each once, less those that no event matches."""
        kept = dict.fromkeys(item for item in items if item.types)
        if not kept:
            raise Misconfigured(f"nothing is left of a boundary of {self.state.name}: no event can be in it")
        return replace(self, query=Query(tuple(kept)), tailored=True)


def _recorded_as(events: Iterable[EventType]) -> frozenset[str]:
    return frozenset[str]().union(*(event.recorded_as for event in events))


def _all(tags: Iterable[str]) -> str:
    return " and ".join(map(repr, sorted(tags)))


def boundary_of(state: StateType, fields: Sequence[TagField], request: Message) -> Boundary:
    """Give the boundary that a request addresses by its annotated fields.

    Raises Invalid, naming the field, where the request has no value for a key of the boundary: leaving the key out
    would widen the boundary.
    """
    boundary = _addressed(state, tags_of(request, fields))
    if isinstance(boundary, str):
        raise _without(boundary, fields, request)
    return boundary


@lru_cache(maxsize=10_000)
def _addressed(state: StateType, tags: tuple[str, ...]) -> Boundary | str:
    """Give the boundary that tags address, or the key that none of them is of."""
    if not state.types:
        raise Misconfigured(f"the state {state.full_name} folds no event; name some in its option `folds`")
    if not state.boundary:
        return Boundary(state, (), Query((QueryItem(state.types),)))
    chosen: set[str] = set()
    for key in state.boundary:
        of_key = [tag for tag in tags if tag.startswith(key + ":")]
        if not of_key:
            return key
        chosen.update(of_key)
    ordered = tuple(sorted(chosen))
    return Boundary(state, ordered, Query(tuple(QueryItem(state.types, frozenset((tag,))) for tag in ordered)))


def _without(key: str, fields: Sequence[TagField], request: Message) -> Invalid | Misconfigured:
    names = [tag.field for tag in fields if tag.key == key]
    if not names:
        return Misconfigured(f"{request.DESCRIPTOR.full_name} has no field with the tag {key!r}, which its state needs")
    return Invalid(violations=[Violation(names[0], f"must have a value: it says which {key} is meant")])
