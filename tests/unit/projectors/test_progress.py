"""How far a publisher or subscriber has got."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from ceqs.errors import Behind, Unavailable
from ceqs.projectors import Checkpoint, Progress, place_of
from ceqs.projectors._outbox import ACCEPTED, REJECTED, Outcome, Outgoing, enqueue
from ceqs.projectors._store import Store
from ceqs.projectors._waiting import Waiting, written
from ceqs.testing import eventually


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
        await progress.reach(1, 30)
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
        await progress.reach(3, 30)
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
    late = asyncio.ensure_future(waiting.reach(7, 30))
    await asyncio.sleep(0.01)
    waiting.advance(7)
    assert await late
    await waiting.close()


async def test_a_place_is_looked_at_when_it_was_written_and_now_and_then_besides(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("ceqs.projectors._waiting.SLOWEST", 30.0)
    stands = writings = looks = 0

    async def look() -> int:
        nonlocal looks
        looks += 1
        return stands

    waiting = Waiting(look, "a place", lambda: writings)
    coming = asyncio.ensure_future(waiting.reach(2, 30))
    await asyncio.sleep(0.05)
    assert looks == 1, "nothing was written since"
    stands = writings = 1
    await eventually(lambda: looks == 2)
    stands = writings = 2
    assert await coming
    assert looks == 3
    await asyncio.sleep(0.01)
    monkeypatch.setattr("ceqs.projectors._waiting.SLOWEST", 0.02)
    coming = asyncio.ensure_future(waiting.reach(3, 30))
    await eventually(lambda: looks == 4)
    stands = 3
    assert await coming, "what the file does not tell is seen a little later"
    await waiting.close()


async def test_that_a_place_was_written_is_told_by_its_file(tmp_path: Path) -> None:
    place = place_of(f"sqlite:///{tmp_path}", "readers", "NoteOffers")
    assert written(None) is written(place) is None
    assert place.path is not None
    place.path.parent.mkdir(parents=True)
    with closing(sqlite3.connect(place.path)) as writer:
        writer.execute("PRAGMA journal_mode = WAL")
        writer.execute("CREATE TABLE rows (n INTEGER)")
        before = written(place)
        assert before is not None
        assert written(place) == before
        writer.execute("INSERT INTO rows VALUES (1)")
        writer.commit()
        assert written(place) != before
    postgres = place_of("postgresql://localhost/none", "readers", "NoteOffers")
    assert written(postgres) is None


async def test_whoever_waits_is_told_what_looking_has_met() -> None:
    answers: list[Any] = [Unavailable("for a moment"), ValueError("for good")]

    async def look() -> int:
        raise answers.pop(0)

    waiting = Waiting(look, "a place")
    with pytest.raises(ValueError, match="for good"):
        await waiting.reach(1, 30)
    assert not answers


async def test_whoever_waits_at_a_reader_that_is_closed_is_told(progress: Progress) -> None:
    waiting = asyncio.ensure_future(progress.reach(1, 30))
    await asyncio.sleep(0.01)
    await progress.close()
    with pytest.raises(Unavailable, match="the reader of NoteOffers of the context readers is closed"):
        await waiting
