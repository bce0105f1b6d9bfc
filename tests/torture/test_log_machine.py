"""The log does what a list in memory does, whatever is done to it in whatever order."""

from __future__ import annotations

import asyncio
import itertools
import shutil
import tempfile
import time
import uuid
from collections.abc import Container, Coroutine, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TypeAlias, TypeVar

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from ceqs.contract import decode_token
from ceqs.errors import CeqsError, Conflict, DuplicateCommand, Expired
from ceqs.log import ALL, Appended, Condition, Entry, Log, NewEvent, Query, QueryItem, open_log
from ceqs.v1.events_pb2 import RecordedEvent

T = TypeVar("T")
TYPES = ("shop.Placed", "shop.Cancelled")
TAGS = ("order:1", "order:2", "customer:1")


@dataclass
class Model:
    """A log as a list: what it has, and what it has to say."""

    events: list[tuple[NewEvent, str]] = field(default_factory=list[tuple[NewEvent, str]])
    accepted: dict[str, tuple[bytes, Appended]] = field(default_factory=dict[str, tuple[bytes, Appended]])
    """By command id: the content, and the outcome."""

    def matching(self, query: Query, *, public: bool = False) -> Iterator[tuple[int, NewEvent]]:
        """Give the events that a query matches, with their positions or public positions."""
        public_position = 0
        for position, (event, _) in enumerate(self.events, 1):
            public_position += event.public
            if (event.public or not public) and _matches(query, event):
                yield public_position if public else position, event

    def refusal(self, entry: Entry, own: Container[int] = (), lost: Iterable[NewEvent] = ()) -> type[CeqsError] | None:
        """Give why the log has to refuse an entry, if it has to.

        It was decided with the knowledge of the events at its `own` positions, and of those `lost`, all of its append.
        """
        if known := self.accepted.get(entry.command_id):
            return None if entry.derived or known[0] == entry.content_hash else DuplicateCommand
        if entry.expires is not None and entry.expires < time.monotonic():
            return Expired
        if entry.condition:
            after = entry.condition.after
            found = self.matching(entry.condition.query)
            if any(position > after and position not in own for position, _ in found):
                return Conflict
            if any(_matches(entry.condition.query, event) for event in lost):
                return Conflict
        return None

    def accept(self, entry: Entry, outcome: Appended) -> None:
        """Compare what the log says of an entry, and take it over."""
        receipt = outcome.receipt
        if known := self.accepted.get(entry.command_id):
            first = known[1]
            assert (receipt, outcome.response, outcome.repeated) == (first.receipt, first.response, True)
            return
        assert not outcome.repeated
        self.events += [(event, entry.command_id) for event in entry.events]
        assert (receipt.command_id, receipt.position) == (entry.command_id, len(self.events))
        assert list(receipt.event_ids) == [event.id for event in entry.events]
        assert decode_token(receipt.token) == {receipt.log_id: len(self.events)}
        if entry.events or entry.remember:
            self.accepted[entry.command_id] = entry.content_hash, outcome


def _matches(query: Query, event: NewEvent) -> bool:
    return not query.items or any(
        (not item.types or event.type in item.types) and item.tags <= set(event.tags) for item in query.items
    )


queries = st.lists(
    st.builds(
        QueryItem,
        st.sampled_from([frozenset(), frozenset(TYPES[:1]), frozenset(TYPES)]),
        st.frozensets(st.sampled_from(TAGS), max_size=2),
    ),
    max_size=2,
).map(lambda items: Query(tuple(items)))
tags = st.lists(st.sampled_from(TAGS), max_size=2, unique=True).map(tuple)
new_events = st.builds(
    lambda kind, tags, public: NewEvent(id=str(uuid.uuid4()), type=kind, payload=b"x", tags=tags, public=public),
    st.sampled_from(TYPES),
    tags,
    st.booleans(),
)
back = st.integers(-2, 6)
"""How far before the head, or beyond it."""
conditions = st.none() | st.tuples(queries, st.integers(0, 6))
entries = st.tuples(
    st.builds(
        lambda command, content, events, remember: Entry(
            command_id=command,
            derived=command.startswith("ceqs:"),
            content_hash=content,
            events=tuple(events),
            response=content + command.encode(),
            remember=remember,
        ),
        st.sampled_from([*(f"c{n}" for n in range(8)), "ceqs:1"]) | st.uuids().map(str),
        st.sampled_from([b"x", b"x", b"x", b"y"]),
        st.lists(new_events, max_size=3),
        st.booleans(),
    ),
    conditions,
)


Drawn: TypeAlias = tuple[Entry, tuple[Query, int] | None]
"""An entry, and its condition's query with how far before the head it stands."""


