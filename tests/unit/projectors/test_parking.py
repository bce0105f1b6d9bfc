"""What becomes of events that cannot be applied, over real gRPC and without NATS."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import sqlalchemy as sa

from ceqs.errors import Unavailable
from ceqs.model import Context, PublicHearing, Publisher, Subscriber
from ceqs.projectors import ModelReader, Request, ask, place_of, read_given_up, read_parked, read_status
from ceqs.projectors import _worker as worker
from ceqs.testing import eventually

pytestmark = pytest.mark.usefixtures("fast", "hasty")


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Try an event twice only, and look for requests often."""
    monkeypatch.setattr(worker, "TRIES", 2)
    monkeypatch.setattr(worker, "ATTEND", 0.02)


@pytest.fixture
async def served(world: Any, library_context: Any) -> Context:
    context: Context = library_context(world.shelf)
    await world.start(context)
    return context


class Poison:
    """Makes the shelf fail at positions, and notes in which order it has events applied."""

    def __init__(self, world: Any, *positions: int) -> None:
        self.positions = set(positions)
        self.applied: list[int] = []
        world.shelf.before = self._before

    def _before(self, event: Any, meta: Any) -> None:
        if meta.position in self.positions:
            raise ValueError(f"no shelf bears {event.book_id}")
        self.applied.append(meta.position)


def shelf(world: Any) -> Any:
    return place_of(world.models_url, "library", "Shelf")


async def parked(world: Any) -> list[tuple[int, str, str]]:
    return [(one.position, one.key, one.error) for one in await read_parked(shelf(world))]


async def request(world: Any, verb: Any, position: int) -> None:
    await ask(shelf(world), Request(verb=verb, position=position, actor="ann", why="it was a test"))


async def test_an_event_that_goes_on_failing_is_parked_with_its_error_and_all_others_flow(
    world: Any, served: Context
) -> None:
    Poison(world, 2)
    await world.acquire(*"abcd")
    projector = world.project(served)
    await world.reaches(4)
    assert await world.rows() == dict.fromkeys("acd", 1)
    (one,) = await read_parked(shelf(world))
    assert (one.position, one.key, one.error) == (2, "book:b", "ValueError: no shelf bears b")
    assert (one.event.type, one.tries) == ("library.v1.BookAcquired", 2)
    assert "in _before" in one.trace
    assert (projector.status()[0].state, projector.status()[0].parked) == ("live", 1)
    assert (await read_status(world.models_url, served))[0].parked == 1


async def test_later_events_of_its_key_wait_behind_it_in_order_and_a_restart_changes_nothing(
    world: Any, served: Context
) -> None:
    Poison(world, 2)
    await world.acquire(*"abcbb")
    world.project(served)
    await world.reaches(5)
    await world.halt()
    await world.acquire("b", "a")
    projector = world.project(served)
    await world.reaches(7)
    assert await world.rows() == {"a": 2, "c": 1}
    waiting = [(position, "book:b", "") for position in (4, 5, 6)]
    assert await parked(world) == [(2, "book:b", "ValueError: no shelf bears b"), *waiting]
    assert projector.status()[0].parked == 4


async def test_a_retry_applies_the_event_and_then_its_followers_in_order(world: Any, served: Context) -> None:
    poison = Poison(world, 2)
    await world.acquire(*"abcbb")
    projector = world.project(served)
    await world.reaches(5)
    poison.positions.clear()
    await request(world, "retry", 2)
    await eventually(lambda: projector.status()[0].parked == 0)
    assert poison.applied[-3:] == [2, 4, 5]
    await world.acquire("b")
    await world.reaches(6)
    assert await world.rows() == {"a": 1, "b": 4, "c": 1}
    assert await parked(world) == []
    assert (await read_status(world.models_url, served))[0].parked == 0


async def test_a_retry_that_fails_again_keeps_the_new_error_and_the_followers_wait(world: Any, served: Context) -> None:
    poison = Poison(world, 1, 2)
    await world.acquire(*"bbb")
    projector = world.project(served)
    await world.reaches(3)
    await request(world, "retry", 1)
    await eventually(lambda: tries(world, 3))
    assert [position for position, _, _ in await parked(world)] == [1, 2, 3]
    poison.positions.remove(1)
    await request(world, "retry", 1)
    # The follower fails by itself now, and takes the place of the first.
    await eventually(lambda: projector.status()[0].parked == 2)
    await eventually(lambda: tries(world, 1))
    assert await parked(world) == [(2, "book:b", "ValueError: no shelf bears b"), (3, "book:b", "")]
    assert await world.rows() == {"b": 1}


async def tries(world: Any, count: int) -> bool:
    return (await read_parked(shelf(world)))[0].tries == count


async def test_a_skip_lets_the_followers_go_on_and_keeps_who_and_why(world: Any, served: Context) -> None:
    poison = Poison(world, 2)
    await world.acquire(*"abcbb")
    projector = world.project(served)
    await world.reaches(5)
    await request(world, "skip", 2)
    await eventually(lambda: projector.status()[0].parked == 0)
    assert poison.applied[-2:] == [4, 5]
    assert await world.rows() == {"a": 1, "b": 2, "c": 1}
    (record,) = await read_given_up(shelf(world))
    assert (record.position, record.actor, record.why) == (2, "ann", "it was a test")
    assert record.error == "ValueError: no shelf bears b"
    assert record.event.id == (await world.events("library"))[1].id


