"""The places of a projection, and the pointer that says which of them answers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import sqlalchemy as sa

from ceqs.errors import Behind, OutOfRange
from ceqs.projectors import ModelReader, Place, Places, fill, place_of, places_of
from ceqs.projectors._place import read_label
from ceqs.projectors._places import next_of, shape_of
from ceqs.projectors._reader import Checkpoint
from ceqs.projectors._store import Store


@pytest.fixture
async def places(models_url: str) -> AsyncIterator[Places]:
    places = places_of(models_url, "library", "Shelf")
    yield places
    await places.close()


async def make(places: Places, place: Place, position: int, shape: str = "") -> Place:
    """Make a place that stands at a position."""
    await places.make(place, shape)
    async with Store.open(place, "library") as store, store.advance(Checkpoint("log", position, "id")):
        pass
    return place


@pytest.mark.parametrize(
    ("label", "parts"), [("v1", (1, 1)), ("v12", (12, 1)), ("v2.3", (2, 3)), ("v2.1", None), ("v0", None), ("1", None)]
)
def test_a_label_names_version_and_generation(label: str, parts: tuple[int, int] | None) -> None:
    assert read_label(label) == parts
    if parts:
        assert place_of("sqlite:////models", "library", "Shelf", *parts).label == label


async def test_places_that_exist_are_found_oldest_first_with_what_is_on_record(places: Places, models_url: str) -> None:
    assert await places.known() == []
    for parts in ((10, 1), (2, 2), (2, 1)):
        assert await places.make(places.at(*parts), "shape")
        assert not await places.make(places.at(*parts), "another")
    # Another projection's, whose name begins alike.
    other = places_of(models_url, "library", "ShelfMarks")
    await other.make(other.at(3), "")
    await other.close()
    await places.note(places.at(2), held=True)
    await places.note(places.at(2), filled=True)
    known = await places.known()
    assert [(k.place.label, k.place.version, k.place.generation) for k in known] == [
        ("v10", 10, 1),
        ("v2.2", 2, 2),
        ("v2", 2, 1),
    ]
    assert [(k.record.shape, k.record.held, k.record.filled) for k in known[1:]] == [
        ("shape", False, False),
        ("shape", True, True),
    ]
    assert next_of(known, 2, places).label == "v2.3"
    assert next_of(known, 3, places).label == "v3"


async def test_a_place_that_is_behind_the_one_that_answers_does_not_take_over(places: Places) -> None:
    first = await make(places, places.at(1), 5)
    second = await make(places, places.at(2), 4)
    assert await places.serving() is None
    assert await places.switch(first)
    assert not await places.switch(second)
    assert await places.serving() == first
    await make(places, second, 5)
    assert await places.switch(second)
    assert await places.serving() == second


async def test_nobody_switches_while_the_place_that_answers_is_being_advanced(places: Places) -> None:
    """Its next position would be answered with, and then an older one."""
    first = await make(places, places.at(1), 5)
    second = await make(places, places.at(2), 5)
    await places.switch(first)
    async with Store.open(first, "library") as store:
        async with store.advance(Checkpoint("log", 6, "id")):
            assert not await places.switch(second)
        assert not await places.switch(second)
    await make(places, second, 6)
    assert await places.switch(second)


async def test_a_reader_moves_over_with_the_pointer(places: Places) -> None:
    first = await make(places, places.at(1), 3)
    await places.switch(first)
    reader = ModelReader(places)
    async with reader.session() as (_, before):
        second = await make(places, places.at(1, 2), 5)
        await places.switch(second)
        async with reader.session() as (_, after):
            assert (before.position, after.position) == (3, 5)
    await make(places, first, 5)
    await places.switch(first)
    await make(places, second, 7)
    async with reader.session() as (_, again):
        assert again.position == 5
    await reader.close()


async def test_a_place_is_removed_when_nobody_reads_it_any_more(places: Places) -> None:
    first = await make(places, places.at(1), 3)
    await places.switch(first)
    reader = ModelReader(places)
    async with reader.session() as (session, _):
        second = await make(places, places.at(2), 3)
        await places.switch(second)
        async with reader.session():  # of the other place
            assert not await places.remove(first, timeout=0.1)
        assert (await session.execute(sa.text("SELECT position FROM ceqs_checkpoint"))).scalar_one() == 3
    assert await places.remove(first, timeout=10)
    assert [k.place for k in await places.known()] == [second]
    async with reader.session() as (_, at):
        assert at.position == 3
    assert await make(places, first, 1) == first
    await reader.close()
    reader = ModelReader(first)
    async with reader.session() as (_, at):
        assert at.position == 1
    await reader.close()


async def test_a_build_with_other_tables_goes_on_reading_a_place_that_has_them(places: Places) -> None:
    """While a new version is rolled out, servers of both builds answer, each from tables that it knows."""
    old, new = sa.MetaData(), sa.MetaData()
    sa.Table("shelf", old, sa.Column("id", sa.Integer, primary_key=True))
    sa.Table("shelf", new, sa.Column("id", sa.String, primary_key=True))
    assert shape_of(old) != shape_of(new) == shape_of(new)
    readers = ModelReader(places, old), ModelReader(places, new)
    reasons: list[str] = []

    async def positions() -> list[int | str]:
        found: list[int | str] = []
        for reader in readers:
            try:
                async with reader.session() as (_, at):
                    found.append(at.position)
            except Behind as behind:
                reasons.append(behind.message)
                found.append(behind.metadata["position"])
        return found

    first = await make(places, places.at(1), 3, shape_of(old))
    await places.switch(first)
    await places.note(first, filled=True)
    assert await positions() == [3, "0"]
    second = await make(places, places.at(2), 4, shape_of(new))
    assert await positions() == [3, "4"]
    assert all("meanwhile v1 answers, whose tables this build does not read" in reason for reason in reasons)
    await places.switch(second)
    await places.note(second, filled=True)
    assert await positions() == [3, 4]
    await make(places, first, 5, shape_of(old))
    await places.switch(first)  # rolled back
    assert await positions() == [5, 4]
    for reader in readers:
        await reader.close()


async def test_a_model_that_no_place_answers_for_says_how_far_it_is(places: Places) -> None:
    reader = ModelReader(places)
    with pytest.raises(Behind, match="has not been projected yet") as raised:
        async with reader.session():
            pass
    assert raised.value.metadata == {"position": "0"}
    await make(places, places.at(1), 7)
    with pytest.raises(Behind, match="is being filled and stands at position 7") as raised:
        async with reader.session():
            pass
    assert raised.value.metadata == {"position": "7"}
    await places.switch(places.at(1))
    assert await reader.wait(7, 30)
    await reader.close()


async def test_a_place_is_filled_up_to_a_position_and_on_from_there(
    world: Any, library_context: Any, places: Places, models_url: str
) -> None:
    context = library_context(world.shelf)
    await world.start(context)
    await world.acquire(*[f"b{n % 3}" for n in range(700)])
    world.models_url, log = models_url, world.logs["library"]
    assert (await fill(places.at(1), world.shelf, context.decoder, log, 10)).position == 10
    assert await world.rows() == {"b0": 4, "b1": 3, "b2": 3}
    at = await fill(places.at(1), world.shelf, context.decoder, log, 650)
    assert (at.position, at.event_id) == (650, (await world.events("library"))[649].id)
    assert await world.rows() == {"b0": 217, "b1": 217, "b2": 216}
    for beyond in (649, 701):
        with pytest.raises(OutOfRange):
            await fill(places.at(1), world.shelf, context.decoder, log, beyond)
