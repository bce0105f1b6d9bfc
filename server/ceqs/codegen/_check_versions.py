"""Checks of what events were in earlier versions, and of what they have replaced."""

from __future__ import annotations

import re
from collections.abc import Iterator

from google.protobuf.descriptor import Descriptor

from ceqs.codegen._package import Package, is_event, is_public, nearest
from ceqs.contract import replaced_by, upcaster_method, version_of

_VERSION, _REPLACES = 2, 4


def check_versions(package: Package) -> None:
    """Check that it is said how each earlier form of an event was recorded, and that each becomes one event."""
    owners: dict[str, Descriptor] = {}
    methods: dict[str, str] = {}
    for event in package.events:
        _check_versions(package, event)
        _check_replaced(package, event, owners)
        for method, what in _upcasters(package, event):
            other = methods.setdefault(method, what)
            if other != what:
                package.at_message(event, f"{what} and {other} are both upcast by {method}; rename one")


def _upcasters(package: Package, event: Descriptor) -> Iterator[tuple[str, str]]:
    """Give the name of each upcaster, and what it upcasts in words."""
    for version in range(1, version_of(event)):
        yield upcaster_method(event, version, package.name), f"version {version} of {event.full_name}"
    for replaced in filter(None, (_found(event, name) for name in replaced_by(event))):
        yield upcaster_method(replaced, None, package.name), f"the event {replaced.full_name}"
        if replaced.file.package != package.name:
            yield from _upcasters(package, replaced)


def _check_versions(package: Package, event: Descriptor) -> None:
    """Check that an event says how each of its earlier versions was recorded, and no other."""
    version, nested = version_of(event), {message.name: message for message in event.nested_types}
    for number in range(1, version):
        if f"V{number}" not in nested:
            package.at_event(
                event,
                f"{event.name} is at version {version} and does not say how version {number} was recorded; declare it "
                f"in {event.name}, as message V{number}",
                _VERSION,
            )
    for name, message in nested.items():
        if (found := re.fullmatch(r"V([1-9]\d*)", name)) and int(found[1]) >= version:
            package.at_message(
                message,
                f"{event.name} is at version {version}, so {name} is none of its earlier ones; raise the version to "
                f"{int(found[1]) + 1}, or give {name} another name",
            )


def _check_replaced(package: Package, event: Descriptor, owners: dict[str, Descriptor]) -> None:
    """Check what an event has replaced. `owners`: which event each name was replaced by so far."""
    for index, name in enumerate(replaced_by(event)):
        replaced = _found(event, name)
        if replaced is None:
            hint = nearest(name, [other.full_name for other in package.events])
            package.at_event(event, f"{event.name} replaces {name}, which is no event; {hint}", _REPLACES, index)
        elif is_public(replaced) != is_public(event):
            package.at_event(
                event,
                f"{event.name} replaces {name}, but one of them is public and the other is not; a public event stays "
                "one",
                _REPLACES,
                index,
            )
        elif event.full_name in _replaced_in_turn(replaced, {event.full_name}):
            package.at_event(event, f"{event.name} and {name} replace each other; drop one", _REPLACES, index)
        owner = owners.setdefault(name, event)
        if owner is not event:
            package.at_event(
                event,
                f"{event.name} and {owner.name} both replace {name}; it can be read as one only",
                _REPLACES,
                index,
            )


def _replaced_in_turn(event: Descriptor, seen: set[str]) -> set[str]:
    """Give the names of an event and of all that it has replaced, directly or not."""
    found = {event.full_name}
    for name in replaced_by(event):
        inner = _found(event, name)
        if name in seen or inner is None:
            found.add(name)
        else:
            found |= _replaced_in_turn(inner, seen | {name})
    return found


def _found(event: Descriptor, name: str) -> Descriptor | None:
    try:
        found: Descriptor = event.file.pool.FindMessageTypeByName(name)
    except KeyError:
        return None
    return found if is_event(found) else None
