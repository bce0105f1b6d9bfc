"""Commands wait for each other only where that pays."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest

from ceqs.log import MAX_BATCH_ENTRIES, Progress, _linger
from ceqs.server._lane import FEW, LONGEST_WAIT, Lane


class Waiting(asyncio.Future[None]):
    since: float


@dataclass
class Batch:
    commands: Sequence[Waiting]
    rest: Sequence[Waiting] = ()
    progress: Progress = field(default_factory=Progress)


async def decided(batch: Sequence[Waiting], before: Batch | None) -> Batch:
    return Batch(batch)


class Worked:
    """Answers batches, and remembers how many each had."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    async def __call__(self, batch: Batch) -> Sequence[Waiting]:
        self.sizes.append(len(batch.commands))
        for waiting in batch.commands:
            waiting.set_result(None)
        return ()


async def crowd(lane: Lane[Waiting, Batch], size: int, *, hurry: bool = False) -> None:
    crowd = [Waiting() for _ in range(size)]
    for waiting in crowd:
        lane.add(waiting, hurry=hurry)
    await asyncio.gather(*crowd)


@pytest.fixture
def ticks(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses that the lane makes; each lets one more command arrive."""
    made: list[float] = []
    sleep = asyncio.sleep

    async def tick(seconds: float) -> None:
        made.append(seconds)
        await sleep(0)

    monkeypatch.setattr("ceqs.server._lane.asyncio.sleep", tick)
    return made


async def test_who_comes_alone_or_with_few_others_is_not_kept_waiting(ticks: list[float]) -> None:
    lane = Lane(decided, Worked(), company=1)
    for size in (1, FEW, 1, FEW):
        await crowd(lane, size)
    assert ticks == []


async def test_after_a_crowd_a_batch_waits_while_more_come_and_no_longer(ticks: list[float]) -> None:
    work = Worked()
    lane = Lane(decided, work, company=1)
    await crowd(lane, FEW + 1)
    late = [asyncio.ensure_future(crowd(lane, 1)) for _ in range(3)]
    await asyncio.wait(late)
    assert work.sizes == [FEW + 1, 3]
    assert ticks == [_linger.TICK]


async def test_a_batch_waits_for_a_bounded_time_however_many_come(monkeypatch: pytest.MonkeyPatch) -> None:
    ticked = 0
    sleep = asyncio.sleep
    work = Worked()
    lane = Lane(decided, work, company=3)

    async def tick(seconds: float) -> None:
        nonlocal ticked
        ticked += 1
        for _ in range(10):
            lane.add(Waiting())
        await sleep(0)

    monkeypatch.setattr("ceqs.log._linger.time", SimpleNamespace(monotonic=lambda: ticked))
    monkeypatch.setattr("ceqs.server._lane.asyncio.sleep", tick)
    await crowd(lane, FEW + 1)
    await crowd(lane, 1)
    assert work.sizes == [FEW + 1, 31]
    assert ticked == 3


async def test_without_company_nobody_waits(ticks: list[float]) -> None:
    lane = Lane(decided, Worked(), company=0)
    await crowd(lane, FEW + 1)
    await crowd(lane, FEW + 1)
    assert ticks == []


async def test_a_command_in_a_hurry_lets_nobody_wait(ticks: list[float]) -> None:
    lane = Lane(decided, Worked(), company=1)
    await crowd(lane, FEW + 1)
    await crowd(lane, 10, hurry=True)
    await crowd(lane, 10, hurry=True)
    assert ticks == []


async def test_what_two_batches_give_back_keeps_its_order() -> None:
    many, given_back = [Waiting() for _ in range(2 * MAX_BATCH_ENTRIES + 1)], list[Waiting]()
    second = asyncio.Event()

    async def decide(batch: Sequence[Waiting], before: Batch | None) -> Batch:
        if before:
            second.set()
        made = Batch(batch)
        made.progress.judged.set()
        return made

    async def record(batch: Batch) -> Sequence[Waiting]:
        await second.wait()
        if len(given_back) < 2 * MAX_BATCH_ENTRIES:
            given_back.extend(batch.commands)
            return batch.commands
        return await worked(batch)

    worked = Worked()
    order: list[Waiting] = []
    lane = Lane(decide, record)
    for waiting in many:
        waiting.add_done_callback(order.append)
        lane.add(waiting)
    await asyncio.gather(*many)
    assert given_back == many[:-1]
    assert order == many


async def test_those_who_come_one_by_one_are_not_kept_waiting_for_each_other(
    monkeypatch: pytest.MonkeyPatch, ticks: list[float]
) -> None:
    work = Worked()
    lane = Lane(decided, work, company=1)
    tick, coming = asyncio.sleep, [Waiting() for _ in range(3)]

    async def one_more(seconds: float) -> None:
        await tick(seconds)
        if coming:
            lane.add(coming.pop())

    monkeypatch.setattr("ceqs.server._lane.asyncio.sleep", one_more)
    await crowd(lane, FEW + 1)
    await crowd(lane, 1)
    assert len(ticks) == 1


async def test_more_than_a_batch_that_waits_too_long_is_late_until_the_first_is_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 0.0
    monkeypatch.setattr("ceqs.server._lane.time", SimpleNamespace(monotonic=lambda: now))
    let_go = asyncio.Semaphore(0)
    worked = Worked()

    async def record(batch: Batch) -> Sequence[Waiting]:
        await let_go.acquire()
        return await worked(batch)

    lane = Lane(decided, record)
    waiting = [Waiting() for _ in range(MAX_BATCH_ENTRIES + 2)]
    for one in waiting[:-1]:
        lane.add(one)
        await asyncio.sleep(0)
    now = LONGEST_WAIT + 1
    # The first is being recorded already, and the others fill no more than a batch.
    assert not lane.is_late
    lane.add(waiting[-1])
    assert lane.is_late
    now = LONGEST_WAIT
    assert not lane.is_late
    now = LONGEST_WAIT + 1
    let_go.release()
    await asyncio.wait(waiting[:1])
    await asyncio.sleep(0)
    assert not lane.is_late
    for _ in range(2):
        let_go.release()
    await asyncio.gather(*waiting)
