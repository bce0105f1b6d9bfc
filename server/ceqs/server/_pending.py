"""The states of a batch of commands as it goes on: what each of them proposes, those after it know."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from google.protobuf.message import Message

from ceqs.log import NewEvent
from ceqs.model import Boundary
from ceqs.queries import Known, States


class Proposed(NamedTuple):
    """An event that a command of the batch would append, with its place among all of them."""

    number: int
    event: NewEvent
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
        if seen < self._last and (missed := self._since(boundary, seen)):
            known = self._states.fold(boundary, known, missed)
            self._known[boundary.key] = known, self._last
        return known

    def propose(
        self, boundary: Boundary, after: Known, events: Sequence[NewEvent], messages: Sequence[Message]
    ) -> None:
        """Note the events that a command proposes, and the state of its boundary after them."""
        for event, message in zip(events, messages, strict=True):
            self._last += 1
            proposed = Proposed(self._last, event, message)
            self._by_type.setdefault(event.type, []).append(proposed)
            for tag in event.tags:
                self._by_tag.setdefault(tag, []).append(proposed)
        self._known[boundary.key] = after, self._last

    def _since(self, boundary: Boundary, seen: int) -> list[Message]:
        found: dict[int, Message] = {}
        for item in boundary.query.items:
            # The shorter walk: along one tag of the item, or along its types where it has none.
            paths = [self._by_tag.get(min(item.tags), ())] if item.tags else map(self._typed, item.types)
            for path in paths:
                for number, event, message in reversed(path):
                    if number <= seen:
                        break
                    if boundary.holds(event.type, event.tags):
                        found[number] = message
        return [found[number] for number in sorted(found)]

    def _typed(self, event_type: str) -> Sequence[Proposed]:
        return self._by_type.get(event_type, ())
