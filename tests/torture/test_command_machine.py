"""The command path does what a dictionary of counters does, whoever else writes, and whatever it remembers or forgets.

Processes, as far as they can be had in one, execute commands, are read from and followed. They are closed, or die at
the commit of a batch, or lose the way to their log there. Whatever is done to them, the books balance in the end.
"""

from __future__ import annotations

import asyncio
import itertools
import shutil
import tempfile
import uuid
from collections import Counter
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test
from tests.torture.processes import EXECUTORS, Died, Lost, Process
from tests.torture.readers import Archive, Choice, Reading, Subscriber, read

from ceqs.contract import new_id
from ceqs.errors import DuplicateCommand, LogUnavailable, Rejected
from ceqs.log import Entry, NewEvent, _sql, open_log
from ceqs.server import CommandCall, CommandExecutor, _lane, _pages, _ring
from ceqs.testing import Ending, Operation, Violation, check_history

T = TypeVar("T")
COUNTERS = ("a", "b", "c")
RPCS = ("Add", "AddInTurn", "AddSnapped", "AddStored", "Take", "Raise", "Move")
DONE = (Ending.ACCEPTED, Ending.UNKNOWN)
SUBSCRIBERS = 4
NOTE = "tally.v1.Noted"
"""A type of events that no counter depends on."""


@dataclass(frozen=True)
class Sent:
    """A command, by which executor."""

    command_id: str
    rpc: str
    counters: tuple[str, ...]
    amount: int
    executor: int


def _sent(command_id: str, rpc: str, counters: Sequence[str], amount: int, executor: int) -> Sent:
    return Sent(command_id, rpc, tuple(counters if rpc == "Move" else counters[:1]), amount, executor)


KNOWN = [
    _sent(f"c{n}", rpc, counters, amount, 0)
    for n, (rpc, counters, amount) in enumerate(
        [("Take", "a", 3), ("Take", "b", 2), ("Raise", "a", 2), ("Move", "abc", 1), ("Move", "ca", 3), ("Add", "a", 1)]
    )
]
"""Commands that are sent again and again."""
executors = st.integers(0, 2 * EXECUTORS - 1)
places = st.integers(0, 30)
choices = st.builds(
    Choice,
    st.booleans(),
    st.sampled_from(["", "", "tally.v1.Changed", NOTE]),
    st.sampled_from(["", "", "counter:a", "counter:b"]),
)
sent = st.builds(replace, st.sampled_from(KNOWN), executor=executors) | st.builds(
    _sent,
    st.sampled_from([known.command_id for known in KNOWN]) | st.uuids().map(str) | st.uuids().map(str),
    st.sampled_from(RPCS),
    st.lists(st.sampled_from(COUNTERS), min_size=2, max_size=3, unique=True),
    st.integers(1, 4),
    executors,
)


