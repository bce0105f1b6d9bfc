"""What a projection with several workers promises: on PostgreSQL, each with keys of its own."""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from ceqs.contract import BUCKETS
from ceqs.errors import Misconfigured
from ceqs.model import Context
from ceqs.projectors import (
    Checkpoint,
    ModelReader,
    Place,
    Request,
    ask,
    place_of,
    read_parked,
    read_status,
)
from ceqs.projectors import _crew as crew
from ceqs.projectors import _worker as worker
from ceqs.projectors._shares import WHOLE, shares
from ceqs.projectors._store import Store
from ceqs.projectors._tables import CHECKPOINT
from ceqs.testing import eventually
from ceqs.v1.events_pb2 import RecordedEvent

pytestmark = pytest.mark.usefixtures("fast")
BOOKS = [f"b{n}" for n in range(40)]


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crew, "APART", 0.05)
    monkeypatch.setattr(worker, "TRIES", 2)
    monkeypatch.setattr(worker, "ATTEND", 0.02)


@pytest.fixture
async def served(world: Any, library_context: Any, postgres_url: str) -> Context:
    """The library, whose shelf is partitioned by book, on PostgreSQL."""
    world.models_url = postgres_url
    world.shelf.partition_by = "book"
    context: Context = library_context(world.shelf)
    await world.start(context)
    return context


class Applied:
    """Notes in which order the shelf has the events of each book applied."""

    def __init__(self, world: Any) -> None:
        self.positions: dict[str, list[int]] = defaultdict(list)
        self.broken: set[str] = set()
        world.shelf.before = self._before

    def _before(self, event: Any, meta: Any) -> None:
        if event.book_id in self.broken:
            raise ValueError("no")
        self.positions[event.book_id].append(meta.position)


async def rows_of_the_checkpoint(world: Any) -> list[Any]:
    engine = place_of(world.models_url, "library", "Shelf").reading_engine()
    async with engine.connect() as connection:
        found = (await connection.execute(sa.select(CHECKPOINT).order_by(CHECKPOINT.c.first))).all()
    await engine.dispose()
    return list(found)


async def test_four_workers_make_what_one_would_and_keep_the_order_of_each_key(world: Any, served: Context) -> None:
    applied = Applied(world)
    await world.acquire(*[random.choice(BOOKS) for _ in range(600)])
    projector = world.project(served, partitions={"Shelf": 4})
    await world.reaches(600)
    counts = {book: len(positions) for book, positions in applied.positions.items()}
    assert await world.rows() == counts
    assert sum(counts.values()) == 600
    assert all(positions == sorted(positions) for positions in applied.positions.values())
    found = await rows_of_the_checkpoint(world)
    assert [(row.first, row.last) for row in found] == [(0, 63), (64, 127), (128, 191), (192, 255)]
    assert projector.status()[0].state == "live"


