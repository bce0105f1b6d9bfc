"""Tokens of other contexts: the own position at which what they say has arrived.

token of orders ──► orders: every publisher has passed it ──► its public position
                    inventory: every subscriber has passed that, and its commands are receipted ──► the own head
                               whoever reacts to own events has passed that, and so on ──► the own head
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from ceqs.contract import encode_token, public_of
from ceqs.errors import Behind, CeqsError, Expired
from ceqs.log import Head, LogReader, Numbered

STEPS = 3
"""How many reactions of a context to its own events are waited for, one after the other."""
STRANGE = 10.0
"""For how many seconds a context is not asked again about logs that it knows nothing of."""
ENOUGH = 0.05
"""How many seconds it takes at least to ask a context."""
EARLY = 0.5
"""For which part of the time that its caller has a context waits, before it says who is behind."""


class Handled(Protocol):
    """A publisher or subscriber."""

    async def reach(self, position: int, timeout: float) -> None:  # noqa: ASYNC109  # a bound, not a cancellation
        """Wait until it has passed a position of the log that it hears. Raises Behind after `timeout` seconds."""
        ...


class Source(Protocol):
    """A context whose public events are heard here."""

    async def public_position(self, token: str, asked: Collection[str], timeout: float) -> int | None:  # noqa: ASYNC109  # as above
        """Wait until all that a token says is public there; give the public position, None if it says nothing.

        Raises Behind, well within `timeout` seconds, where it is not yet; Unavailable where it cannot be asked, Expired
        where it has not answered.
        """
        ...


class Told(Source, Numbered, Protocol):
    """What another context tells: its public events, by public positions, and what its tokens mean there."""

    async def counted(self, position: int) -> int:
        """Give how many public events the first `position` events of its log are. Raises OutOfRange, Unavailable."""
        ...


@dataclass(frozen=True, slots=True)
class Hearing:
    """A source, and those who hear it here."""

    source: Source
    subscribers: Sequence[Handled] = ()


@dataclass(frozen=True, slots=True)
class Around:
    """What is around the log of a context: who hears it for others, and what others it hears, by their names."""

    publishers: Sequence[Handled] = ()
    heard: Mapping[str, Hearing] = field(default_factory=dict[str, Hearing])
    reactors: Sequence[Handled] = ()
    """Subscribers and process managers that hear the context's own events."""
    told: Mapping[str, Told] = field(default_factory=dict[str, Told])
    """The contexts whose public events are projected here, by their names."""


@dataclass(slots=True)
class _Known:
    """What was found out about the tokens of a source."""

    asked: Mapping[str, int] = field(default_factory=dict[str, int])
    at: int = 0
    """The position that includes what was asked: the own one, or the public one of the source."""
    strange: dict[frozenset[str], float] = field(default_factory=dict[frozenset[str], float])
    """The logs that it knows nothing of, and until when that is believed."""


