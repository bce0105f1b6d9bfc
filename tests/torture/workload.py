"""What the clients of a tortured tally do, and what they write down of it."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ceqs.contract import method_name
from ceqs.errors import CeqsError, DuplicateCommand, Internal, Invalid, NotFound, Rejected
from ceqs.testing import Ending, Operation, Violation

HOT = 3
"""Counters that everybody wants."""
COLD = 300
"""Counters that are seldom met again."""
PATIENCE = 3600.0
"""Seconds: longer than a campaign. Who is patient is answered once nothing is killed any more."""
IMPATIENT = 0.2
"""How many calls, of all, are given up after some milliseconds."""
ADDING = ("Add", "AddInTurn", "AddSnapped", "AddStored")


class Command(NamedTuple):
    """A command as it is sent, and sent again."""

    command_id: str
    rpc: str
    request: Any

    @property
    def counters(self) -> list[str]:
        """Which counters it is about."""
        return list(self.request.counter_ids) if self.rpc == "Move" else [self.request.counter_id]


@dataclass
class Record:
    """What all clients did and heard."""

    operations: list[Operation] = field(default_factory=list[Operation])
    fresh: list[Operation] = field(default_factory=list[Operation])
    """Accepted since somebody looked last."""
    violations: list[Violation] = field(default_factory=list[Violation])
    errors: Counter[str] = field(default_factory=Counter[str])
    """What calls failed with in the end, by reason."""
    acts: Counter[str] = field(default_factory=Counter[str])
    in_flight: int = 0
    ordered: int = 0
    """Commands of streams that were found to stand in the order in which they were sent."""

    def add(self, operation: Operation) -> None:
        """Write an operation down."""
        self.operations.append(operation)
        if operation.ending is Ending.ACCEPTED:
            self.fresh.append(operation)


class Actor:
    """Makes commands up, and writes down what becomes of them."""

    def __init__(self, number: int, seed: str, messages: Any, client: Any, record: Record) -> None:
        self._number = number
        self._chance = random.Random(f"{seed}/{number}")
        self._messages = messages
        self._client = client
        self._record = record
        self._sent = deque[Command](maxlen=100)
        self._known = Counter[str]()
        """How often a counter has changed at least, by this client's own commands."""

    async def run(self, going: Callable[[], bool]) -> None:
        """Act until told otherwise."""
        acts = self._acts()
        while going():
            act: Callable[[], Awaitable[None]] = self._chance.choices(list(acts), list(acts.values()))[0]
            self._record.acts[act.__name__.strip("_")] += 1
            await act()

    def _acts(self) -> Mapping[Callable[[], Awaitable[None]], int]:
        """Give what there is to do, and how often."""
        raise NotImplementedError

    def _counter(self) -> str:
        kind = self._chance.random()
        if kind < 0.4:
            return f"hot{self._chance.randrange(HOT)}"
        if kind < 0.9:
            return f"cold{self._chance.randrange(COLD)}"
        return f"new{self._number}.{self._chance.getrandbits(40)}"

    def _new(self) -> Command:
        rpc = self._chance.choices([*ADDING, "Take", "Raise", "Move"], [30, 12, 10, 10, 14, 8, 16])[0]
        request = getattr(self._messages, f"{rpc}Request")(amount=self._chance.randint(1, 9))
        if rpc == "Move":
            request.counter_ids.extend(dict.fromkeys(self._counter() for _ in range(4)))
            if len(request.counter_ids) < 2:
                request.counter_ids.append(f"new{self._number}.{self._chance.getrandbits(40)}")
        else:
            request.counter_id = self._counter()
        # An id is not reproducible: two runs of one seed on one log are two histories.
        command = Command(f"{self._number}.{time.monotonic_ns()}.{self._chance.getrandbits(20)}", rpc, request)
        self._sent.append(command)
        return command

    def _other(self) -> Command:
        """Give another command under an id that was used."""
        used = self._chance.choice(self._sent)
        request = type(used.request)()
        request.CopyFrom(used.request)
        request.amount += 1
        return used._replace(request=request)

    def _patience(self) -> float:
        return self._chance.uniform(0.002, 0.05) if self._chance.random() < IMPATIENT else PATIENCE

    @contextmanager
    def _asked(self, command: Command) -> Iterator[dict[str, Any]]:
        """Write down what is known of a command in the end: what `_answered` and `_refused` put in, or nothing."""
        known: dict[str, Any] = {}
        self._record.in_flight += 1
        invoked = time.monotonic()
        try:
            yield known
        finally:
            self._record.in_flight -= 1
            self._record.add(
                Operation(
                    command_id=command.command_id,
                    invoked=invoked,
                    boundary=tuple(f"counter:{counter}" for counter in command.counters),
                    content=command.rpc.encode() + command.request.SerializeToString(deterministic=True),
                    events=None if command.rpc == "Raise" else len(command.counters),
                    **known,
                )
            )

    def _accepted(self, command: Command, response: Any) -> dict[str, Any]:
        if command.rpc != "Move":
            (counter,) = command.counters
            changes = response.saw + len(response.receipt.event_ids)
            self._known[counter] = max(self._known[counter], changes)
        known = {"ending": Ending.ACCEPTED, "completed": time.monotonic()}
        return known | {"receipt": response.receipt, "saw": response.saw}

    def _refused(self, command: Command, error: CeqsError) -> dict[str, Any]:
        self._failed(f"{command.rpc} {command.command_id}", error)
        if not isinstance(error, (Rejected, Invalid, DuplicateCommand)):
            return {}
        ending = Ending.DUPLICATE if isinstance(error, DuplicateCommand) else Ending.REFUSED
        saw = int(error.metadata["saw"]) if "saw" in error.metadata else None
        return {"ending": ending, "completed": time.monotonic(), "saw": saw}

    def _failed(self, what: str, error: CeqsError) -> None:
        self._record.errors[error.reason] += 1
        if isinstance(error, (Internal, Invalid)):
            self._record.violations.append(Violation("answered", f"{what} ended with {error.reason}: {error}"))


