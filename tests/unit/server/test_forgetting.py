"""A server forgets what its log no longer promises to remember, in short steps, and nothing else."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from ceqs.errors import LogUnavailable
from ceqs.log import Entry, Log, open_log
from ceqs.log._retention import PURGED
from ceqs.server import forget_lapsed
from ceqs.testing import eventually


class Clock:
    """A clock that stands where the test says: so many days ago."""

    def __init__(self) -> None:
        self.days_ago = 0

    def __call__(self) -> dt.datetime:
        return dt.datetime.now(dt.UTC) - dt.timedelta(days=self.days_ago)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def log(tmp_path: Path, clock: Clock) -> AsyncIterator[Log]:
    opened = await open_log(f"sqlite:///{tmp_path}/log.db", "orders", clock=clock)
    yield opened
    await opened.close()


class Steps:
    """A log that tells of each step of a purge."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self.told = list[str]()
        self.failures = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)

    async def purge(self, after: str = "") -> Any:
        if self.failures:
            self.failures -= 1
            raise LogUnavailable
        done = await self._log.purge(after)
        assert done.examined <= PURGED <= 250, "the log's lock is not held for longer"
        self.told.append("step")
        return done

    async def rest(self, seconds: float) -> None:
        assert seconds > 0
        self.told.append("rest")
        await asyncio.sleep(0)


@contextlib.asynccontextmanager
async def forgetting(steps: Steps) -> AsyncIterator[None]:
    task = asyncio.create_task(forget_lapsed(steps, 1.0, rest=steps.rest))  # type: ignore[arg-type]  # log enough
    yield
    assert not task.done()
    task.cancel()


async def record(log: Log, clock: Clock, days_ago: int, name: str, count: int, *, derived: bool = False) -> None:
    clock.days_ago = days_ago
    for first in range(0, count, 100):
        ids = [f"{name}{i}" for i in range(first, min(count, first + 100))]
        await log.append_all([Entry(command_id=one, remember=True, derived=derived) for one in ids])
    clock.days_ago = 0


def remembered(log: Log) -> Callable[[str], Any]:
    async def knows(command_id: str) -> bool:
        return await log.find(command_id, b"", derived=True) is not None

    return knows


async def test_what_has_lapsed_is_forgotten_step_by_step_and_all_else_is_kept(log: Log, clock: Clock) -> None:
    await log.remember(30)
    await record(log, clock, 40, "ceqs:derived", 3, derived=True)
    await record(log, clock, 31, "old", 2 * PURGED)
    await record(log, clock, 29, "young", 3)
    steps, knows = Steps(log), remembered(log)
    async with forgetting(steps):
        await eventually(lambda: steps.told.count("step") >= 3)
        # What is appended meanwhile does not wait for the end of a pass.
        assert not (await log.append(Entry(command_id="now", remember=True))).repeated
        await eventually(lambda: steps.told.count("step") >= 6)
    assert "step, step" not in ", ".join(steps.told), "others have their turn between two steps"
    for kept in ("ceqs:derived0", "young0", "young2", "now"):
        assert await knows(kept)
    assert [one for one in (f"old{i}" for i in range(2 * PURGED)) if await knows(one)] == []


async def test_a_log_that_promises_to_remember_for_ever_is_left_alone(log: Log, clock: Clock) -> None:
    await record(log, clock, 40_000, "old", 1)
    steps = Steps(log)
    async with forgetting(steps):
        await eventually(lambda: steps.told.count("rest") > 3)
    assert "step" not in steps.told
    assert await remembered(log)("old0")


async def test_a_pass_that_fails_is_made_up_for_by_the_next(log: Log, clock: Clock) -> None:
    await log.remember(30)
    await record(log, clock, 31, "old", 1)
    steps, knows = Steps(log), remembered(log)
    steps.failures = 2
    async with forgetting(steps):
        await eventually(lambda: "step" in steps.told)
    assert not await knows("old0")
