"""The boundary of a request: which tags its state's events carry."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from google.protobuf.message import Message

from ceqs.contract._tags import tags_of
from ceqs.contract._types import CommandRpc, QueryRpc, StateType
from ceqs.errors import Invalid, Violation


def boundary_tags(rpc: CommandRpc | QueryRpc, request: Message) -> tuple[str, ...]:
    """Give the tags that bound the request's state, in the order of the request's fields, each once.

    The boundary is every event that the state lists and that carries any of them; a type-level state
    (`boundary: []`) and an rpc without a state have none. Raises Invalid, naming the field, where a boundary key has
    no value in the request: a missing value never widens the boundary.
    """
    keys = rpc.state.boundary if rpc.state else ()
    fields = [tag for tag in rpc.tags if tag.key in keys]
    missing: list[Violation] = []
    for key in keys:
        of_key = [tag for tag in fields if tag.key == key]
        if not tags_of(request, of_key):
            named = of_key[0].field if of_key else key
            missing.append(Violation(named, f"is required: {rpc.name} needs the tag {key!r}"))
    if missing:
        raise Invalid(violations=missing)
    return tags_of(request, fields)


def boundary_values(tags: Iterable[str]) -> dict[str, str]:
    """Give the value by key of the tags whose key has one value only: what a state's tag fields are prefilled with."""
    pairs = [tag.partition(":") for tag in dict.fromkeys(tags)]
    count = Counter(key for key, _, _ in pairs)
    return {key: value for key, _, value in pairs if count[key] == 1}


def in_boundary(state: StateType, tags: Iterable[str], event_type: str, event_tags: Iterable[str]) -> bool:
    """Say whether an event (full type name and tags) lies in the boundary that the tags span for the state."""
    if all(event.full_name != event_type for event in state.folds):
        return False
    return not state.boundary or not set(tags).isdisjoint(event_tags)