class LogMachine(RuleBasedStateMachine):
    """Does to a log, and to the model, what Hypothesis chooses."""

    def __init__(self, store: str, postgres: str = "") -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp(prefix="ceqs-machine-"))
        self.store = store
        self.name = f"log_{uuid.uuid4().hex}"
        self.runner = asyncio.Runner()
        self.model = Model()
        self.copies = itertools.count()
        self.url = {"memory": "memory:", "sqlite": f"sqlite:///{self.directory}/log.db"}.get(store, postgres)
        self.logs = [self.open()]
        if store == "postgres":
            self.logs.append(self.open())
        self.abandoned: list[Log] = []
        self.seen = 0
        self.log_id = self.logs[0].log_id

    def run(self, work: Coroutine[object, object, T]) -> T:
        return self.runner.run(work)

    def open(self) -> Log:
        return self.run(open_log(self.url, self.name))

    def log(self, writer: int) -> Log:
        """Give one of the processes that write, so to say: on PostgreSQL there are two."""
        return self.logs[writer % len(self.logs)]

    def made(self, drawn: Drawn) -> Entry:
        entry, condition = drawn
        # Drawn once and repeated by Hypothesis, an event would have one id twice.
        events = tuple(replace(event, id=str(uuid.uuid4())) for event in entry.events)
        judged = Condition(condition[0], max(0, len(self.model.events) - condition[1])) if condition else None
        return replace(entry, events=events, condition=judged)

    def settled(
        self,
        entry: Entry,
        outcome: Appended | BaseException,
        own: Container[int] = (),
        lost: Iterable[NewEvent] = (),
    ) -> None:
        """Compare an outcome with the model's."""
        refusal = self.model.refusal(entry, own, lost)
        if refusal:
            assert type(outcome) is refusal, (entry, outcome, refusal)
        else:
            assert isinstance(outcome, Appended), (entry, outcome)
            self.model.accept(entry, outcome)

    async def together(self, log: Log, given: Sequence[Entry]) -> list[Appended | BaseException]:
        return await asyncio.gather(*(log.append(entry) for entry in given), return_exceptions=True)

    @rule(drawn=entries, writer=st.integers(0, 1))
    def append(self, drawn: Drawn, writer: int) -> None:
        entry = self.made(drawn)
        (outcome,) = self.run(self.together(self.log(writer), [entry]))
        self.settled(entry, outcome)

    @rule(drawn=st.lists(entries, min_size=2, max_size=6), writer=st.integers(0, 1))
    def append_a_batch(self, drawn: list[Drawn], writer: int) -> None:
        """Append side by side, twins and strangers under one id among them."""
        given = [self.made(one) for one in drawn]
        for entry, outcome in zip(given, self.run(self.together(self.log(writer), given)), strict=True):
            self.settled(entry, outcome)

    @rule(drawn=st.lists(entries, min_size=2, max_size=6), writer=st.integers(0, 1))
    def append_a_chain(self, drawn: list[Drawn], writer: int) -> None:
        """Append what was decided in sequence: each knows what those before it were to append."""
        given = [self.made(one) for one in drawn]
        own, lost = set[int](), list[NewEvent]()
        for entry, outcome in zip(given, self.run(self.log(writer).append_all(given)), strict=True):
            before = len(self.model.events)
            self.settled(entry, outcome, own, lost)
            own.update(range(before + 1, len(self.model.events) + 1))
            if len(self.model.events) == before:
                lost += entry.events

    @rule(drawn=entries, writer=st.integers(0, 1))
    def append_too_late(self, drawn: Drawn, writer: int) -> None:
        entry = replace(self.made(drawn), expires=time.monotonic() - 1)
        (outcome,) = self.run(self.together(self.log(writer), [entry]))
        self.settled(entry, outcome)

    @rule(drawn=entries, steps=st.integers(0, 4), writer=st.integers(0, 1))
    def append_and_go_away(self, drawn: Drawn, steps: int, writer: int) -> None:
        """Cancel an append: it happens once or not at all."""
        entry, log = self.made(drawn), self.log(writer)

        async def vanish() -> Appended | None:
            task = asyncio.create_task(log.append(entry))
            for _ in range(steps):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            # What was queued before this is done after it.
            await log.append(Entry(command_id="nothing"))
            try:
                return await log.find(entry.command_id, entry.content_hash, derived=entry.derived)
            except DuplicateCommand:
                return None

        known = entry.command_id in self.model.accepted
        found = self.run(vanish())
        if found and not known:
            self.model.accept(entry, replace(found, repeated=False))
        elif not known and len(self.model.events) < self.run(log.head()).position:
            # Without a condition nothing tells it apart from one that is remembered: events always are.
            pytest.fail(f"{entry} has events, but is not found")

    @rule(
        command=st.sampled_from(["c0", "c1", "c2", "ceqs:1"]),
        content=st.sampled_from([b"x", b"y"]),
        writer=st.integers(0, 1),
    )
    def find(self, command: str, content: bytes, writer: int) -> None:
        known = self.model.accepted.get(command)
        derived = command.startswith("ceqs:")
        if known and known[0] != content and not derived:
            with pytest.raises(DuplicateCommand):
                self.run(self.log(writer).find(command, content))
            return
        found = self.run(self.log(writer).find(command, content, derived=derived))
        assert (
            (found.receipt, found.response) == (known[1].receipt, known[1].response) if known and found else not known
        )
        assert bool(found) == bool(known)

    @rule(
        query=st.just(ALL) | queries,
        public=st.booleans(),
        after=back,
        until=st.none() | back,
        limit=st.integers(1, 8),
        writer=st.integers(0, 1),
    )
    def read(self, query: Query, public: bool, after: int, until: int | None, limit: int, writer: int) -> None:
        head = len(list(self.model.matching(ALL, public=public)))
        first, last = max(0, head - after), None if until is None else max(0, head - until)
        part = self.run(self.log(writer).read(after=first, limit=limit, query=query, public=public, until=last))
        wanted = [
            (position, event.id)
            for position, event in self.model.matching(query, public=public)
            if first < position and (last is None or position <= last)
        ]
        found = [RecordedEvent.FromString(stored.envelope) for stored in part.events]
        positions = [event.public_position if public else event.position for event in found]
        assert [*zip(positions, (event.id for event in found), strict=True)] == wanted[:limit]
        assert part.through >= max([first, *positions])
        assert all(position > part.through for position, _ in wanted[limit:])
        assert part.events or not wanted

    @rule(writer=st.integers(0, 1))
    def follow(self, writer: int) -> None:
        """Read on from where one was, as a subscriber does."""
        log = self.log(writer)

        async def rest() -> list[RecordedEvent]:
            found = list[RecordedEvent]()
            while await log.wait(self.seen, 0.0 if self.seen == len(self.model.events) else 5.0) > self.seen:
                part = await log.read(after=self.seen, limit=3)
                found += [RecordedEvent.FromString(stored.envelope) for stored in part.events]
                self.seen = part.through
            return found

        before = self.seen
        assert [(e.position, e.id) for e in self.run(rest())] == [
            (position, event.id) for position, event in self.model.matching(ALL) if position > before
        ]

    @rule(drawn=entries, writer=st.integers(0, 1))
    def wait_for_it(self, drawn: Drawn, writer: int) -> None:
        """Wait at one process for what another one appends."""
        entry, head = self.made(drawn), len(self.model.events)

        async def waited() -> tuple[int, list[Appended | BaseException]]:
            waiting = asyncio.create_task(self.log(writer + 1).wait(head, 5))
            await asyncio.sleep(0)
            outcomes = await self.together(self.log(writer), [entry])
            if (await self.log(writer).head()).position == head:
                waiting.cancel()
                await asyncio.gather(waiting, return_exceptions=True)
                return head, outcomes
            return await waiting, outcomes

        position, outcomes = self.run(waited())
        self.settled(entry, outcomes[0])
        assert position == len(self.model.events)

    @precondition(lambda self: self.store != "memory")
    @rule()
    def restart(self) -> None:
        for log in self.logs:
            self.run(log.close())
        self.logs = [self.open() for _ in self.logs]
        self.compare()

    @precondition(lambda self: self.store != "memory")
    @rule()
    def crash(self) -> None:
        """Leave a log as it lies, on SQLite its files, and go on with another."""
        if self.store == "sqlite":
            copy = self.directory / f"copy{next(self.copies)}.db"
            original = Path(self.url.removeprefix("sqlite:///"))
            for suffix in ("", "-wal"):
                if Path(f"{original}{suffix}").exists():
                    shutil.copy(f"{original}{suffix}", f"{copy}{suffix}")
            self.url = f"sqlite:///{copy}"
        self.abandoned.append(self.logs[0])
        self.logs[0] = self.open()
        self.compare()

    @invariant()
    def the_head_is_where_it_should_be(self) -> None:
        for log in self.logs:
            head = self.run(log.head())
            public = sum(event.public for event, _ in self.model.events)
            assert (head.position, head.public_position, head.log_id) == (len(self.model.events), public, self.log_id)

    def compare(self) -> None:
        """Compare the whole log with the model."""
        for log in self.logs:
            found = [RecordedEvent.FromString(s.envelope) for s in self.run(log.read(limit=10_000)).events]
            assert [e.position for e in found] == list(range(1, len(found) + 1))
            times = [event.recorded_at.ToNanoseconds() for event in found]
            assert times == sorted(times)
            assert [(e.id, e.type, e.command_id, e.payload) for e in found] == [
                (event.id, event.type, command, event.payload) for event, command in self.model.events
            ]

    def teardown(self) -> None:
        self.compare()
        for log in [*self.logs, *self.abandoned]:
            self.run(log.close())
        self.runner.close()
        shutil.rmtree(self.directory)


def test_the_log_does_what_a_list_would(store: str, trials: settings, request: pytest.FixtureRequest) -> None:
    postgres = str(request.getfixturevalue("postgres")) if store == "postgres" else ""
    run_state_machine_as_test(partial(LogMachine, store, postgres), settings=trials)  # type: ignore[arg-type]  # a factory will do
