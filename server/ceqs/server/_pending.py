"""The states of a batch of commands as it goes on: what each of them proposes, those after it know."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from google.protobuf.message import Message

from ceqs.model import Boundary, matches
from ceqs.queries import Known, States


class Proposed(NamedTuple):
    """An event that a command of the batch would append, with its place among all of them."""

    number: int
    type: str
    tags: frozenset[str]
    message: Message


class Pending:
    """Folds the loaded states on with the events that are proposed."""

    def __init__(self, states: States, loaded: Mapping[object, Known | Exception]) -> None:
        self._states = states
        self._known: dict[object, tuple[Known | Exception, int]] = {key: (known, 0) for key, known in loaded.items()}
        """With the number of the last proposed event that each state has seen."""
        self._last = 0
        self._by_tag: dict[str, list[Proposed]] = {}
        self._by_type: dict[str, list[Proposed]] = {}

    def state(self, boundary: Boundary) -> Known:
        """Give the state of a boundary as of what was proposed so far; its position stays that of the log.

        Raises what its loading or its folding raised.
        """
        known, seen = self._known[boundary.key]
        if isinstance(known, Exception):
            raise known
        if seen < self._last:
            known = self._states.fold(boundary, known, [event.message for event in self._since(boundary, seen)])
            self._known[boundary.key] = known, self._last
        return known

    def propose(self, boundary: Boundary, after: Known, events: Iterable[tuple[str, Sequence[str], Message]]) -> None:
        """Note the events that a command proposes (type, tags, message), and the state of its boundary after them."""
        for event_type, tags, message in events:
            self._last += 1
            event = Proposed(self._last, event_type, frozenset(tags), message)
            self._by_type.setdefault(event_type, []).append(event)
            for tag in event.tags:
                self._by_tag.setdefault(tag, []).append(event)
        self._known[boundary.key] = after, self._last

    def _since(self, boundary: Boundary, seen: int) -> list[Proposed]:
        found: dict[int, Proposed] = {}
        for item in boundary.query.items:
            # The shorter walk: along one tag of the item, or along its types where it has none.
            paths = [self._by_tag.get(min(item.tags), ())] if item.tags else map(self._typed, item.types)
            for path in paths:
                for event in reversed(path):
                    if event.number <= seen:
                        break
                    if matches(boundary.query, event.type, event.tags):
                        found[event.number] = event
        return [found[number] for number in sorted(found)]

    def _typed(self, event_type: str) -> Sequence[Proposed]:
        return self._by_type.get(event_type, ())