async def test_a_worker_of_few_keys_passes_over_many_events_in_one_transaction(
    world: Any, served: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    commit = worker.Worker._commit

    async def noted(self: Any, store: Any, lot: Any, events: Any) -> None:
        sizes.append(len(events))
        await commit(self, store, lot, events)

    monkeypatch.setattr(worker.Worker, "_commit", noted)
    await world.acquire(*BOOKS * 25)
    world.project(served, partitions={"Shelf": 4})
    await world.reaches(1000, within=20)
    assert sizes == [1000] * 4
    assert await world.rows() == dict.fromkeys(BOOKS, 25)


async def test_a_bucket_without_events_holds_nobody_up(world: Any, served: Context) -> None:
    world.project(served, partitions={"Shelf": 4})
    await world.acquire(*["b"] * 20)
    await world.record(world.library.LibraryClosed())
    await world.reaches(21)
    assert await world.rows() == {"b": 20}
    assert (await read_status(world.models_url, served))[0].skipped == 1


async def test_the_position_is_the_least_of_all_buckets(world: Any, served: Context) -> None:
    applied = Applied(world)
    world.shelf.max_parked = 0
    applied.broken = {"b7"}
    await world.acquire("b1", "b2", "b7", *BOOKS)
    projector = world.project(served, partitions={"Shelf": 4})
    await eventually(lambda: projector.status()[0].state == "paused")
    reader = ModelReader(place_of(world.models_url, "library", "Shelf"))
    await eventually(lambda: len(applied.positions) > 25)
    async with reader.session() as (_, checkpoint):
        assert checkpoint.position == 2
    assert max(row.position for row in await rows_of_the_checkpoint(world)) == 43
    assert projector.status()[0].position == 2
    assert "buckets" in projector.status()[0].reason
    assert "ValueError: no" in (await read_status(world.models_url, served))[0].reason
    applied.broken = set()
    assert await reader.wait(43, 30)
    await reader.close()


async def test_the_number_of_workers_changes_without_a_rebuild(world: Any, served: Context) -> None:
    """Also where the shares stand at different positions: one of them is held up at each change."""
    applied, expected, world.shelf.max_parked = Applied(world), 0, 0
    for count in (1, 4, 3, 1, 5):
        applied.broken = {random.choice(BOOKS)}
        await world.acquire(*random.sample(BOOKS, len(BOOKS)))
        expected += 1
        projector = world.project(served, partitions={"Shelf": count})
        await eventually(lambda projector=projector: projector.status()[0].state == "paused")  # type: ignore[misc]
        await world.halt()
    applied.broken = set()
    world.project(served, partitions={"Shelf": 2})
    await world.reaches(expected * len(BOOKS))
    assert await world.rows() == dict.fromkeys(BOOKS, expected)
    found = await rows_of_the_checkpoint(world)
    assert [(row.first, row.last, row.ahead) for row in found] == [(0, 127, []), (128, 255, [])]


async def test_processes_share_the_work_and_take_over_from_one_that_ends(world: Any, served: Context) -> None:
    one = world.project(served, partitions={"Shelf": 4})
    two = world.project(served, partitions={"Shelf": 4})
    await world.acquire(*BOOKS)
    await world.reaches(40)
    await eventually(lambda: {one.status()[0].state, two.status()[0].state} <= {"live", "stand-by"})
    first, second = world.projectors
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    world.projectors = [second]
    await world.acquire(*BOOKS)
    await world.reaches(80)
    assert await world.rows() == dict.fromkeys(BOOKS, 2)


async def test_an_event_is_parked_and_tried_again_by_the_worker_of_its_key(world: Any, served: Context) -> None:
    applied = Applied(world)
    applied.broken = {"b3", "b4"}
    await world.acquire(*BOOKS, *BOOKS)
    projector = world.project(served, partitions={"Shelf": 4})
    await world.reaches(80)
    place = place_of(world.models_url, "library", "Shelf")
    assert [one.key for one in await read_parked(place)] == ["book:b3", "book:b4"] * 2
    assert projector.status()[0].parked == 4
    applied.broken = {"b4"}
    for verb, position in (("retry", 4), ("skip", 5)):
        await ask(place, Request(verb=verb, position=position, actor="ann"))  # type: ignore[arg-type]
    applied.broken = set()
    await eventually(lambda: projector.status()[0].parked == 0)
    assert await world.rows() == {**dict.fromkeys(BOOKS, 2), "b4": 1}


@pytest.mark.parametrize("seed", range(5))
async def test_however_often_shares_are_cut_anew_every_event_is_applied_once(tmp_path: Path, seed: int) -> None:
    """A model of it: workers advance by chance, and are then as many as chance has it."""
    dice, head = random.Random(seed), 0
    place = place_of(f"sqlite:///{tmp_path}", "library", "Shelf")
    applied: dict[int, int] = defaultdict(int)
    buckets: list[int] = []
    for count in [1, *(dice.choice([1, 2, 3, 4, 7, 256]) for _ in range(4)), 3, 1]:
        buckets += [dice.randrange(BUCKETS) for _ in range(30)]
        head += 30
        for share in dice.sample(shares(count), min(count, 8)):
            await advance(place, share, dice.randint(0, head), buckets, applied)
    await advance(place, WHOLE, head, buckets, applied)
    assert applied == dict.fromkeys(range(1, head + 1), 1)


async def advance(place: Place, share: Any, to: int, buckets: list[int], applied: dict[int, int]) -> None:
    async with Store.open(place, "library", share=share) as store:
        first = store.at.position + 1
        events = [RecordedEvent(position=p, bucket=buckets[p - 1]) for p in range(first, to + 1)]
        for index in store.lacked(events, lambda event: event.position):
            applied[first + index] += 1
        if to > store.at.position:
            async with store.advance(Checkpoint("log", to, "id")):
                pass


@pytest.mark.parametrize("count", [1, 2, 3, 4, 100, 256])
def test_shares_have_every_bucket_once(count: int) -> None:
    found = shares(count)
    assert len(found) == count
    assert [bucket for share in found for bucket in range(share.first, share.last + 1)] == list(range(BUCKETS))


async def test_only_a_projection_with_keys_of_its_own_may_have_several_workers(
    world: Any, library_context: Any, postgres_url: str
) -> None:
    context = library_context(world.shelf)
    await world.start(context)
    with pytest.raises(Misconfigured, match="Shelf has one worker: only a projection that declares `partition_by`"):
        world.project(context, partitions={"Shelf": 2}, models_url=postgres_url)
    world.shelf.partition_by = "book"
    with pytest.raises(Misconfigured, match="Shelf is in a SQLite file, which has one writer; use PostgreSQL"):
        world.project(context, partitions={"Shelf": 2})
    with pytest.raises(Misconfigured, match="may have 1 to 256 of them, not 300"):
        world.project(context, partitions={"Shelf": 300}, models_url=postgres_url)