class CommandMachine(RuleBasedStateMachine):
    """Sends commands to executors that do not know of each other, and keeps the books."""

    def __init__(self, store: str, tally: Any, postgres: str = "") -> None:
        super().__init__()
        self.tally = tally
        self.directory = Path(tempfile.mkdtemp(prefix="ceqs-machine-"))
        self.store = store
        self.url = {"memory": "memory:", "sqlite": f"sqlite:///{self.directory}/log.db"}.get(store, postgres)
        self.name = f"log_{uuid.uuid4().hex}"
        self.runner = asyncio.Runner()
        self.books = Archive(tally.messages)
        self.clock = itertools.count(1)
        self.operations: list[Operation] = []
        self.violations: list[Violation] = []
        self.strangers = 0
        self.subscribers: list[Subscriber] = []
        self.rpcs = {rpc.name: rpc for rpc in tally.make_context().contract.commands.values()}
        # Several processes write where several may.
        self.processes = [self.run(self.started()) for _ in range(2 if store == "postgres" else 1)]

    def run(self, work: Coroutine[object, object, T]) -> T:
        return self.runner.run(work)

    async def started(self) -> Process:
        return Process(await open_log(self.url, self.name), self.tally.make_context)

    @rule()
    def forget(self) -> None:
        """Go on with executors that know nothing."""
        for process in self.processes:
            process.forget()

    def process(self, number: int) -> Process:
        return self.processes[number % len(self.processes)]

    def executor(self, number: int) -> CommandExecutor:
        return self.process(number).executors[number // 2 % EXECUTORS]

    def request(self, command: Sent) -> Any:
        request = getattr(self.tally, f"{command.rpc}Request")(amount=command.amount)
        if command.rpc == "Move":
            request.counter_ids.extend(command.counters)
        else:
            request.counter_id = command.counters[0]
        return request

    async def execute(self, command: Sent) -> None:
        """Send a command, and write down what came of it."""
        known: dict[str, Any] = {}
        invoked = next(self.clock)
        try:
            call = CommandCall(command_id=command.command_id)
            done = await self.executor(command.executor).execute(self.rpcs[command.rpc], self.request(command), call)
            response: Any = done.response
            known = {"ending": Ending.ACCEPTED, "receipt": done.receipt, "saw": response.saw}
        except Rejected as error:
            known = {"ending": Ending.REFUSED, "saw": int(error.metadata["saw"])}
        except DuplicateCommand:
            known = {"ending": Ending.DUPLICATE}
        except LogUnavailable as error:
            # Whoever is told so has been told that nothing was appended; of what was accepted before, a log that is
            # closed does not know.
            if not self.accepted(command.command_id):
                known = {"ending": Ending.REFUSED}
            elif "closed" not in str(error):
                raise
        finally:
            self.operations.append(
                Operation(
                    command_id=command.command_id,
                    invoked=invoked,
                    boundary=tuple(f"counter:{counter}" for counter in command.counters),
                    content=f"{command.rpc} {command.counters} {command.amount}".encode(),
                    events=None if command.rpc == "Raise" else len(command.counters),
                    **known,
                    completed=next(self.clock) if known else float("inf"),
                )
            )

    def accepted(self, command_id: str) -> bool:
        return any(op.ending is Ending.ACCEPTED and op.command_id == command_id for op in self.operations)

    async def together(self, commands: Sequence[Sent]) -> None:
        async with asyncio.TaskGroup() as group:
            for command in commands:
                group.create_task(self.execute(command))

    def compare(self) -> None:
        """Read what is new in the log, and check everything that anybody was ever told."""
        told = [(subscriber, len(subscriber.found)) for subscriber in self.subscribers]
        self.violations += self.run(self.books.read_on(self.processes[-1].log))
        self.violations += check_history(self.operations, self.books.facts)
        assert self.violations == []
        for subscriber, number in told:
            assert subscriber.found[:number] == self.due(subscriber)[:number]

    def due(self, subscriber: Subscriber) -> list[Any]:
        """Give what a subscriber has to find, sooner or later."""
        choice = subscriber.choice
        return [event for event in self.books.chosen(choice) if choice.position(event) > subscriber.after]

    @rule(command=sent)
    def send(self, command: Sent) -> None:
        """Send one command: what must become of it is known beforehand."""
        self.compare()
        earlier = [op for op in self.operations if op.command_id == command.command_id and op.ending in DONE]
        values, changes = Counter[str](self.books.values), Counter[str](self.books.changes)
        self.run(self.execute(command))
        op = self.operations[-1]
        if earlier:
            # It may have been done, by this request or by another: the checker knows what is right then.
            self.compare()
            return
        first, *others = command.counters
        least = {"Take": command.amount, "Move": command.amount * len(others)}.get(command.rpc, 0)
        assert op.saw == sum(changes[counter] for counter in command.counters)
        assert (op.ending is Ending.REFUSED) == (values[first] < least)
        if op.receipt:
            nothing = command.rpc == "Raise" and values[first] >= command.amount
            assert len(op.receipt.event_ids) == (0 if nothing else len(command.counters))
        self.compare()

    @rule(commands=st.lists(sent, min_size=2, max_size=8))
    def send_several(self, commands: list[Sent]) -> None:
        """Send commands side by side, twins and strangers under one id among them."""
        self.run(self.together(commands))

    @rule(commands=st.lists(sent, min_size=1, max_size=3), steps=st.integers(0, 8))
    def send_and_go_away(self, commands: list[Sent], steps: int) -> None:
        """Cancel what was sent: each is done once or not at all."""

        async def vanish() -> None:
            tasks = [asyncio.create_task(self.execute(command)) for command in commands]
            for _ in range(steps):
                await asyncio.sleep(0)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            # What is queued nevertheless is done before what is queued behind it.
            for _ in range(2):
                await self.together([self.barrier(number) for number in range(2 * EXECUTORS)])

        self.run(vanish())

    def barrier(self, executor: int) -> Sent:
        return Sent(f"barrier {next(self.clock)}", "Add", ("nothing",), 1, executor)

    @precondition(lambda self: self.store != "memory")
    @rule(commands=st.lists(sent, min_size=1, max_size=5), losses=st.lists(st.booleans(), min_size=1, max_size=7))
    def lose_commits(self, commands: list[Sent], losses: list[bool]) -> None:
        """Cut logs off at their commits, before they have them or before they have said so: no answer is wrong."""
        for process in self.processes:
            process.failing.extend((committed, Lost("the way is cut")) for committed in losses)
        self.run(self.together(commands))
        for process in self.processes:
            process.failing.clear()
        self.compare()

    @precondition(lambda self: self.store != "memory")
    @rule(commands=st.lists(sent, min_size=1, max_size=5), committed=st.booleans(), again=st.booleans())
    def crash(self, commands: list[Sent], committed: bool, again: bool) -> None:
        """Have a process die at the commit of what it was sent, before it or after it: it answers nobody."""
        dying = self.process(commands[0].executor)
        dying.failing.append((committed, Died()))

        async def die() -> None:
            tasks = [asyncio.create_task(self.execute(command)) for command in commands]
            await dying.dead()
            number = self.processes.index(dying)
            for subscriber in self.subscribers[number :: len(self.processes)]:
                await subscriber.leave()
            await dying.buried()
            for command, task in zip(commands, tasks, strict=True):
                if self.process(command.executor) is dying:
                    task.cancel()
            await asyncio.wait(tasks)
            for task in tasks:
                assert task.cancelled() or not task.exception()
            self.processes[number] = await self.started()
            self.join()

        self.run(die())
        self.compare()
        if again:
            for command in commands:
                self.send(command)

    @precondition(lambda self: self.store != "memory")
    @rule()
    def restart(self) -> None:
        """End and start every process in order."""

        async def restarted() -> None:
            await self.stopped()
            self.processes = [await self.started() for _ in self.processes]
            self.join()

        self.run(restarted())
        self.compare()

    async def stopped(self) -> None:
        for process in self.processes:
            await process.events.close()
        for subscriber in self.subscribers:
            await subscriber.leave(told=True)
        for process in self.processes:
            await process.log.close()

    @rule(
        counter=st.sampled_from([*COUNTERS, "note"]), amount=st.integers(1, 4), public=st.booleans(), writer=executors
    )
    def write_past_them(self, counter: str, amount: int, public: bool, writer: int) -> None:
        """Append an event that no executor has decided on."""
        self.compare()
        value, changes = self.books.values[counter] + amount, self.books.changes[counter] + 1
        event = self.tally.Changed(counter_id=counter, amount=amount, value=value, changes=changes)
        payload, tags = event.SerializeToString(), (f"counter:{counter}",)
        kind = NOTE if counter == "note" else "tally.v1.Changed"
        new = NewEvent(id=new_id(), type=kind, payload=payload, tags=tags, public=public)
        self.strangers += 1
        entry = Entry(command_id=f"stranger {self.strangers}", events=(new,))
        invoked = next(self.clock)
        appended = self.run(self.process(writer).log.append(entry))
        self.operations.append(
            Operation(
                command_id=entry.command_id,
                invoked=invoked,
                completed=next(self.clock),
                ending=Ending.ACCEPTED,
                receipt=appended.receipt,
                boundary=tags,
            )
        )

    @rule(
        reading=st.builds(
            Reading, choices, places, st.just(0) | places, st.just(0) | places, st.booleans(), st.booleans()
        ),
        process=executors,
    )
    def read(self, reading: Reading, process: int) -> None:
        self.compare()
        request, due = reading.of(self.books)
        assert self.run(read(self.process(process).events, request)) == due

    @precondition(lambda self: len(self.subscribers) < SUBSCRIBERS)
    @rule(choice=choices, after=places)
    def subscribe(self, choice: Choice, after: int) -> None:
        """Follow the log from some event on, to the end of the machine."""
        self.compare()
        head = len(self.books.chosen(Choice(choice.public)))
        self.subscribers.append(Subscriber(choice, after % (head + 1)))
        self.run(self.joined())

    async def joined(self) -> None:
        self.join()

    def join(self) -> None:
        """Have subscribers follow that do not."""
        for number, subscriber in enumerate(self.subscribers):
            if not subscriber.follows:
                subscriber.join(self.process(number).events)

    @rule()
    def catch_up(self) -> None:
        """See that subscribers find everything."""
        self.compare()
        for subscriber in self.subscribers:
            self.run(subscriber.has(self.due(subscriber)))
        self.compare()

    def teardown(self) -> None:
        try:
            self.catch_up()
        finally:
            self.run(self.stopped())
            self.runner.close()
            shutil.rmtree(self.directory)


def test_commands_do_what_a_dictionary_would(
    store: str, trials: settings, tally: Any, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Batches are full, so that the next one is decided upon them, readers meet the ends of pages and of the ring, and
    # nobody waits for what is lost.
    monkeypatch.setattr(_lane, "MAX_BATCH_ENTRIES", 2)
    monkeypatch.setattr(_pages, "LIMIT", 5)
    monkeypatch.setattr(_ring, "MOST_EVENTS", 4)
    monkeypatch.setattr(_sql, "_PAUSES", (0.0,) * 5)
    monkeypatch.setattr(_sql, "_RESOLVE_PAUSE", 0.0)
    postgres = str(request.getfixturevalue("postgres")) if store == "postgres" else ""
    run_state_machine_as_test(partial(CommandMachine, store, tally, postgres), settings=trials)  # type: ignore[arg-type]  # a factory will do