async def test_only_the_event_that_failed_can_be_skipped(world: Any, served: Context) -> None:
    Poison(world, 1)
    await world.acquire(*"bb")
    projector = world.project(served)
    await world.reaches(2)
    await request(world, "skip", 2)
    await request(world, "skip", 1)
    await eventually(lambda: projector.status()[0].parked == 0)
    assert [record.position for record in await read_given_up(shelf(world))] == [1]
    assert await world.rows() == {"b": 1}


async def test_what_was_asked_for_is_done_by_whoever_works_next(world: Any, served: Context) -> None:
    poison = Poison(world, 1)
    await world.acquire(*"bb")
    world.project(served)
    await world.reaches(2)
    await world.halt()
    await request(world, "retry", 1)
    poison.positions.clear()
    projector = world.project(served)
    await eventually(lambda: projector.status()[0].state == "live" and projector.status()[0].parked == 0)
    assert await world.rows() == {"b": 2}


async def test_beyond_max_parked_the_handler_pauses_and_goes_on_when_there_is_room(world: Any, served: Context) -> None:
    world.shelf.max_parked = 2
    poison = Poison(world, 1, 3)
    await world.acquire(*"aab", "c")
    projector = world.project(served)
    await eventually(lambda: projector.status()[0].state == "paused")
    status = (await read_status(world.models_url, served))[0]
    assert (status.position, status.parked) == (2, 2)
    assert "BookAcquired at position 3: ValueError: no shelf bears b" in status.reason
    assert "no more than 2 events may be parked here" in status.reason
    await request(world, "skip", 1)
    await world.reaches(4)
    assert await world.rows() == {"a": 1, "c": 1}
    assert [position for position, _, _ in await parked(world)] == [3]
    poison.positions.clear()
    assert projector.status()[0].state == "live"


async def test_a_follower_for_whom_there_is_no_room_pauses_the_handler_too(world: Any, served: Context) -> None:
    world.shelf.max_parked = 1
    Poison(world, 1)
    await world.acquire(*"bab")
    projector = world.project(served)
    await eventually(lambda: projector.status()[0].state == "paused")
    assert "BookAcquired at position 3 waits for book:b; and no more than 1 events" in projector.status()[0].reason
    assert await world.rows() == {"a": 1}


async def test_none_parked_at_all_is_a_choice(world: Any, served: Context) -> None:
    world.shelf.max_parked = 0
    Poison(world, 1)
    await world.acquire(*"ab")
    projector = world.project(served)
    await eventually(lambda: projector.status()[0].state == "paused")
    assert (projector.status()[0].position, await world.rows()) == (0, {})


@pytest.mark.parametrize(
    "circumstance",
    [
        lambda: Unavailable("the price list is closed"),
        lambda: ConnectionRefusedError("nobody listens"),
        lambda: sa.exc.OperationalError("SELECT 1", {}, Deadlock(), connection_invalidated=False),
    ],
    ids=["unavailable", "refused", "deadlock"],
)
async def test_what_is_not_the_events_fault_parks_nothing_however_often_it_happens(
    world: Any, served: Context, circumstance: Callable[[], Exception]
) -> None:
    failures = iter([circumstance() for _ in range(6)])

    def before(event: Any, meta: Any) -> None:
        if meta.position == 2 and (failure := next(failures, None)):
            raise failure

    world.shelf.before = before
    await world.acquire(*"abc")
    projector = world.project(served)
    await world.reaches(2)
    await world.reaches(3)
    assert await world.rows() == dict.fromkeys("abc", 1)
    assert (projector.status()[0].state, projector.status()[0].parked) == ("live", 0)


class Deadlock(Exception):
    sqlstate = "40P01"


async def test_answers_say_how_many_events_are_parked(world: Any, served: Context) -> None:
    Poison(world, 1)
    await world.acquire(*"bba")
    world.project(served)
    await world.reaches(3)
    reader = ModelReader(shelf(world))
    async with reader.session() as (_, checkpoint):
        assert (checkpoint.position, checkpoint.parked) == (3, 2)
    await reader.close()


async def test_publishers_and_subscribers_park_too(
    world: Any, library: Any, readers: Any, library_context: Any, readers_context: Any
) -> None:
    broken = {"a"}

    class OfferBooks(Publisher):
        ceqs_contract = library.contract

        def on_book_acquired(self, event: Any, ctx: Any) -> Iterator[Any]:
            if event.book_id in broken:
                raise KeyError("price")
            yield library.BookOffered(book_id=event.book_id)

    class NoteOffers(PublicHearing, Subscriber):
        ceqs_contract = library.contract

        def on_book_offered(self, event: Any, ctx: Any) -> Iterator[Any]:
            if event.book_id == "b":
                raise ZeroDivisionError("never")
            yield readers.NoteOfferRequest(book_id=event.book_id)

    libraries = library_context(world.shelf, publishers=[OfferBooks()])
    reading = readers_context(subscribers=[NoteOffers()])
    await world.start(libraries)
    await world.start(reading)
    await world.acquire(*"abca")
    world.project(libraries)
    projector = world.project(reading)

    async def noted() -> list[str]:
        return [readers.OfferNoted.FromString(e.payload).book_id for e in await world.events("readers")]

    assert await eventually(noted) == ["c"]
    assert projector.status()[0].parked == 1
    publisher = place_of(world.models_url, "library", "offer-books")
    assert [one.error for one in await read_parked(publisher)] == ["KeyError: 'price'", ""]
    broken.clear()
    await ask(publisher, Request(verb="retry", position=1, actor="ann"))

    async def all_noted() -> bool:
        return await noted() == ["c", "a", "a"]

    await eventually(all_noted)
