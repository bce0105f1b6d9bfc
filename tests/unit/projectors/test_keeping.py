"""Places that are filled beside the one that answers, over real gRPC, on SQLite and PostgreSQL."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import sqlalchemy as sa

from ceqs.errors import Behind
from ceqs.model import Context
from ceqs.projectors import ModelReader, Places, place_of, places_of
from ceqs.projectors import _keeper as keeper
from ceqs.projectors._places import next_of, shape_of
from ceqs.testing import eventually

pytestmark = pytest.mark.usefixtures("fast")


@pytest.fixture
async def served(world: Any, library_context: Any, models_url: str) -> Context:
    world.models_url = models_url
    context: Context = library_context(world.shelf)
    await world.start(context)
    return context


@pytest.fixture
async def places(world: Any, served: Context) -> AsyncIterator[Places]:
    places = places_of(world.models_url, "library", "Shelf")
    yield places
    await places.close()


async def serves(places: Places, label: str) -> bool:
    serving = await places.serving()
    return serving is not None and serving.label == label


async def position(world: Any, version: int, generation: int = 1) -> int:
    reader = ModelReader(place_of(world.models_url, "library", "Shelf", version, generation))
    try:
        async with reader.session() as (_, at):
            return at.position
    except Behind:
        return -1
    finally:
        await reader.close()


async def test_a_new_version_fills_itself_while_the_old_one_answers_and_is_fed_until_it_is_dropped(
    world: Any, served: Context, places: Places
) -> None:
    world.project(served)
    await world.acquire(*"abcab")
    await world.reaches(5)
    await world.halt()
    newer, open_ = world.context_of(2), False
    newer.earlier = [world.shelf]

    def before(event: Any, meta: Any) -> None:
        if meta.position == 4 and not open_:
            raise OSError("not yet")

    newer.projections["Shelf"].before = before
    projector = world.project(newer)
    await eventually(lambda: reached(world, 3, 2))
    await world.acquire("c")
    await world.reaches(6)  # of the place that answers
    assert await serves(places, "v1")
    assert projector.status()[0].version == 1
    open_ = True
    await eventually(lambda: serves(places, "v2"))
    await world.acquire("d")
    await world.reaches(7)
    await eventually(lambda: reached(world, 7, 1))
    assert await world.rows(1) == await world.rows(2) == {"a": 2, "b": 2, "c": 2, "d": 1}
    assert projector.status()[0].version == 2


async def test_a_new_projection_of_a_system_with_history_answers_once_it_is_caught_up(
    world: Any, served: Context, places: Places
) -> None:
    open_ = False

    def before(event: Any, meta: Any) -> None:
        if meta.position == 4 and not open_:
            raise OSError("not yet")

    world.shelf.before = before
    await world.acquire(*"abcab")
    world.project(served)
    await eventually(lambda: reached(world, 3, 1))
    reader = ModelReader(places_of(world.models_url, "library", "Shelf"), world.shelf.metadata)
    for _ in range(5):
        with pytest.raises(Behind, match="is being filled and stands at position 3") as raised:
            async with reader.session():
                pass
        assert raised.value.metadata == {"position": "3"}
        await asyncio.sleep(keeper.LOOK_SOON)
    open_ = True
    assert await reader.wait(5, 30)
    async with reader.session() as (_, at):
        assert at.position == 5
    await reader.close()


async def reached(world: Any, wanted: int, version: int, generation: int = 1) -> bool:
    return await position(world, version, generation) >= wanted


async def test_damaged_rows_are_filled_anew_beside_them(world: Any, served: Context, places: Places) -> None:
    world.project(served)
    await world.acquire(*"aab")
    await world.reaches(3)
    engine = places.at(1).writing_engine()
    async with engine.begin() as connection:
        await connection.execute(sa.delete(world.shelf.metadata.tables["shelf"]))
    await engine.dispose()
    assert await world.rows() == {}
    await places.make(next_of(await places.known(), 1, places), shape_of(world.shelf.metadata))
    await eventually(lambda: serves(places, "v1.2"))
    await world.acquire("b")
    await world.reaches(4)
    assert await world.rows(1, 2) == {"a": 2, "b": 2}
    await eventually(lambda: reached(world, 4, 1))  # fed until it is dropped


async def test_a_projection_that_is_held_waits_until_it_is_not(world: Any, served: Context, places: Places) -> None:
    projector = world.project(served)
    await world.acquire("a")
    await world.reaches(1)
    await places.note(places.at(1), held=True)
    await eventually(lambda: projector.status()[0].state == "paused")
    assert "ceqs projection resume Shelf" in projector.status()[0].reason
    await world.acquire("b")
    assert await position(world, 1) == 1
    await places.note(places.at(1), held=False)
    await world.reaches(2)


async def test_a_place_that_is_being_dropped_is_written_no_more_and_a_lower_version_does_not_come_back(
    world: Any, served: Context, places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper, "LOOK", 0.1)
    world.project(served)  # the build that is being replaced: it knows version 1 only
    await world.acquire("a")
    await world.reaches(1)
    newer = world.context_of(2)
    world.project(newer)
    await eventually(lambda: serves(places, "v2"))
    await places.note(places.at(1), dropping=True)
    await eventually(lambda: released(places))
    assert await places.remove(places.at(1), timeout=10)
    await world.acquire("b")
    await world.reaches(2)
    await asyncio.sleep(5 * keeper.LOOK)  # what would come back has had the time to
    assert [k.place.label for k in await places.known()] == ["v2"]


async def released(places: Places) -> bool:
    engine = places.at(1).reading_engine()
    async with engine.connect() as connection:
        holder = (await connection.execute(sa.text("SELECT holder FROM ceqs_checkpoint"))).scalar_one()
    await engine.dispose()
    return not holder


async def test_tables_that_changed_without_their_version_are_named(world: Any, served: Context, places: Places) -> None:
    world.project(served)
    await world.acquire("a")
    await world.reaches(1)
    await world.halt()
    other = sa.MetaData()
    sa.Table("shelf", other, sa.Column("book_id", sa.String, primary_key=True), sa.Column("title", sa.String))
    world.shelf.metadata = other
    projector = world.project(served)
    await eventually(lambda: projector.status()[0].state == "paused")
    assert "the tables of Shelf have changed since v1 was made: raise its `version`" in projector.status()[0].reason