class Client(Actor):
    """Sends commands one by one, some of them twice, some impatiently, some never to be heard of."""

    def _acts(self) -> Mapping[Callable[[], Awaitable[None]], int]:
        return {self._one: 70, self._twins: 6, self._repeat: 8, self._abuse: 3, self._vanish: 5, self._look: 8}

    async def _one(self) -> None:
        await self._send(self._new())

    async def _twins(self) -> None:
        """Send one command twice at once."""
        command = self._new()
        await asyncio.gather(self._send(command), self._send(command))

    async def _repeat(self) -> None:
        """Send a command again, whatever became of it."""
        if self._sent:
            await self._send(self._chance.choice(self._sent))

    async def _abuse(self) -> None:
        """Send another command under an id that was used."""
        if self._sent:
            await self._send(self._other())

    async def _vanish(self) -> None:
        """Send a command and go away."""
        task = asyncio.create_task(self._send(self._new()))
        await asyncio.wait({task}, timeout=self._chance.uniform(0, 0.02))
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    async def _look(self) -> None:
        """Read one's own writes."""
        counter_id = self._counter()
        known = self._known[counter_id]
        try:
            answer = await self._client.get_counter(self._messages.GetCounterRequest(counter_id=counter_id), timeout=5)
            changes = answer.message.counter.changes
        except NotFound:
            changes = 0
        except CeqsError as error:
            self._failed(f"looking at {counter_id}", error)
            return
        if changes < known:
            self._record.violations.append(
                Violation("own writes", f"client {self._number} saw {counter_id} after {changes} of {known} changes")
            )

    async def _send(self, command: Command) -> None:
        """Send a command until it is answered or patience ends."""
        method = getattr(self._client, method_name(command.rpc))
        with self._asked(command) as known:
            try:
                response = await method(command.request, command_id=command.command_id, timeout=self._patience())
            except CeqsError as error:
                known |= self._refused(command, error)
            else:
                known |= self._accepted(command, response)
