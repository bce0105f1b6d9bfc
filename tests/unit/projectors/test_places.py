"""The places of a projection, and the pointer that says which of them answers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from ceqs.errors import Behind, OutOfRange
from ceqs.projectors import ModelReader, Place, Places, fill, place_of, places_of
from ceqs.projectors._place import read_label
from ceqs.projectors._reader import Checkpoint
from ceqs.projectors._store import Store


@pytest.fixture(params=["sqlite", "postgresql"])
def models_url(request: Any, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/models"
    return str(request.getfixturevalue("postgres_url"))


@pytest.fixture
async def places(models_url: str) -> AsyncIterator[Places]:
    places = places_of(models_url, "library", "Shelf")
    yield places
    await places.close()


async def make(place: Place, position: int) -> None:
    """Make a place that stands at a position."""
    async with Store.open(place, "library") as store, store.advance(Checkpoint("log", position, "id")):
        pass


@pytest.mark.parametrize(
    ("label", "parts"), [("v1", (1, 1)), ("v12", (12, 1)), ("v2.3", (2, 3)), ("v2.1", None), ("v0", None), ("1", None)]
)
def test_a_label_names_version_and_generation(label: str, parts: tuple[int, int] | None) -> None:
    assert read_label(label) == parts
    if parts:
        assert place_of("sqlite:////models", "library", "Shelf", *parts).label == label


async def test_places_that_exist_are_found_in_order(places: Places, models_url: str) -> None:
    assert await places.existing() == []
    for parts in ((10, 1), (2, 2), (2, 1)):
        await make(places.at(*parts), 1)
    # Another projection's, whose name begins alike.
    other = places_of(models_url, "library", "ShelfMarks")
    await make(other.at(3), 1)
    await other.close()
    assert [place.label for place in await places.existing()] == ["v2", "v2.2", "v10"]
    assert [place.version for place in await places.existing()] == [2, 2, 10]


async def test_the_pointer_moves_only_from_where_it_is_believed_to_be(places: Places) -> None:
    first, second, third = places.at(1), places.at(2), places.at(2, 2)
    assert await places.serving() is None
    assert not await places.serve(second, instead_of=first)
    assert await places.serve(first, instead_of=None)
    assert not await places.serve(second, instead_of=None)
    assert await places.serve(second, instead_of=first)
    assert not await places.serve(third, instead_of=first)
    assert await places.serving() == second


async def test_a_reader_moves_over_with_the_pointer(places: Places) -> None:
    first, second = places.at(1), places.at(1, 2)
    await make(first, 3)
    await places.serve(first, instead_of=None)
    reader = ModelReader(places)
    async with reader.session() as (_, before):
        await make(second, 5)
        await places.serve(second, instead_of=first)
        async with reader.session() as (_, after):
            assert (before.position, after.position) == (3, 5)
    await places.serve(first, instead_of=second)
    async with reader.session() as (_, again):
        assert again.position == 3
    await reader.close()


async def test_a_model_that_no_place_answers_for_says_how_far_it_is(places: Places) -> None:
    reader = ModelReader(places)
    with pytest.raises(Behind, match="has not been projected yet") as raised:
        async with reader.session():
            pass
    assert raised.value.metadata == {"position": "0"}
    await make(places.at(1), 7)
    with pytest.raises(Behind, match="is being filled and stands at position 7") as raised:
        async with reader.session():
            pass
    assert raised.value.metadata == {"position": "7"}
    await places.serve(places.at(1), instead_of=None)
    assert await reader.wait(7, 10)
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
