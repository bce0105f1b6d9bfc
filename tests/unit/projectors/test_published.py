"""What was published is not published again: the log knows how far each publisher is, whatever else is lost."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ceqs.log import Published, backup_log, open_log, restore_log
from ceqs.model import Context, Publisher
from ceqs.projectors import _worker as worker
from ceqs.projectors import place_of, read_status
from ceqs.projectors._outbox import Outcome, Outgoing, enqueue
from ceqs.projectors._parking import Lot, Parked
from ceqs.projectors._store import Store
from ceqs.testing import eventually
from ceqs.v1.events_pb2 import RecordedEvent

pytestmark = pytest.mark.usefixtures("fast")


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tell the log often."""
    monkeypatch.setattr(worker, "NOTE", 0.05)
    monkeypatch.setattr(worker, "LISTEN", 0.1)


@pytest.fixture
def changed(library: Any) -> type[Publisher]:
    """The same publisher by name, of another build: it offers each book twice, and hears of what it did not before."""

    class Other(Publisher):
        name = "offer-books"
        ceqs_contract = library.contract

        def on_book_acquired(self, event: Any, ctx: Any) -> Iterator[Any]:
            yield library.BookOffered(book_id=f"{event.book_id}-first")
            yield library.BookOffered(book_id=f"{event.book_id}-second")

        def on_book_lent(self, event: Any, ctx: Any) -> Iterator[Any]:
            yield library.BookOffered(book_id=f"{event.book_id}-lent")

    return Other


@pytest.fixture
async def started(world: Any, library_context: Any, offering: Publisher) -> Context:
    """The first build has published what there is."""
    context: Context = library_context(world.shelf, publishers=[offering])
    await world.start(context)
    await world.acquire("a")
    await world.record(world.library.BookLent(book_id="a", member_id="ann"))
    await world.acquire("b")
    await world.record(world.library.BookLent(book_id="b", member_id="ann"))
    world.project(context)
    await eventually(lambda: offers(world, "a", "b"))
    await eventually(lambda: noted(world, 6))
    await world.halt()
    return context


async def offered(world: Any) -> list[str]:
    events = await world.events("library", "BookOffered")
    return [world.library.BookOffered.FromString(event.payload).book_id for event in events]


async def offers(world: Any, *books: str) -> bool:
    return await offered(world) == list(books)


async def noted(world: Any, position: int) -> bool:
    published: Published = await world.logs["library"].published("offer-books")
    return published.position == position


def lose(world: Any) -> None:
    place = place_of(world.models_url, "library", "offer-books").path
    assert place is not None
    place.unlink()


async def arrived(world: Any, context: Context) -> bool:
    (status,) = [one for one in await read_status(world.models_url, context) if one.name == "offer-books"]
    head = (await world.logs["library"].head()).position
    return (status.position, status.unsent) == (head, 0)


@pytest.mark.parametrize("lost", [False, True], ids=["deployed anew", "built anew"])
async def test_a_changed_publisher_publishes_nothing_of_what_was_before_it(
    world: Any, library_context: Any, started: Context, changed: type[Publisher], lost: bool
) -> None:
    """Neither other events of those that it published of, nor any of those that it passed over."""
    if lost:
        lose(world)
    context = library_context(world.shelf, publishers=[changed()])
    world.project(context)
    await eventually(lambda: arrived(world, context))
    assert await offered(world) == ["a", "b"]
    await world.acquire("c")
    await eventually(lambda: offers(world, "a", "b", "c-first", "c-second"))


async def test_a_new_publisher_publishes_what_was_before_it(
    world: Any, library_context: Any, library: Any, started: Context, offering: Publisher
) -> None:
    class Tell(Publisher):
        ceqs_contract = library.contract

        def on_book_lent(self, event: Any, ctx: Any) -> Iterator[Any]:
            yield library.BookOffered(book_id=f"{event.book_id}-lent")

    world.project(library_context(world.shelf, publishers=[offering, Tell()]))
    await eventually(lambda: offers(world, "a", "b", "a-lent", "b-lent"))


