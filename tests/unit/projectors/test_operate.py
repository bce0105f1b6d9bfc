"""What operators may do with places, and what is refused."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import sqlalchemy as sa

from ceqs.errors import NotFound, Rejected, Unavailable
from ceqs.projectors import Place, Places, drop, hold, look_over, places_of, roll_back, start_rebuild
from ceqs.projectors._reader import Checkpoint
from ceqs.projectors._shares import shares
from ceqs.projectors._store import Store
from ceqs.projectors._tables import CHECKPOINT


@pytest.fixture
async def places(models_url: str) -> AsyncIterator[Places]:
    places = places_of(models_url, "library", "Shelf")
    yield places
    await places.close()


async def stand(places: Places, place: Place, position: int, *, filled: bool = True, log: str = "log") -> None:
    """Have a place stand at a position."""
    await places.make(place, "shape")
    async with Store.open(place, "library") as store, store.advance(Checkpoint(log, position, "id")):
        pass
    await places.note(place, filled=filled)


async def states(places: Places) -> list[tuple[str, str, int]]:
    return [(one.place.label, one.state, one.at.position) for one in await look_over(places)]


async def test_a_rebuild_that_was_begun_goes_on_and_a_filled_one_is_followed_by_the_next(places: Places) -> None:
    place, new = await start_rebuild(places, 2, "shape")
    assert (place.label, new) == ("v2", True)
    assert await states(places) == [("v2", "filling", 0)]
    assert await start_rebuild(places, 2, "shape") == (place, False)
    await places.note(place, filled=True)
    place, new = await start_rebuild(places, 2, "shape")
    assert (place.label, new) == ("v2.2", True)
    other, new = await start_rebuild(places, 2, "of other tables")
    assert (other.label, new) == ("v2.3", True)


@pytest.mark.parametrize("at", ["known", "serving"])
async def test_a_place_that_takes_over_during_a_look_is_never_found_filled_without_an_answer(
    places: Places, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    """Whoever waits for it would take it for one that was overtaken."""
    first, second = places.at(1), places.at(2)
    await stand(places, first, 5)
    await places.switch(first)
    await stand(places, second, 5, filled=False)
    look = getattr(places, at)

    async def taken_over() -> Any:
        monkeypatch.undo()
        found = await look()
        assert await places.switch(second)
        await places.note(second, filled=True)
        return found

    monkeypatch.setattr(places, at, taken_over)
    one = (await look_over(places))[1]
    assert one.serves or not one.record.filled


async def test_nobody_goes_back_to_a_log_that_was_replaced(places: Places) -> None:
    first, second = places.at(1), places.at(2)
    await stand(places, first, 9, log="before")
    await places.switch(first)
    await stand(places, second, 7, log="after")
    assert await roll_back(places, "v2", 0) == (second, first)
    with pytest.raises(Rejected, match="v1 is of an earlier log than v2"):
        await roll_back(places, None, 0)
    assert await places.serving() == second


async def test_who_goes_back_never_goes_back_in_time(places: Places) -> None:
    with pytest.raises(NotFound, match="no place of Shelf of the context library answers yet"):
        await roll_back(places, None, 0)
    first, second = places.at(1), places.at(2)
    await stand(places, first, 5)
    await places.switch(first)
    with pytest.raises(NotFound, match="no place that answered before v1"):
        await roll_back(places, None, 0)
    await stand(places, second, 7)
    await places.switch(second)
    with pytest.raises(Unavailable, match=r"v1 stands at position 5 and v2 answers from 7.* Nobody feeds it"):
        await roll_back(places, None, 0.2)
    assert await places.serving() == second
    await stand(places, first, 7)
    assert await roll_back(places, None, 0) == (first, second)
    assert await places.serving() == first
    assert await roll_back(places, "v2", 0) == (second, first)
    await stand(places, places.at(3), 9, filled=False)
    with pytest.raises(Rejected, match="v3 is not filled"):
        await roll_back(places, "v3", 0)
    with pytest.raises(NotFound, match=r"has no place v4; there is v1, v2, v3"):
        await roll_back(places, "v4", 0)


async def test_a_place_is_dropped_unless_it_answers_or_is_written(places: Places) -> None:
    first, second = places.at(1), places.at(2)
    await stand(places, first, 5)
    await places.switch(first)
    with pytest.raises(Rejected, match="v1 answers"):
        await drop(places, "v1", 0)
    await stand(places, second, 5)
    async with Store.open(second, "library"):
        with pytest.raises(Unavailable, match=r"process \d+ on .* still writes v2"):
            await drop(places, "v2", 0.2)
        assert await states(places) == [("v1", "serves", 5), ("v2", "dropping", 5)]
    assert await drop(places, "v2", 5) == second
    assert await states(places) == [("v1", "serves", 5)]


async def test_a_place_that_takes_over_while_it_is_being_dropped_stays_and_one_that_is_dropped_does_not_take_over(
    places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the place that answers would be gone."""
    first, second = places.at(1), places.at(2)
    await stand(places, first, 5)
    await stand(places, second, 5, filled=False)
    await places.switch(first)
    look = places.serving

    async def taken_over() -> Any:
        monkeypatch.undo()
        found = await look()
        assert await places.switch(second)
        return found

    monkeypatch.setattr(places, "serving", taken_over)
    with pytest.raises(Rejected, match="v2 answers"):
        await drop(places, "v2", 0)
    assert await states(places) == [("v1", "ready", 5), ("v2", "serves", 5)]
    await places.note(first, dropping=True)
    assert not await places.switch(first)
    assert await places.serving() == second


async def test_places_are_held_and_let_go_together_or_one_by_one(places: Places) -> None:
    for version in (1, 2):
        await stand(places, places.at(version), 1)
    assert await hold(places, True, "v2") == [places.at(2)]
    assert await hold(places, True) == [places.at(1)]
    assert [state for _, state, _ in await states(places)] == ["paused", "paused"]
    assert await hold(places, False) == [places.at(1), places.at(2)]


async def test_a_place_with_several_workers_stands_where_the_last_of_them_does(places: Places) -> None:
    """Each share of its buckets has a row of the checkpoint, and a lease, of its own."""
    first, second = places.at(1), places.at(2)
    await stand(places, first, 5)
    await places.switch(first)
    await places.make(second, "shape")
    low, high = shares(2)
    async with Store.open(second, "library", share=high) as ahead:
        async with ahead.advance(Checkpoint("log", 7, "id")):
            pass
        behind = Store.open(second, "library", share=low)
        async with behind as store, store.advance(Checkpoint("log", 4, "id")) as session:
            await (await session.connection()).execute(sa.update(CHECKPOINT).values(parked=3))
        one = (await look_over(places))[1]
        assert (one.at.position, one.at.parked) == (4, 6)
        assert one.fed_by.startswith("process ")  # of the share that is ahead; nobody feeds the one that is behind
        assert not await places.switch(second)
        with pytest.raises(Unavailable, match="still writes v2"):
            await drop(places, "v2", 0.2)
    assert await drop(places, "v2", 5) == second
