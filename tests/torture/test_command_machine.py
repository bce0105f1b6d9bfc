"""The command path does what a dictionary of counters does, whoever else writes, and whatever it remembers."""

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

from ceqs.contract import new_id
from ceqs.errors import DuplicateCommand, Rejected
from ceqs.log import Entry, Log, NewEvent, open_log
from ceqs.server import CommandCall, CommandExecutor
from ceqs.testing import Ending, Operation, Violation, check_history

T = TypeVar("T")
COUNTERS = ("a", "b", "c")
RPCS = ("Add", "AddInTurn", "AddSnapped", "AddStored", "Take", "Raise", "Move")
DONE = (Ending.ACCEPTED, Ending.UNKNOWN)
EXECUTORS = 3
"""How many there are for each log, each with a memory of its own."""


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
        self.books = tally.Books(tally.messages)
        self.clock = itertools.count(1)
        self.operations: list[Operation] = []
        self.violations: list[Violation] = []
        self.strangers = 0
        self.logs: list[Log] = []
        self.executors: list[CommandExecutor] = []
        self.start()

    def run(self, work: Coroutine[object, object, T]) -> T:
        return self.runner.run(work)

    def start(self) -> None:
        """Open the log as several processes would where several may, and forget everything else."""
        processes = 2 if self.store == "postgres" else 1
        self.logs = [self.run(open_log(self.url, self.name)) for _ in range(processes)]
        self.forget()

    @rule()
    def forget(self) -> None:
        """Start with executors that know nothing."""
        contexts = [(self.tally.make_context(), log) for log in self.logs for _ in range(EXECUTORS)]
        self.executors = [self.run(self.born(context, log)) for context, log in contexts]
        self.rpcs = {rpc.name: rpc for rpc in contexts[0][0].contract.commands.values()}

    async def born(self, context: Any, log: Log) -> CommandExecutor:
        return CommandExecutor(context, log)

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
        executor = self.executors[command.executor % len(self.executors)]
        try:
            call = CommandCall(command_id=command.command_id)
            done = await executor.execute(self.rpcs[command.rpc], self.request(command), call)
            response: Any = done.response
            known = {"ending": Ending.ACCEPTED, "receipt": done.receipt, "saw": response.saw}
        except Rejected as error:
            known = {"ending": Ending.REFUSED, "saw": int(error.metadata["saw"])}
        except DuplicateCommand:
            known = {"ending": Ending.DUPLICATE}
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

    async def together(self, commands: Sequence[Sent]) -> None:
        async with asyncio.TaskGroup() as group:
            for command in commands:
                group.create_task(self.execute(command))

    def compare(self) -> None:
        """Read what is new in the log, and check everything that was ever answered."""
        self.violations += self.run(self.books.read_on(self.logs[-1]))
        self.violations += check_history(self.operations, self.books.facts)
        assert self.violations == []

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
                await self.together([self.barrier(number) for number in range(len(self.executors))])

        self.run(vanish())

    def barrier(self, executor: int) -> Sent:
        return Sent(f"barrier {next(self.clock)}", "Add", ("nothing",), 1, executor)

    @rule(counter=st.sampled_from(COUNTERS), amount=st.integers(1, 4), writer=st.integers(0, 1))
    def write_past_them(self, counter: str, amount: int, writer: int) -> None:
        """Append an event that no executor has decided on."""
        self.compare()
        value, changes = self.books.values[counter] + amount, self.books.changes[counter] + 1
        event = self.tally.Changed(counter_id=counter, amount=amount, value=value, changes=changes)
        payload, tags = event.SerializeToString(), (f"counter:{counter}",)
        new = NewEvent(id=new_id(), type="tally.v1.Changed", payload=payload, tags=tags)
        self.strangers += 1
        entry = Entry(command_id=f"stranger {self.strangers}", events=(new,))
        invoked = next(self.clock)
        appended = self.run(self.logs[writer % len(self.logs)].append(entry))
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

    @precondition(lambda self: self.store != "memory")
    @rule()
    def restart(self) -> None:
        for log in self.logs:
            self.run(log.close())
        self.start()
        self.compare()

    def teardown(self) -> None:
        try:
            self.compare()
        finally:
            for log in self.logs:
                self.run(log.close())
            self.runner.close()
            shutil.rmtree(self.directory)


def test_commands_do_what_a_dictionary_would(
    store: str, trials: settings, tally: Any, request: pytest.FixtureRequest
) -> None:
    postgres = str(request.getfixturevalue("postgres")) if store == "postgres" else ""
    run_state_machine_as_test(partial(CommandMachine, store, tally, postgres), settings=trials)  # type: ignore[arg-type]  # a factory will do