async def test_a_publisher_that_was_renamed_publishes_nothing_until_somebody_says_that_it_is_to(
    world: Any, library_context: Any, started: Context, changed: type[Publisher]
) -> None:
    class Renamed(changed):  # type: ignore[misc, valid-type]
        name = "give-books-away"

    projector = world.project(library_context(world.shelf, publishers=[Renamed()]))
    await eventually(lambda: "paused" in [status.state for status in projector.status()])
    (reason,) = [status.reason for status in projector.status() if status.state == "paused"]
    assert '`name = "offer-books"`' in reason
    assert "ceqs republish give-books-away" in reason
    assert await offered(world) == ["a", "b"]
    await world.logs["library"].publish_again("give-books-away")
    await eventually(lambda: offers(world, "a", "b", "a-first", "a-second", "a-lent", "b-first", "b-second", "b-lent"))


@pytest.mark.parametrize("running", [True, False], ids=["while it runs", "before it runs"])
async def test_a_publisher_publishes_everything_again_when_it_is_told_to(
    world: Any, library_context: Any, started: Context, changed: type[Publisher], running: bool
) -> None:
    """Each once, also where the place is lost afterwards."""
    context = library_context(world.shelf, publishers=[changed()])
    if running:
        world.project(context)
        await eventually(lambda: arrived(world, context))
    assert (await world.logs["library"].publish_again("offer-books")).round == 2
    if not running:
        world.project(context)
    again = ["a", "b", "a-first", "a-second", "a-lent", "b-first", "b-second", "b-lent"]
    await eventually(lambda: offers(world, *again))
    events = await world.events("library", "BookOffered")
    assert len({event.id for event in events}) == len(again)
    await eventually(lambda: noted(world, 12))
    await world.halt()
    lose(world)
    world.project(context)
    await eventually(lambda: arrived(world, context))
    await world.acquire("c")
    await eventually(lambda: offers(world, *again, "c-first", "c-second"))


async def test_what_waits_in_a_place_is_not_published_as_far_as_the_log_knows(world: Any) -> None:
    """So that it is derived anew where the place is lost."""
    async with Store.open(place_of(world.models_url, "library", "p"), "library") as store:
        lot = await Lot.open(store, 10)
        call = Outgoing(request_id="1", path="/p", request=b"", position=7)
        async with store.advance(replace(store.at, position=9)) as session:
            await enqueue(session, [call, replace(call, request_id="2", position=8)])
        assert await store.settled() == 6
        now = dt.datetime.now(dt.UTC)
        parked = Parked(position=5, key="", event=RecordedEvent(type="t"), error="e", parked_at=now)
        async with store.advance(store.at) as session:
            await lot.park(session, [parked])
        assert await store.settled() == 4
        async with lot.leaving(parked):
            pass
        for row, position in ((1, 7), (2, 9)):
            await store.outbox.settle([(row, "/p", Outcome("accepted"))])
            assert await store.settled() == position


async def test_a_publisher_of_a_restored_log_goes_on_with_what_that_has_published(
    world: Any, library_context: Any, offering: Publisher, changed: type[Publisher], tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path}/library.db"
    world.logs["library"] = await open_log(url, "library")
    context = library_context(world.shelf, publishers=[offering])
    await world.start(context)
    await world.acquire("a")
    world.project(context)
    await eventually(lambda: noted(world, 2))
    await backup_log(url, "library", tmp_path / "backup.db")
    await world.acquire("gone")
    await eventually(lambda: offers(world, "a", "gone"))
    await world.stop("library")
    await world.logs.pop("library").close()
    await restore_log(url, "library", tmp_path / "backup.db", replace=True)
    world.logs["library"] = await open_log(url, "library")
    await world.start(context)
    await world.acquire("b")
    await eventually(lambda: offers(world, "a", "b"))
