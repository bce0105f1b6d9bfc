"""States with snapshots and states that are stored as they are: where loading begins, and that it never ends there."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ceqs.contract import tags_of
from ceqs.errors import NotFound, Rejected
from ceqs.log import Condition, Entry, Kept, Log, NewEvent, StateKey, Wanted, open_log
from ceqs.model import boundary_of
from ceqs.queries import Answers, QueryCall, States
from ceqs.server import CommandCall, CommandExecutor

_ids = itertools.count(1)


class CountingLog:
    """A log that counts what is read of it."""

    def __init__(self, log: Log) -> None:
        self.log = log
        self.events = 0
        self.kept_reads = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.log, name)

    async def read(self, **how: Any) -> Any:
        found = await self.log.read(**how)
        self.events += len(found.events)
        return found

    async def read_all(self, wanted: Sequence[Wanted]) -> Any:
        found = await self.log.read_all(wanted)
        self.events += sum(len(part.events) for part in found)
        return found

    async def kept(self, wanted: Sequence[StateKey]) -> Sequence[Kept | None]:
        self.kept_reads += 1
        return await self.log.kept(wanted)


class Process:
    """A server process: its own model, caches and view of the log."""

    def __init__(self, vessels: Any, log: Log, factor: int = 1) -> None:
        self.vessels = vessels
        self.log: Any = CountingLog(log)
        self.context = vessels.make_context(factor)
        self.states = States(self.context, self.log)
        self.executor = CommandExecutor(self.context, self.log, self.states)
        self.answers = Answers(self.context, self.log, self.states, {})

    async def change(self, kind: str, by: int, vessel: str = "v") -> Any:
        """Change a vessel; give the level that the command answers."""
        request = getattr(self.vessels, f"Change{kind}Request")(vessel_id=vessel, by=by)
        rpc = self.context.contract.command_of(request)
        call = CommandCall(command_id=f"command-{next(_ids)}")
        return (await self.executor.execute(rpc, request, call)).response

    async def state(self, kind: str, vessel: str = "v", as_of: int | None = None) -> Any:
        """Ask for a vessel, of now or of a position."""
        rpc = self.context.contract.queries[f"/vessels.v1.VesselQueriesService/Get{kind}"]
        request = getattr(self.vessels, f"Get{kind}Request")(vessel_id=vessel)
        call = QueryCall(as_of=None if as_of is None else {self.log.log_id: as_of})
        return getattr((await self.answers.answer(rpc, request, call)).response, kind.lower())

    async def append(self, by: Sequence[int], vessel: str = "v") -> None:
        """Append events past the commands, as another writer does."""
        events = [self.vessels.LevelChanged(vessel_id=vessel, by=one) for one in by]
        kind = self.context.contract.event(events[0])
        new = tuple(
            NewEvent(
                id=f"00000000-0000-7000-8000-{next(_ids):012}",
                type=kind.full_name,
                payload=event.SerializeToString(),
                tags=tags_of(event, kind.tags),
            )
            for event in events
        )
        await self.log.append(Entry(command_id=new[0].id, events=new))

    async def kept(self, kind: str, vessel: str = "v") -> Kept | None:
        """Give what the log keeps of a vessel."""
        fingerprint = self.context.folders[kind].fingerprint
        found: Sequence[Kept | None] = await self.log.log.kept([StateKey(kind, f"vessel:{vessel}", fingerprint)])
        return found[0]


@pytest.fixture
def start(vessels: Any, log: Log) -> Any:
    """Start a process on the log; another factor is another model."""
    return lambda factor=1: Process(vessels, log, factor)


async def test_a_state_of_10_000_events_is_loaded_from_its_snapshot_and_few_events(start: Any) -> None:
    first = start()
    for _ in range(20):
        await first.append([1] * 500)
    assert (await first.change("Meter", 1)).level == 10_001
    assert first.log.events == 10_000
    await first.append([1] * 7)

    second = start()
    assert (await second.change("Meter", 1)).level == 10_009
    assert second.log.events == 7
    third = start()
    assert (await third.state("Meter")).level == 10_009
    assert third.log.events == 8


async def test_a_snapshot_is_kept_whenever_so_many_events_were_folded(start: Any) -> None:
    process = start()
    positions = []
    for _ in range(25):
        await process.change("Meter", 1)
        found = await process.kept("Meter")
        positions.append(found.position if found else 0)
    assert positions == [0] * 9 + [10] * 10 + [20] * 6


async def test_a_stored_state_is_kept_by_every_command(start: Any) -> None:
    process = start()
    for number in range(1, 6):
        await process.change("Tank", 1)
        found = await process.kept("Tank")
        assert (found.position, found.events) == (number, number)
    fresh = start()
    assert (await fresh.change("Tank", 1)).level == 6
    assert fresh.log.events == 0


@pytest.mark.parametrize("kind", ["Meter", "Tank"])
async def test_what_is_kept_is_no_beginning_for_a_moment_before_it(start: Any, kind: str) -> None:
    process = start()
    for _ in range(12):
        await process.change(kind, 1)
    kept = (await process.kept(kind)).position
    for reader in (process, start()):
        assert [(await reader.state(kind, as_of=at)).level for at in range(1, 13)] == list(range(1, 13))
        assert (await reader.state(kind)).level == 12
    fresh = start()
    await fresh.state(kind, as_of=12)
    assert fresh.log.events == 12 - kept + 1, "and the one that tells the time"


async def test_a_state_that_is_neither_is_not_kept_nor_looked_for(start: Any) -> None:
    process = start()
    for _ in range(3):
        await process.change("Gauge", 1)
    assert await process.kept("Gauge") is None
    assert process.log.kept_reads == 0


@pytest.mark.parametrize("kind", ["Meter", "Tank"])
async def test_a_changed_fold_never_sees_what_another_fold_kept(start: Any, kind: str) -> None:
    first = start()
    await first.append([1] * 200)
    await first.change(kind, 1)
    changed = start(factor=3)
    assert (await changed.state(kind)).level == 603
    assert (await changed.change(kind, 2)).level == 605
    # It has kept its own in place of the first one's, who folds from the start again.
    assert await first.kept(kind) is None
    assert (await start(factor=3).state(kind)).level == 609
    again = start()
    assert (await again.state(kind)).level == 203
    assert again.log.events == 202


@pytest.mark.parametrize("kind", ["Meter", "Tank"])
async def test_events_of_other_writers_after_the_kept_state_are_folded(start: Any, kind: str) -> None:
    first = start()
    await first.append([1] * 200)
    await first.change(kind, 1)
    await first.append([10, 20])
    assert (await start().state(kind)).level == 231
    # Whoever has it in its cache sees them too, for the log refuses what is decided without them.
    assert (await first.change(kind, 1)).level == 232


async def test_a_refused_command_keeps_nothing(start: Any) -> None:
    process = start()
    await process.append([1] * 100)
    with pytest.raises(Rejected):
        await process.change("Tank", -1000)
    assert await process.kept("Tank") is None
    assert await process.kept("Meter") is None


async def test_what_a_refused_command_did_not_keep_the_next_one_does(start: Any) -> None:
    process = start()
    await process.append([1] * 100)
    with pytest.raises(Rejected):
        await process.change("Meter", -1000)
    await process.change("Meter", 1)
    assert (await process.kept("Meter")).events == 101


async def test_what_a_command_that_changes_nothing_did_not_keep_the_next_one_does(start: Any) -> None:
    process = start()
    await process.append([1, -1] * 10)
    assert (await process.state("Meter")).level == 0
    await process.append([1], "another")
    assert (await process.change("Meter", 0)).level == 0
    assert await process.kept("Meter") is None
    await process.change("Meter", 1)
    assert (await process.kept("Meter")).events == 21


async def test_the_state_of_several_vessels_is_not_kept(start: Any, vessels: Any) -> None:
    process = start()
    request = vessels.ChangeTanksRequest(vessel_ids=["v", "w"], by=2)
    rpc = process.context.contract.command_of(request)
    await process.executor.execute(rpc, request, CommandCall(command_id=f"command-{next(_ids)}"))
    assert process.log.kept_reads == 0
    assert await process.kept("Tank", "v") is None
    assert await process.kept("Tank", "w") is None
    assert (await process.change("Tank", 1)).level == 3


async def test_a_narrowed_boundary_has_no_part_in_what_is_kept(start: Any, vessels: Any) -> None:
    process = start()
    await process.append([1] * 200)
    await process.change("Tank", 0)
    await process.append([5])
    await process.change("Tank", 1)
    request = vessels.ChangeTankRequest(vessel_id="v", by=1)
    rpc = process.context.contract.command_of(request)
    narrowed = boundary_of(rpc.state, rpc.tags, request).only(vessels.LevelChanged)
    fresh = start()
    known = await fresh.states.load(narrowed)
    assert (known.state.level, known.events) == (206, 202)
    assert fresh.log.kept_reads == 0
    assert fresh.states.keep_in_log(narrowed, known) == (known, None)


async def test_commands_of_one_batch_keep_the_last_state(start: Any) -> None:
    process = start()
    answers = await asyncio.gather(*(process.change("Tank", 1) for _ in range(50)))
    assert sorted(answer.level for answer in answers) == list(range(1, 51))
    found = await process.kept("Tank")
    assert (found.position, found.events) == (50, 50)
    assert process.vessels.Tank.FromString(found.body).level == 50


async def test_snapshots_of_many_vessels_are_looked_for_at_once(start: Any) -> None:
    process = start()
    await asyncio.gather(*(process.change("Tank", 1, f"v{number}") for number in range(100)))
    fresh = start()
    answers = await asyncio.gather(*(fresh.change("Tank", 1, f"v{number}") for number in range(100)))
    assert [answer.level for answer in answers] == [2] * 100
    assert fresh.log.events == 0
    assert fresh.log.kept_reads <= 3


async def test_a_deleted_or_damaged_state_is_folded_from_its_first_event(
    start: Any, url: str, database: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    binary = "BLOB" if url.startswith("sqlite") else "bytea"
    for damage in ("DELETE FROM states", f"UPDATE states SET body = CAST('damaged' AS {binary})"):
        process = start()
        await process.append([1] * 20)
        level = (await process.change("Tank", 1)).level
        events = (await process.kept("Tank")).events
        await database.run(damage)
        capsys.readouterr()
        fresh = start()
        assert (await fresh.state("Tank")).level == level
        assert fresh.log.events == events
        assert ("a kept state is damaged" in capsys.readouterr().out) == damage.startswith("UPDATE")
        # The next command keeps it again.
        await fresh.change("Tank", -1)
        assert await fresh.kept("Tank") is not None


HISTORIES = st.lists(
    st.one_of(
        st.tuples(st.just("command"), st.integers(-20, 20), st.sampled_from("vw")),
        st.tuples(st.just("other writer"), st.integers(1, 12), st.sampled_from("vw")),
        st.tuples(st.just("restart"), st.just(0), st.just("v")),
        st.tuples(st.just("question"), st.just(0), st.sampled_from("vw")),
    ),
    max_size=40,
)


@pytest.mark.parametrize("kind", ["Meter", "Tank"])
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(history=HISTORIES)
def test_however_it_is_kept_a_state_is_what_its_events_make_of_it(vessels: Any, kind: str, history: Any) -> None:
    async def lived(kind: str) -> list[Any]:
        log = await open_log("memory:", "vessels")
        process, seen = Process(vessels, log), list[Any]()
        for what, amount, vessel in history:
            if what == "command":
                try:
                    seen.append((await process.change(kind, amount, vessel)).level)
                except Rejected as refusal:
                    seen.append(refusal.message)
            elif what == "other writer":
                await process.append([3] * amount, vessel)
            elif what == "restart":
                process = Process(vessels, log)
            else:
                try:
                    state = await process.state(kind, vessel)
                    seen.append((state.vessel_id, state.level, state.trace))
                except NotFound:
                    seen.append(None)
        await log.close()
        return seen

    assert asyncio.run(lived(kind)) == asyncio.run(lived("Gauge"))


@pytest.fixture
async def other(url: str, name: str, log: Log) -> AsyncIterator[Log]:
    """The same log, opened once more, as another process has it."""
    if not url.startswith("postgresql"):
        pytest.skip("one process writes such a log")
    opened = await open_log(url, name)
    yield opened
    await opened.close()


async def test_processes_fold_on_from_what_the_other_kept(vessels: Any, log: Log, other: Log) -> None:
    here, there = Process(vessels, log), Process(vessels, other)
    for number in range(1, 41):
        one = here if number % 3 else there
        assert (await one.change("Tank", 1)).level == number
        if number % 10 == 0:
            fresh = Process(vessels, other if number % 20 else log)
            assert (await fresh.state("Tank")).level == number
            assert fresh.log.events == 0
    await there.append([100])
    assert (await Process(vessels, log).state("Tank")).level == 140
    assert (await here.change("Tank", 1)).level == 141


async def test_a_condition_is_what_keeps_a_stale_state_out(start: Any, vessels: Any) -> None:
    """A state is kept with the events that it led to, so the log judges it with them."""
    process = start()
    await process.change("Tank", 1)
    request = vessels.ChangeTankRequest(vessel_id="v", by=1)
    rpc = process.context.contract.command_of(request)
    boundary = boundary_of(rpc.state, rpc.tags, request)
    known = await process.states.load(boundary)
    await start().change("Tank", 1)
    _, keep = process.states.keep_in_log(boundary, process.states.fold(boundary, known, [vessels.LevelChanged(by=9)]))
    entry = Entry(
        command_id="late",
        events=(NewEvent(id="e", type="vessels.v1.LevelChanged", payload=b"", tags=("vessel:v",)),),
        condition=Condition(boundary.query, known.position),
        keeps=keep,
    )
    (outcome,) = await process.log.append_all([entry])
    assert type(outcome).__name__ == "Conflict"
    assert (await process.kept("Tank")).position == 2
