"""Checking what clients did and heard against the log that came of it.

The log is one order of all that was accepted. It is right where that order could have been the order of events:
whatever was answered before something else was asked stands before it (linearizability, see Herlihy and Wing 1990,
https://doi.org/10.1145/78969.78972; here the order is given, so checking it takes no search), every answer is true at
some moment between question and answer, and nothing is there that nobody asked for, nor twice.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from itertools import accumulate
from typing import TypeVar

from ceqs.testing._history import Ending, Fact, Operation, Violation

K = TypeVar("K")
V = TypeVar("V")

NEVER = float("inf")


def check_history(
    operations: Iterable[Operation], log: Sequence[Fact], readings: Iterable[Sequence[tuple[int, str]]] = ()
) -> list[Violation]:
    """Give every promise that the log breaks; none where all is well.

    `log` is the whole log in its order. A reading is what one reader was given: positions and event ids, in order.

    The rules: `gapless` positions, of all and of the public events; event ids are `unique`; every event was `asked
    for`; what was `acknowledged` is there once, with one receipt for all who asked; an `unknown` outcome is there once
    or not at all; what was `refused` is not there; a `duplicate` has an original, and an id one content; the `order` of
    the log is that of real time; what was `decided` was decided on the present; what was `read` is what is there.
    """
    return list(_Check(list(operations), log).violations(readings))


class _Check:
    def __init__(self, operations: Sequence[Operation], log: Sequence[Fact]) -> None:
        self._log = log
        self._asked: Mapping[str, list[Operation]] = _grouped((op.command_id, op) for op in operations)
        self._facts: Mapping[str, list[Fact]] = _grouped((fact.command_id, fact) for fact in log)
        self._tagged: Mapping[str, list[int]] = _grouped((tag, fact.position) for fact in log for tag in set(fact.tags))
        self._positions_of = cache(self._moving)
        # By the time in `_answered[i]`, every position up to `_reached[i]` had been acknowledged.
        known = sorted((op.completed, op.receipt.position) for op in operations if op.receipt and op.completed < NEVER)
        self._answered = [completed for completed, _ in known]
        self._reached = list(accumulate((position for _, position in known), max))

    def violations(self, readings: Iterable[Sequence[tuple[int, str]]]) -> Iterator[Violation]:
        yield from self._gaps()
        for command_id, facts in self._facts.items():
            if command_id not in self._asked:
                yield Violation("asked for", f"nobody sent {command_id}, which has event {facts[0].position}")
        for command_id, asked in self._asked.items():
            facts = self._facts.get(command_id, [])
            yield from self._outcome(command_id, asked, facts)
            yield from self._order(command_id, asked, facts)
            for operation in asked:
                yield from self._decision(operation)
        for reading in readings:
            yield from self._reading(reading)

    def _gaps(self) -> Iterator[Violation]:
        public = [fact.public_position for fact in self._log if fact.public_position]
        for kind, numbers in (("position", [fact.position for fact in self._log]), ("public position", public)):
            for expected, number in enumerate(numbers, 1):
                if number != expected:
                    yield Violation("gapless", f"{kind} {number} stands where {expected} should")
                    break
        ids = set[str]()
        for fact in self._log:
            if fact.id in ids:
                yield Violation("unique", f"event id {fact.id} is there again at {fact.position}")
            ids.add(fact.id)

    def _outcome(self, command_id: str, asked: Sequence[Operation], facts: Sequence[Fact]) -> Iterator[Violation]:
        receipts = [op.receipt for op in asked if op.receipt]
        there = [fact.id for fact in facts]
        if len({op.content for op in asked if op.receipt}) > 1:
            yield Violation("duplicate", f"{command_id} was accepted with several contents")
        if receipts:
            yield from self._acknowledged(command_id, asked, facts)
        elif there and (sizes := {op.events for op in asked if op.ending is Ending.UNKNOWN}):
            if None not in sizes and len(there) not in sizes:
                yield Violation("unknown", f"{command_id} appends {sizes} events and has {len(there)}")
            if facts[-1].position - facts[0].position + 1 != len(facts):
                yield Violation("unknown", f"the events of {command_id} are not together: {_places(facts)}")
        for op in asked:
            others = [other for other in asked if other is not op and other.ending in _MAY_BE_THERE]
            if op.ending is Ending.REFUSED:
                if there and not others:
                    yield Violation("refused", f"{command_id} was refused and is there: {_places(facts)}")
                if any(other.completed < op.invoked for other in others):
                    yield Violation("refused", f"{command_id} was refused after it had been accepted")
            elif op.ending is Ending.DUPLICATE and not ((there and others) or receipts or _traceless(others)):
                yield Violation("duplicate", f"{command_id} was called a duplicate, and there is no other")

    def _acknowledged(self, command_id: str, asked: Sequence[Operation], facts: Sequence[Fact]) -> Iterator[Violation]:
        receipts = [op.receipt for op in asked if op.receipt]
        first = receipts[0]
        if any(other != first for other in receipts):
            yield Violation("acknowledged", f"{command_id} has several receipts: {receipts}")
        if [fact.id for fact in facts] != list(first.event_ids):
            yield Violation(
                "acknowledged",
                f"the receipt of {command_id} names {len(first.event_ids)} events up to "
                f"{first.position}; the log has {_places(facts)}",
            )
        elif facts and [fact.position for fact in facts] != [
            first.position - len(facts) + 1 + i for i in range(len(facts))
        ]:
            yield Violation("acknowledged", f"the receipt of {command_id} says {first.position}, not {_places(facts)}")
        elif first.position > len(self._log):
            yield Violation("acknowledged", f"the receipt of {command_id} says {first.position}, beyond the log's head")

    def _order(self, command_id: str, asked: Sequence[Operation], facts: Sequence[Fact]) -> Iterator[Violation]:
        if not facts:
            receipts = [op for op in asked if op.receipt]
            # An event is to come after the head that the receipt names.
            place = receipts[0].receipt.position + 1 if receipts and receipts[0].receipt else None
        else:
            place = facts[0].position
        invoked = min((op.invoked for op in asked if op.ending in _MAY_BE_THERE), default=NEVER)
        if place is not None and (reached := self._acknowledged_before(invoked)) >= place:
            yield Violation(
                "order", f"{command_id} stands at {place}, but {reached} was acknowledged before it was sent"
            )

    def _decision(self, op: Operation) -> Iterator[Violation]:
        """Look whether a decision that saw n events stands after the n-th of its boundary and before the next."""
        if op.saw is None:
            return
        moving = self._positions_of(op.boundary)
        if op.saw > len(moving):
            yield Violation("decided", f"{op.command_id} saw {op.saw} events of {op.boundary}; there are {len(moving)}")
            return
        if op.receipt:
            place = op.receipt.position - len(op.receipt.event_ids)
            if (seen := bisect_right(moving, place)) != op.saw:
                yield Violation("decided", f"{op.command_id} was decided on {op.saw} of {seen} events at {place}")
            return
        following = moving[op.saw] if op.saw < len(moving) else NEVER
        if (reached := self._acknowledged_before(op.invoked)) >= following:
            yield Violation(
                "decided",
                f"{op.command_id} was decided on {op.saw} events of {op.boundary} when {following} had been "
                f"acknowledged (as had {reached})",
            )
        if op.saw and self._sent(moving[op.saw - 1]) > op.completed:
            yield Violation("decided", f"{op.command_id} saw {op.saw} events of {op.boundary} before the last was sent")

    def _reading(self, reading: Sequence[tuple[int, str]]) -> Iterator[Violation]:
        expected = reading[0][0] if reading else 0
        for position, event_id in reading:
            if position != expected:
                yield Violation("read", f"a reader was given {position} where {expected} was next")
                return
            if position > len(self._log) or self._log[position - 1].id != event_id:
                yield Violation("read", f"a reader was given {event_id} at {position}, which the log has not")
                return
            expected += 1

    def _acknowledged_before(self, time: float) -> int:
        """Give the last position that was acknowledged before a time."""
        earlier = bisect_left(self._answered, time)
        return self._reached[earlier - 1] if earlier else 0

    def _sent(self, position: int) -> float:
        """Give when an event was asked for first."""
        asked = self._asked.get(self._log[position - 1].command_id, []) if position <= len(self._log) else []
        return min((op.invoked for op in asked), default=-NEVER)

    def _moving(self, boundary: tuple[str, ...]) -> Sequence[int]:
        """Give the positions of the events that move a boundary, in order."""
        if not boundary:
            return [fact.position for fact in self._log]
        if len(boundary) == 1:
            return self._tagged.get(boundary[0], [])
        return sorted({position for tag in boundary for position in self._tagged.get(tag, [])})


_MAY_BE_THERE = (Ending.ACCEPTED, Ending.UNKNOWN)


def _grouped(pairs: Iterable[tuple[K, V]]) -> Mapping[K, list[V]]:
    groups = defaultdict[K, list[V]](list)
    for key, value in pairs:
        groups[key].append(value)
    return dict(groups)


def _traceless(operations: Iterable[Operation]) -> bool:
    """Say whether one of them may have been accepted without events, and nobody heard of it."""
    return any(op.ending is Ending.UNKNOWN and not op.events for op in operations)


def _places(facts: Sequence[Fact]) -> str:
    return f"{len(facts)} at {', '.join(str(fact.position) for fact in facts)}" if facts else "none"
