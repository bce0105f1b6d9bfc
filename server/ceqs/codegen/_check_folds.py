"""Checks of what states and keyed models list: tag keys and events."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from google.protobuf.descriptor import Descriptor

from ceqs.codegen._package import Package, is_public, nearest
from ceqs.contract import tag_fields

KEY = re.compile(r"[a-z][a-z0-9_]*")
"""What a tag key looks like."""
SPELT = "must be of lower-case letters, digits and underscores, a letter first"


def listed_wrongly(package: Package, folding: Descriptor, names: Sequence[str]) -> Iterator[tuple[int, str]]:
    """Give what is wrong with the events that a message lists, each with its place in the list."""
    events = {event.name: event for event in package.events if event.containing_type is None}
    known = {message.name for message in package.messages}
    for index, name in enumerate(names):
        if name in names[:index]:
            yield index, f"{folding.name} folds {name} twice; keep one"
        elif name not in events:
            mend = "declare it as one: option (ceqs.v1.event) = {};" if name in known else nearest(name, events)
            yield index, f"{folding.name} folds {name}, which is no event of {package.name}; {mend}"
        elif events[name].full_name in package.replaced:
            yield index, f"{folding.name} folds {name}, which another event has replaced; fold that one"


def listed_publicly(package: Package, what: str, names: Sequence[str]) -> Iterator[tuple[int, str]]:
    """Give which of the events are public, where only private ones are heard."""
    public = {event.name for event in package.events if is_public(event)}
    for index, name in enumerate(names):
        if name in public:
            yield index, f"{what} lists {name}, which is public; list the private event that it derives from"


def check_tags(package: Package, folding: Descriptor, names: Sequence[str], keys: Sequence[str], of: str) -> None:
    """Check that each listed event has a tag of one of the keys. `of`: what they are, such as `boundary`."""
    for event in package.events:
        listed = event.name in names and event.containing_type is None and event.full_name not in package.replaced
        if listed and not {tag.key for tag in tag_fields(event)}.intersection(keys):
            package.at_message(
                event,
                f"{event.name} is folded by {folding.name} but has no tag of its {of} ({', '.join(keys)}); "
                f'annotate a field: [(ceqs.v1.field).tag = "{keys[0]}"]',
            )
