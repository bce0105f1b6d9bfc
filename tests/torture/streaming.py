"""Clients of a tortured tally that send their commands in streams."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tests.torture.workload import ADDING, PATIENCE, Actor, Command

from ceqs.client._unanswered import Unanswered
from ceqs.contract import method_name
from ceqs.testing import Violation

MOST = 40
"""How many commands are sent at a stretch."""
OWN = 5
"""Counters of a client's own: where its commands stand says in which order they were decided."""


@dataclass(slots=True)
class _Place:
    """A command of a stream, and where its receipt says that it stands."""

    command: Command
    new: bool
    position: int = 0


class _Watched(Unanswered):
    """Remembers what the server has put off: that may be decided after what was sent later."""

    def __init__(self, timeout: float) -> None:
        super().__init__(timeout)
        self.put_off = set[str]()

    def _again(self, sent: Any) -> None:
        self.put_off.add(sent.command.command_id)
        super()._again(sent)


class Streamer(Actor):
    """Sends commands in streams: new ones, twins, repetitions and others under used ids side by side.

    A stream goes on when the server at its other end is killed. Some are impatient, some are left in the middle.
    """

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._streamed = set[str]()
        """The ids that were sent before."""

    def _acts(self) -> Mapping[Callable[[], Awaitable[None]], int]:
        return {self._stream: 60, self._leave_stream: 15, self._execute_many: 25}

    async def _stream(self) -> None:
        """Send commands at several stretches, and hear of all of them."""
        patience = self._patience()
        stream = self._client.stream(timeout=patience)
        stream._unanswered = watched = _Watched(patience)
        places = list[_Place]()
        async with stream, asyncio.TaskGroup() as group:
            for _ in range(self._chance.randint(1, 3)):
                # Each task sends when it begins, and they begin in their order.
                for command in self._several():
                    group.create_task(self._send(stream, command, places))
                await self._rest()
        self._in_order([place for place in places if place.command.command_id not in watched.put_off])

    async def _send(self, stream: Any, command: Command, places: list[_Place]) -> None:
        places.append(place := _Place(command, new=command.command_id not in self._streamed))
        self._streamed.add(command.command_id)
        with self._asked(command) as known:
            send = getattr(stream, method_name(command.rpc))
            outcome = await (await send(command.request, command_id=command.command_id))
            known |= self._heard(command, outcome)
            place.position = outcome.receipt.position if outcome.receipt else 0

    async def _leave_stream(self) -> None:
        """Go away in the middle of a stream."""
        task = asyncio.create_task(self._stream())
        await asyncio.wait({task}, timeout=self._chance.uniform(0, 0.05))
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    async def _execute_many(self) -> None:
        """Send commands as fast as there is room for them, and hear of them in their order."""
        commands = self._several()
        outcomes = [asyncio.get_running_loop().create_future() for _ in commands]

        async def hear(command: Command, outcome: asyncio.Future[Any]) -> None:
            with self._asked(command) as known:
                known |= self._heard(command, await outcome)

        async def requests(group: asyncio.TaskGroup) -> AsyncIterator[tuple[str, Any]]:
            for command, outcome in zip(commands, outcomes, strict=True):
                self._streamed.add(command.command_id)
                group.create_task(hear(command, outcome))
                await asyncio.sleep(0)
                yield command.command_id, command.request

        async with asyncio.TaskGroup() as group:
            number = 0
            async for outcome in self._client.execute_many(requests(group), timeout=PATIENCE):
                if outcome.command_id != commands[number].command_id:
                    what = f"outcome {number} is of {outcome.command_id}, not of {commands[number].command_id}"
                    self._record.violations.append(Violation("order", what))
                outcomes[number].set_result(outcome)
                number += 1
        await self._rest()

    def _heard(self, command: Command, outcome: Any) -> dict[str, Any]:
        accepted = outcome.response is not None
        return self._accepted(command, outcome.response) if accepted else self._refused(command, outcome.error)

    def _in_order(self, places: Sequence[_Place]) -> None:
        """Look whether the commands of each boundary stand in the log as they were sent.

        Those that are always accepted, and were sent for the first time: a rejection is not remembered, so that a
        command that is sent again after an outage may find what came behind it.
        """
        boundaries = defaultdict[tuple[str, str], list[int]](list)
        for place in places:
            (counter, *_), rpc = place.command.counters, place.command.rpc
            if place.new and place.position and rpc in ADDING and counter.startswith("own"):
                boundaries[rpc, counter].append(place.position)
        for boundary, positions in boundaries.items():
            self._record.ordered += len(positions)
            if positions != sorted(positions):
                what = f"commands of {boundary} were sent in one order and stand in another: {positions}"
                self._record.violations.append(Violation("order", what))

    async def _rest(self) -> None:
        await asyncio.sleep(self._chance.uniform(0, 0.1))

    def _several(self) -> Sequence[Command]:
        several = list[Command]()
        for _ in range(self._chance.randint(1, MOST)):
            kind = self._chance.random()
            if kind < 0.8 or not self._sent:
                several.append(self._new())
            elif kind < 0.9:
                several += [self._new()] * 2
            else:
                several.append(self._chance.choice(self._sent) if kind < 0.97 else self._other())
        return several

    def _counter(self) -> str:
        if self._chance.random() < 0.3:
            return f"own{self._number}.{self._chance.randrange(OWN)}"
        return super()._counter()
