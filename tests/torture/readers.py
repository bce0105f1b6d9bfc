"""Who reads a log through its server, beside what they have to be given."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from tests.torture.books import Books

from ceqs.server._events import Events
from ceqs.testing import Violation
from ceqs.v1.events_pb2 import (
    SCOPE_PRIVATE,
    SCOPE_PUBLIC,
    EventFilter,
    ReadRequest,
    ReadResponse,
    RecordedEvent,
    SubscribeRequest,
    SubscribeResponse,
)


class Archive(Books):
    """Books that keep the events themselves."""

    def __init__(self, messages: Any) -> None:
        super().__init__(messages)
        self.recorded: list[RecordedEvent] = []

    def _take(self, recorded: RecordedEvent) -> Iterator[Violation]:
        self.recorded.append(recorded)
        yield from super()._take(recorded)

    def chosen(self, choice: Choice) -> list[RecordedEvent]:
        """Give the events that are chosen, in order."""
        return [
            event
            for event, fact in zip(self.recorded, self.facts, strict=True)
            if (event.public_position or not choice.public)
            and choice.type in ("", event.type)
            and choice.tag in ("", *fact.tags)
        ]


@dataclass(frozen=True)
class Choice:
    """Which events; empty is all of them."""

    public: bool = False
    type: str = ""
    tag: str = ""

    @property
    def scope(self) -> Any:
        return SCOPE_PUBLIC if self.public else SCOPE_PRIVATE

    @property
    def filter(self) -> EventFilter:
        return EventFilter(types=[self.type] if self.type else [], tags=[self.tag] if self.tag else [])

    def position(self, event: RecordedEvent) -> int:
        """Say where an event stands as this reader counts."""
        return event.public_position if self.public else event.position


@dataclass(frozen=True)
class Reading:
    """A reading of what is chosen, between places that are counted around a log of whatever length."""

    choice: Choice
    after: int
    before: int
    """0 for the end."""
    limit: int
    """0 for all."""
    backwards: bool
    timed: bool
    """The places are the times of the events that stand there."""

    def of(self, archive: Archive) -> tuple[ReadRequest, list[RecordedEvent]]:
        """Give the request, and what it has to be answered with."""
        choice, everything = self.choice, archive.chosen(Choice(self.choice.public))
        request = ReadRequest(scope=choice.scope, limit=self.limit, filter=choice.filter, backwards=self.backwards)
        found = archive.chosen(choice)
        if self.timed and everything:
            first, last = (everything[place % len(everything)].recorded_at for place in (self.after, self.before))
            request.from_time.CopyFrom(first)
            found = [event for event in found if event.recorded_at.ToNanoseconds() >= first.ToNanoseconds()]
            if self.before:
                request.before_time.CopyFrom(last)
                found = [event for event in found if event.recorded_at.ToNanoseconds() < last.ToNanoseconds()]
        else:
            request.after, request.before = self.after % (len(everything) + 1), self.before
            found = [event for event in found if choice.position(event) > request.after]
            if self.before:
                found = [event for event in found if choice.position(event) < self.before]
        if self.backwards:
            found.reverse()
        return request, found[: self.limit or None]


async def read(events: Events, request: ReadRequest) -> list[RecordedEvent]:
    """Give what a request is answered with."""
    found: list[RecordedEvent] = []
    async for data in events.read(request):
        found += ReadResponse.FromString(data).events
    return found


class Subscriber:
    """Follows what is chosen of a log, and goes on where it was when whoever served it is gone."""

    def __init__(self, choice: Choice, after: int) -> None:
        self.choice = choice
        self.after = self._through = after
        self.found: list[RecordedEvent] = []
        self._task: asyncio.Task[None] | None = None

    @property
    def follows(self) -> bool:
        """Whether anybody serves it."""
        return self._task is not None and not self._task.done()

    def join(self, events: Events) -> None:
        """Subscribe where one was."""
        self._task = asyncio.create_task(self._follow(events))

    async def leave(self, *, told: bool = False) -> None:
        """Be cut off, or wait until one is `told` to go."""
        assert self._task
        if not told:
            self._task.cancel()
        await asyncio.wait([self._task])
        if not self._task.cancelled():
            self._task.result()

    async def has(self, expected: Sequence[RecordedEvent]) -> None:
        """Wait for so many events."""
        assert self._task
        async with asyncio.timeout(60):
            while len(self.found) < len(expected) and not self._task.done():
                await asyncio.sleep(0.001)
        if self._task.done():
            self._task.result()

    async def _follow(self, events: Events) -> None:
        request = SubscribeRequest(scope=self.choice.scope, after=self._through, filter=self.choice.filter)
        async with aclosing(events.subscribe(request)) as messages:
            async for data in messages:
                message = SubscribeResponse.FromString(data)
                self.found += message.events
                for told in (
                    *map(self.choice.position, message.events),
                    message.caught_up.position,
                    message.resume.position,
                ):
                    self._through = max(self._through, told)
