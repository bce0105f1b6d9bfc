"""The states of a batch of commands as it goes on: what each of them proposes, those after it know."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TypeAlias

from google.protobuf.message import Message

from ceqs.log import NewEvent
from ceqs.model import Boundary
from ceqs.queries import Known, States

Proposed: TypeAlias = tuple[NewEvent, Message, str]
"""An event that a command of the batch would append, and the key of the command's boundary."""


class Pending:
    """Folds the loaded states on with the events that are proposed."""

    def __init__(self, states: States, loaded: Mapping[str, Known | Exception]) -> None:
        self._states = states
        self._known: dict[str, tuple[Known | Exception, int]] = {key: (known, 0) for key, known in loaded.items()}
        """With how many of the proposed events each state has seen."""
        self._proposed: list[Proposed] = []
        self._given = 0
        self._places: dict[str, list[int]] = {}
        """Where among them those with a tag are."""

    def state(self, boundary: Boundary) -> Known:
        """Give the state of a boundary as of what was proposed so far; its position stays that of the log.

        Raises what its loading or its folding raised.
        """
        known, seen = self._known[boundary.key]
        if not isinstance(known, Known):
            raise known
        if self._is_untouched(boundary):
            return known
        if seen < len(self._proposed) and (missed := self._since(boundary, seen)):
            known = self._states.fold(boundary, known, missed)
            self._known[boundary.key] = known, len(self._proposed)
        return known

    def propose(
        self, boundary: Boundary, after: Known, events: Sequence[NewEvent], messages: Sequence[Message]
    ) -> None:
        """Note the events that a command proposes, and the state of its boundary after them."""
        key, place = boundary.key, len(self._proposed)
        for event, message in zip(events, messages, strict=True):
            for tag in event.tags:
                self._places.setdefault(tag, []).append(place)
            self._proposed.append((event, message, key))
            place += 1
        self._known[key] = after, place

    def latest(self) -> Iterator[tuple[type[Message], bytes]]:
        """Give the types and payloads of the events that were proposed since this was last asked."""
        latest = self._proposed[self._given :]
        self._given += len(latest)
        return ((type(message), event.payload) for event, message, _ in latest)

    def are_own(self, boundaries: Collection[Boundary]) -> bool:
        """Whether boundaries have no events of the batch but those that their own commands propose."""
        paths = (path for boundary in boundaries for path in boundary.paths or self._places)
        return self._places.keys().isdisjoint(paths) or all(map(self._is_own, boundaries))

    def _is_own(self, boundary: Boundary) -> bool:
        if self._is_untouched(boundary):
            return True
        places = (place for path in boundary.paths for place in self._places.get(path, ()))
        return bool(boundary.paths) and all(self._proposed[place][2] == boundary.key for place in places)

    def _is_untouched(self, boundary: Boundary) -> bool:
        """Whether it is plain at a glance that no proposed event is of a boundary."""
        return self._places.keys().isdisjoint(boundary.paths) if boundary.paths else not self._proposed

    def _since(self, boundary: Boundary, seen: int) -> list[Message]:
        if boundary.paths:
            found = set[int]()
            for path in boundary.paths:
                places = self._places.get(path)
                if places is not None and places[-1] >= seen:
                    found.update(places[bisect_left(places, seen) :])
            missed = [self._proposed[place] for place in sorted(found)]
        else:
            missed = self._proposed[seen:]
        return [message for event, message, _ in missed if boundary.holds(event.type, event.tags)]
