"""How far a publisher or subscriber has got."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from ceqs.errors import Behind, Unavailable
from ceqs.projectors import Checkpoint, Progress, place_of
from ceqs.projectors._outbox import ACCEPTED, REJECTED, Outcome, Outgoing, enqueue
from ceqs.projectors._store import Store
from ceqs.projectors._waiting import Waiting


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    found: str = request.getfixturevalue("postgres") if request.param == "postgres" else f"sqlite:///{tmp_path}"
    return found


@pytest.fixture
async def progress(url: str) -> AsyncIterator[Progress]:
    found = Progress(place_of(url, "readers", "NoteOffers"))
    yield found
    await found.close()


async def hear(store: Store, position: int, *calls: str) -> None:
    """Do what a subscriber does with an event."""
    async with store.advance(Checkpoint("log", position, str(position))) as session:
        if calls:
            await enqueue(session, [Outgoing(request_id=call, path="/a.B/C", request=b"") for call in calls])


async def test_an_event_is_passed_when_every_call_that_it_led_to_is_settled(url: str, progress: Progress) -> None:
    with pytest.raises(Behind, match="NoteOffers of the context readers has passed position 0, 1 before 1"):
        await progress.reach(1, 0.05)
    async with Store.open(place_of(url, "readers", "NoteOffers"), "library") as store:
        await hear(store, 1)
        await progress.reach(1, 5)
        await hear(store, 2, "a", "b")
        await hear(store, 3)
        with pytest.raises(Behind, match="has passed position 1, 1 before 2"):
            await progress.reach(2, 0.05)
        (first, _), (second, _) = await store.outbox.calls(0, 10)
        await store.outbox.settle([(second, "/a.B/C", Outcome(ACCEPTED))])
        with pytest.raises(Behind, match="has passed position 1, 1 before 2"):
            await progress.reach(2, 0.05)
        # Later calls do not hold up what came before them.
        await hear(store, 4, "c")
        await store.outbox.settle([(first, "/a.B/C", Outcome(REJECTED, "NO"))])
        await progress.reach(3, 5)
        with pytest.raises(Behind, match="has passed position 3, 1 before 4"):
            await progress.reach(4, 0.05)


async def test_many_wait_at_the_cost_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[float] = []

    async def look() -> int:
        looks.append(time.monotonic())
        await asyncio.sleep(0)
        return 0

    waiting = Waiting(look, "a place")
    assert not any(await asyncio.gather(*(waiting.reach(1, 0.2) for _ in range(200))))
    assert len(looks) < 200
    looks.clear()
    await asyncio.sleep(0.05)
    assert len(looks) <= 1, "nobody waits"
    late = asyncio.ensure_future(waiting.reach(7, 5))
    await asyncio.sleep(0.01)
    waiting.advance(7)
    assert await late
    await waiting.close()


async def test_whoever_waits_is_told_what_looking_has_met() -> None:
    answers: list[Any] = [Unavailable("for a moment"), ValueError("for good")]

    async def look() -> int:
        raise answers.pop(0)

    waiting = Waiting(look, "a place")
    with pytest.raises(ValueError, match="for good"):
        await waiting.reach(1, 5)
    assert not answers


async def test_whoever_waits_at_a_reader_that_is_closed_is_told(progress: Progress) -> None:
    waiting = asyncio.ensure_future(progress.reach(1, 5))
    await asyncio.sleep(0.01)
    await progress.close()
    with pytest.raises(Unavailable, match="the reader of NoteOffers of the context readers is closed"):
        await waiting
