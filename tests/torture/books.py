"""The log of a tally, read as it grows, and whether its counters add up."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

from ceqs.errors import LogUnavailable
from ceqs.log import LogReader
from ceqs.testing import Fact, Operation, Violation
from ceqs.v1.events_pb2 import RecordedEvent


class Books:
    """Everything that the log holds, and where that leaves each counter."""

    def __init__(self, messages: Any) -> None:
        self.facts: list[Fact] = []
        self._changed = messages.Changed
        self.values = Counter[str]()
        self.changes = Counter[str]()
        self._last: dict[str, int] = {}
        """The last position of each command."""

    async def read_on(self, reader: LogReader) -> list[Violation]:
        """Read what the log has more than before; give what is wrong with it."""
        found = list[Violation]()
        failures = 0
        while True:
            try:
                part = await reader.read(after=len(self.facts))
            except LogUnavailable:
                # The database was ended for this reader, too.
                failures += 1
                if failures > 50:
                    raise
                await asyncio.sleep(0.05)
                continue
            if not part.events:
                return found
            for stored in part.events:
                found += self._take(RecordedEvent.FromString(stored.envelope))

    def missing(self, accepted: Iterable[Operation]) -> Iterator[Violation]:
        """Give those of the accepted operations that are not where their receipts say."""
        for op in accepted:
            if op.receipt and op.receipt.event_ids and self._last.get(op.command_id) != op.receipt.position:
                found = self._last.get(op.command_id, "nowhere")
                yield Violation("acknowledged", f"{op.command_id} is at {found}, not at {op.receipt.position}")

    def landed(self, command_id: str) -> bool:
        """Say whether a command has events."""
        return command_id in self._last

    def _take(self, recorded: RecordedEvent) -> Iterator[Violation]:
        event = self._changed.FromString(recorded.payload)
        counter = event.counter_id
        if recorded.position != len(self.facts) + 1:
            yield Violation("gapless", f"the log goes on with {recorded.position} after {len(self.facts)}")
        self.facts.append(
            Fact(recorded.position, recorded.id, recorded.command_id, (f"counter:{counter}",), recorded.public_position)
        )
        self._last[recorded.command_id] = recorded.position
        self.values[counter] += event.amount
        self.changes[counter] += 1
        true = self.values[counter], self.changes[counter]
        if (event.value, event.changes) != true:
            yield Violation(
                "decided",
                f"event {recorded.position} of {recorded.command_id} says that {counter} stands at {event.value} after "
                f"{event.changes} changes; it is {true[0]} after {true[1]}",
            )
            # One mistake is told once.
            self.values[counter], self.changes[counter] = event.value, event.changes
        if event.value < 0:
            yield Violation("decided", f"event {recorded.position} leaves {counter} with {event.value}")
