"""Models of the past: replayed up to a position, kept for who asks next, within limits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import sqlalchemy as sa

from ceqs.contract import new_id
from ceqs.errors import Behind, TooLarge
from ceqs.log import Entry, Log, NewEvent, open_log
from ceqs.model import EventDecoder
from ceqs.projectors import Past, PastLimits, fill
from ceqs.projectors._scratch import Scratch
from ceqs.testing import eventually

from .conftest import SHELF, Shelf


class Replays:
    """The past of a shelf that stands in a log of acquisitions, and what its projection has heard."""

    def __init__(self, library: Any, log: Log, url: str) -> None:
        self.library, self.log, self.url = library, log, url
        self.shelf = Shelf()
        Shelf.ceqs_contract = library.contract
        self.heard: list[int] = []
        self.shelf.before = lambda event, meta: self.heard.append(meta.position)
        self.opened: list[Past] = []

    def open(self, **limits: Any) -> Past:
        past = Past(self.shelf, EventDecoder(self.library.contract), self.log, self.url, PastLimits(**limits))
        self.opened.append(past)
        return past

    async def acquire(self, count: int) -> None:
        events = tuple(
            NewEvent(
                id=new_id(),
                type="library.v1.BookAcquired",
                payload=self.library.BookAcquired(book_id="b", title="t").SerializeToString(),
            )
            for _ in range(count)
        )
        await self.log.append(Entry(command_id=new_id(), events=events))


@pytest.fixture
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    on_postgres = getattr(request, "param", "") == "postgres"
    found: str = request.getfixturevalue("postgres") if on_postgres else f"sqlite:///{tmp_path}/scratch"
    return found


on_both = pytest.mark.parametrize("url", ["sqlite", "postgres"], indirect=True)


@pytest.fixture
async def replays(library: Any, url: str) -> AsyncIterator[Replays]:
    log = await open_log("memory:", "library")
    replays = Replays(library, log, url)
    await replays.acquire(30)
    yield replays
    for past in replays.opened:
        await past.close()
    await log.close()


async def acquired(past: Past, position: int, within: float = 20) -> int:
    """Give how often the book was acquired, as of a position."""
    async with past.session(position, within) as (session, checkpoint):
        assert checkpoint.position == position
        return int((await session.execute(sa.select(SHELF.c.acquired))).scalar_one_or_none() or 0)


@on_both
async def test_a_model_is_replayed_up_to_a_position_and_no_further(replays: Replays) -> None:
    past = replays.open()
    assert [await acquired(past, position) for position in (0, 7, 30)] == [0, 7, 30]


@on_both
async def test_a_later_moment_continues_from_an_earlier_one(replays: Replays) -> None:
    past = replays.open()
    for position in (10, 10, 25):
        assert await acquired(past, position) == position
    assert replays.heard == list(range(1, 26))


async def test_many_who_ask_for_one_moment_replay_it_once(replays: Replays) -> None:
    past = replays.open()
    assert await asyncio.gather(*(acquired(past, 20) for _ in range(10))) == [20] * 10
    assert replays.heard == list(range(1, 21))


@on_both
async def test_a_model_that_is_being_read_stays_as_it_is(replays: Replays) -> None:
    past = replays.open(places=1)
    async with past.session(10, 20) as (session, _):
        assert await acquired(past, 20) == 20
        assert (await session.execute(sa.select(SHELF.c.acquired))).scalar_one() == 10
    assert await acquired(past, 10) == 10


async def test_whoever_has_no_time_is_told_how_far_it_is_and_the_replay_goes_on(
    replays: Replays, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ceqs.projectors._past.STEP", 10)
    past = replays.open()
    with pytest.raises(Behind, match=r"Shelf is being replayed as of position 30 and stands at \d+") as behind:
        await acquired(past, 30, within=0)
    assert behind.value.metadata["asked"] == "30"
    assert await acquired(past, 30) == 30
    assert replays.heard == list(range(1, 31))


async def test_a_replay_that_takes_too_long_is_given_up(replays: Replays, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ceqs.projectors._past.STEP", 5)
    past = replays.open(seconds=1e-9)
    with pytest.raises(TooLarge, match=r"at position 5 it has taken \d+ s \(scratch_seconds\)"):
        await acquired(past, 30)
    assert await acquired(past, 5) == 5


@on_both
async def test_a_model_that_is_too_large_is_removed(replays: Replays, places: Callable[[], Any]) -> None:
    past = replays.open(bytes=100)
    with pytest.raises(TooLarge, match=r"beyond the limits: at position 30 it has [\d,]+ bytes \(scratch_megabytes\)"):
        await acquired(past, 30)
    assert await places() == 0


async def test_no_more_models_are_kept_than_the_limit_says(replays: Replays, places: Callable[[], Any]) -> None:
    past = replays.open(places=2)
    for position in (20, 5, 15, 1):
        await acquired(past, position)
        assert await places() <= 2


async def test_what_nobody_asks_for_is_removed(replays: Replays, places: Callable[[], Any]) -> None:
    past = replays.open(idle=0.1)
    await acquired(past, 10)
    await eventually(lambda: _none(places))
    assert await acquired(past, 12) == 12


async def test_an_event_that_cannot_be_replayed_leaves_nothing_behind(
    replays: Replays, places: Callable[[], Any]
) -> None:
    def refuse(event: Any, meta: Any) -> None:
        if meta.position == 9:
            raise ValueError("the shelf is full")

    replays.shelf.before = refuse
    past = replays.open()
    assert await acquired(past, 8) == 8
    with pytest.raises(ValueError, match="the shelf is full"):
        await acquired(past, 9)
    replays.shelf.before = lambda event, meta: None
    assert await acquired(past, 9) == 9


@on_both
async def test_what_a_dead_process_has_left_is_removed(replays: Replays, places: Callable[[], Any]) -> None:
    mine = await Scratch.open(replays.url)
    left = await Scratch.open(replays.url)
    for scratch in (mine, left):
        await fill(scratch.place("Shelf"), replays.shelf, EventDecoder(replays.library.contract), replays.log, 3)
    # What a process that dies does without knowing it.
    await left.let_go()
    assert await places() == 2
    await acquired(replays.open(), 4)
    assert await places() == 2
    await mine.close()
    assert await places() == 1


@pytest.fixture
def places(url: str) -> Callable[[], Any]:
    """Count the places of the past."""

    async def count() -> int:
        if url.startswith("sqlite"):
            return len(list(Path(url.removeprefix("sqlite:///")).glob("past_*/*.db")))
        connection = await asyncpg.connect(url)
        try:
            return int(await connection.fetchval("SELECT count(*) FROM pg_namespace WHERE nspname ~ '^ceqs_past_'"))
        finally:
            await connection.close()

    return count


async def _none(places: Callable[[], Any]) -> bool:
    return bool(await places() == 0)