class Hops:
    """Follows tokens across the contexts around one log."""

    def __init__(self, name: str, log: LogReader, around: Around) -> None:
        self._name = name
        self._log = log
        self._around = around
        self.told = around.told
        """The contexts whose public events are projected here, by their names."""
        self._known = {name: _Known() for name in around.heard}
        self._public_known = {name: _Known() for name in around.told}
        self._recorded = 0, 0
        """A public position of the own log, and the position at which that event was recorded."""

    async def arrived(self, token: Mapping[str, int], patience: float, asked: Collection[str] = ()) -> int:
        """Give the own position that includes all that a token says, of other logs too; 0 if it says nothing of them.

        Waits for it at most `patience` seconds, as far as it is others who have to get there. Raises Behind, naming who
        has not, Unavailable where one cannot be asked, and Expired where there is no time to ask.
        """
        foreign, until = self.foreign(token), time.monotonic() + patience
        own = token.get(self._log.log_id, 0)
        if public := token.get(public_of(self._log.log_id), 0):
            own = max(own, await self._recorded_at(public, until))
        if not foreign:
            return own
        sources = [name for name in self._around.heard if name not in asked]
        found = await asyncio.gather(*(self._heard(name, foreign, until, asked) for name in sources))
        return max([own, *found])

    async def public(self, token: Mapping[str, int], patience: float, asked: Collection[str] = ()) -> Head | None:
        """Wait until all that a token says is public; give a head whose public position includes it.

        None where it says nothing of this log, or of those that it hears. Raises as `arrived` does, long before the
        `patience` is over: whoever asks has somebody to pass it on to.
        """
        until = time.monotonic() + EARLY * patience
        position = await self.arrived(token, EARLY * patience, asked)
        if not position:
            return None
        if (at := await self._log.wait(position - 1, _left(until))) < position:
            raise Behind(f"the log of {self._name} ends at {at}, {position - at} before {position}")
        for publisher in self._around.publishers:
            await publisher.reach(position, _left(until))
        return await self._log.head()

    async def published(self, name: str, token: Mapping[str, int], patience: float) -> int:
        """Give the public position of a context at which all that a token says of other logs is public there.

        0 if it says nothing of them. Waits and raises as `arrived` does.
        """
        foreign, until = self.foreign(token), time.monotonic() + patience

        async def find() -> int | None:
            return await self._public_position(name, self.told[name], foreign, until, [self._name])

        return await _remembered(self._public_known[name], foreign, find) if foreign else 0

    def foreign(self, token: Mapping[str, int]) -> dict[str, int]:
        """Give what a token says of other logs."""
        own = self._log.log_id, public_of(self._log.log_id)
        return {log_id: position for log_id, position in token.items() if log_id not in own}

    async def _heard(self, name: str, foreign: Mapping[str, int], until: float, asked: Collection[str]) -> int:
        hearing = self._around.heard[name]

        async def find() -> int | None:
            position = await self._public_position(name, hearing.source, foreign, until, [*asked, self._name])
            if position is None:
                return None
            for subscriber in hearing.subscribers:
                await subscriber.reach(position, _left(until))
            return await self._reacted((await self._log.head()).position, until)

        return await _remembered(self._known[name], foreign, find)

    async def _recorded_at(self, public: int, until: float) -> int:
        """Give the position at which a public event of the own log was recorded, or a later one."""
        if public > self._recorded[0]:
            head = await self._log.head()
            while head.public_position < public:
                if not _left(until):
                    raise Behind(f"the log of {self._name} has {head.public_position} public events, not yet {public}")
                await self._log.wait(head.position, _left(until))
                head = await self._log.head()
            self._recorded = head.public_position, head.position
        return self._recorded[1]

    async def _public_position(
        self, name: str, source: Source, foreign: Mapping[str, int], until: float, asked: Collection[str]
    ) -> int | None:
        """Ask a source as long as there is time, so that whoever is told in vain is told who was behind.

        What is a public position of it already, nobody has to be asked about.
        """
        if name in self.told and set(foreign) == {self.told[name].log_id}:
            return foreign[self.told[name].log_id]
        token = encode_token(foreign)
        said: CeqsError = Expired(f"no time is left to ask {name} what the token means")
        while (left := _left(until)) > ENOUGH:
            try:
                return await source.public_position(token, asked, left)
            except Behind as behind:
                said = behind
                await asyncio.sleep(min(left, behind.retry_after or ENOUGH))
            except Expired as late:
                raise (said if isinstance(said, Behind) else late) from None
        raise said

    async def _reacted(self, position: int, until: float) -> int:
        """Wait for what a context makes of its own events; give the position that includes it.

        A command may lead to another, and that to a third. Where others write without a pause no end of it can be seen,
        so it is followed for some steps.
        """
        for _ in range(STEPS if self._around.reactors else 0):
            for reactor in self._around.reactors:
                await reactor.reach(position, _left(until))
            before, position = position, (await self._log.head()).position
            if position == before:
                break
        return position


async def _remembered(known: _Known, asked: Mapping[str, int], find: Callable[[], Awaitable[int | None]]) -> int:
    """Give what is known of a token, or found out; 0 where it says nothing."""
    logs = frozenset(asked)
    if all(known.asked.get(log_id, 0) >= position for log_id, position in asked.items()):
        return known.at
    if known.strange.get(logs, 0.0) > time.monotonic():
        return 0
    at = await find()
    if at is None:
        known.strange[logs] = time.monotonic() + STRANGE
        return 0
    if all(asked.get(log_id, 0) >= position for log_id, position in known.asked.items()):
        known.asked, known.at = dict(asked), at
    return at


def _left(until: float) -> float:
    return max(0.0, until - time.monotonic())
