"""What publishers and subscribers promise, over real gRPC and without NATS."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa

from ceqs.contract import new_id
from ceqs.log import Entry, NewEvent
from ceqs.model import Context, PrivateHearing, PublicHearing, Publisher, Subscriber
from ceqs.projectors import place_of, read_parked, read_status
from ceqs.projectors._dispatcher import Dispatcher
from ceqs.projectors._handlers import MAX_DEPTH
from ceqs.projectors._outbox import Outcome, Outgoing, enqueue
from ceqs.projectors._store import Store
from ceqs.testing import eventually

pytestmark = pytest.mark.usefixtures("fast")


@pytest.fixture
async def both(
    world: Any, library_context: Any, readers_context: Any, offering: Publisher, noting: Subscriber
) -> tuple[Context, Context]:
    library, readers = library_context(world.shelf, publishers=[offering]), readers_context(subscribers=[noting])
    await world.start(library)
    await world.start(readers)
    return library, readers


async def noted(world: Any) -> list[str]:
    return [world.readers.OfferNoted.FromString(e.payload).book_id for e in await world.events("readers")]


async def outcomes(world: Any, context: Context, name: str) -> dict[str, int]:
    statuses = await read_status(world.models_url, context)
    return next(dict(status.outcomes) for status in statuses if status.name == name)


async def test_a_private_event_becomes_a_public_one_and_a_command_of_another_context(
    world: Any, both: tuple[Context, Context]
) -> None:
    library, readers = both
    world.project(library)
    world.project(readers)
    await world.acquire("a", "b", "c")
    await eventually(lambda: all_noted(world, 3))
    assert sorted(await noted(world)) == ["a", "b", "c"]
    offers = await world.events("library", "BookOffered")
    acquired = await world.events("library", "BookAcquired")
    assert {offer.causation_id for offer in offers} == {event.id for event in acquired}
    assert [offer.public_position for offer in offers] == [1, 2, 3]
    for event in await world.events("readers"):
        cause = next(offer for offer in offers if offer.id == event.causation_id)
        assert event.command_id == f"ceqs:readers/note-offers:{cause.id}:0"
        assert (event.correlation_id, event.causation_depth) == ("why", 1)


async def test_events_and_commands_are_done_once_whatever_is_forgotten(
    world: Any, both: tuple[Context, Context]
) -> None:
    """As where a place is lost, and a subscriber sends everything once more from the first event on."""
    library, readers = both
    await world.acquire(*[f"b{n}" for n in range(50)])
    world.project(library)
    world.project(readers)
    await eventually(lambda: all_noted(world, 50))
    await world.halt()
    for context, name in (("library", "offer-books"), ("readers", "note-offers")):
        path = place_of(world.models_url, context, name).path
        assert path is not None
        path.unlink()
    world.project(library)
    world.project(readers)
    await eventually(lambda: delivered(world, readers, 50))
    await world.reaches(100, "offer-books")
    assert sorted(await noted(world)) == sorted(f"b{n}" for n in range(50))
    assert len(await world.events("library", "BookOffered")) == 50


async def all_noted(world: Any, count: int) -> bool:
    return len(await noted(world)) >= count


async def delivered(world: Any, context: Context, count: int) -> bool:
    statuses = await read_status(world.models_url, context)
    return any(status.outcomes.get("accepted") == count for status in statuses)


async def test_a_rejected_command_is_recorded_with_its_reason_and_holds_up_nothing(
    world: Any, both: tuple[Context, Context]
) -> None:
    library, readers = both
    projector = world.project(readers)
    world.project(library)
    await world.acquire("a", "bad1", "bad2", "c")
    await eventually(lambda: projector.status()[0].outcomes.get("rejected NOT_WANTED") == 2)
    await eventually(lambda: projector.status()[0].outcomes.get("accepted") == 2)
    assert await outcomes(world, readers, "note-offers") == {"accepted": 2, "rejected NOT_WANTED": 2}
    assert projector.status()[0].unsent == 0
    await world.halt()
    async with Store.open(place_of(world.models_url, "readers", "note-offers"), "library") as store:
        assert (store.outbox.unsent, dict(store.outbox.outcomes)) == (0, {"accepted": 2, "rejected NOT_WANTED": 2})
    engine = place_of(world.models_url, "readers", "note-offers").reading_engine()
    async with engine.connect() as connection:
        kept = (await connection.execute(sa.text("SELECT outcome, reason, message FROM ceqs_outbox"))).all()
    await engine.dispose()
    assert [tuple(row) for row in kept] == [("rejected", "NOT_WANTED", "not wanted")] * 2


async def test_an_invalid_command_is_recorded_as_failed(world: Any, library: Any, library_context: Any) -> None:
    class LendToNobody(PrivateHearing, Subscriber):
        ceqs_contract = library.contract

        def on_book_acquired(self, event: Any, ctx: Any) -> Iterator[Any]:
            yield library.LendBookRequest(book_id=event.book_id)

    context = library_context(world.shelf, subscribers=[LendToNobody()])
    await world.start(context)
    projector = world.project(context)
    await world.acquire("a")
    await eventually(lambda: projector.status()[1].outcomes == {"failed INVALID_ARGUMENT": 1})


async def test_a_subscriber_hears_private_events_of_its_own_context(
    world: Any, library: Any, library_context: Any, lending: Subscriber
) -> None:
    context = library_context(world.shelf, subscribers=[lending])
    await world.start(context)
    projector = world.project(context)
    await world.record(
        library.BookAcquired(book_id="a", title="ann"), library.BookAcquired(book_id="b", title="nobody")
    )
    await eventually(lambda: projector.status()[1].outcomes == {"accepted": 1, "rejected NO_MEMBER": 1})
    assert [e.type for e in await world.events("library")][2:] == ["library.v1.BookLent"]


async def test_foreign_types_that_are_not_subscribed_to_are_skipped_and_counted(
    world: Any, both: tuple[Context, Context], readers: Any
) -> None:
    """Also those that this build has never heard of: the other service may be newer."""
    _, context = both
    projector = world.project(context)
    unknown = world.readers.OfferNoted(book_id="x")
    await world.record(world.library.BookOffered(book_id="a"))
    await record_public(world, unknown)
    await world.record(world.library.BookOffered(book_id="b"))
    await eventually(lambda: (projector.status()[0].position, projector.status()[0].skipped) == (3, 1))
    await eventually(lambda: all_noted(world, 2))
    assert (await read_status(world.models_url, context))[0].skipped == 1


async def record_public(world: Any, message: Any) -> None:
    event = NewEvent(id=new_id(), type=message.DESCRIPTOR.full_name, payload=message.SerializeToString(), public=True)
    await world.logs["library"].append(Entry(command_id=new_id(), events=(event,)))


async def test_a_server_that_is_down_delays_commands_and_loses_none(world: Any, both: tuple[Context, Context]) -> None:
    library, readers = both
    world.project(library)
    projector = world.project(readers)
    await world.acquire("a")
    await eventually(lambda: all_noted(world, 1))
    await world.stop("readers")
    await world.acquire("b", "c")
    await eventually(lambda: projector.status()[0].unsent == 2)
    await eventually(lambda: "UNAVAILABLE" in projector.status()[0].reason)
    await world.start(readers)
    await eventually(lambda: all_noted(world, 3))
    await eventually(lambda: projector.status()[0].unsent == 0)
    assert projector.status()[0].outcomes == {"accepted": 3}


async def test_the_wrong_key_loses_no_command(world: Any, both: tuple[Context, Context]) -> None:
    library, readers = both
    world.project(library)
    projector = world.project(readers, key="another")
    await world.acquire("a")
    await eventually(lambda: "key" in projector.status()[0].reason)
    assert (projector.status()[0].unsent, projector.status()[0].outcomes) == (1, {})
    world.projectors.pop().cancel()
    world.project(readers)
    await eventually(lambda: all_noted(world, 1))


async def test_services_that_answer_each_other_without_end_are_stopped(
    world: Any, library: Any, library_context: Any, lending: Subscriber
) -> None:
    context = library_context(world.shelf, subscribers=[lending])
    await world.start(context)
    await world.acquire("a", depth=MAX_DEPTH - 1)
    await world.acquire("b", depth=MAX_DEPTH)
    projector = world.project(context)
    await eventually(lambda: projector.status()[1].parked == 1)
    (endless,) = await read_parked(place_of(world.models_url, "library", "lend-at-once"))
    assert endless.position == 2
    assert "do two subscribers answer each other?" in endless.error


async def test_two_services_that_answer_each_other_without_end_are_stopped_and_everything_else_goes_on(
    world: Any, library_context: Any, readers_context: Any, offering: Publisher, noting: Subscriber
) -> None:
    """What is acquired is offered, noted, wished for, and acquired again."""

    class Wish(Publisher):
        ceqs_contract = world.readers.contract

        def on_offer_noted(self, event: Any, ctx: Any) -> Iterator[Any]:
            yield world.readers.BookWished(book_id=event.book_id)

    class Grant(PublicHearing, Subscriber):
        ceqs_contract = world.readers.contract

        def on_book_wished(self, event: Any, ctx: Any) -> Iterator[Any]:
            if event.book_id == "again":
                yield world.library.AcquireBookRequest(book_id=event.book_id, title="t")

    library = library_context(world.shelf, publishers=[offering], subscribers=[Grant()])
    readers = readers_context(publishers=[Wish()], subscribers=[noting])
    for context in (library, readers):
        await world.start(context)
    projectors = [world.project(context) for context in (library, readers)]
    await world.acquire("again")
    await eventually(lambda: sum(s.parked for p in projectors for s in p.status()) == 1)
    (endless,) = await read_parked(place_of(world.models_url, "readers", "note-offers"))
    assert f"is the outcome of {MAX_DEPTH} reactions in a row" in endless.error
    assert "do two subscribers answer each other?" in endless.error
    assert endless.event.causation_depth == MAX_DEPTH
    assert len(await world.events("library", "BookAcquired")) == 1 + MAX_DEPTH // 2
    await world.acquire("once")
    await eventually(lambda: wished(world, "once"))


async def wished(world: Any, book: str) -> bool:
    events = await world.events("readers", "BookWished")
    return book in [world.readers.BookWished.FromString(event.payload).book_id for event in events]


async def test_what_was_sent_decides_also_where_other_code_is_deployed_before_that_is_recorded(
    world: Any,
    both: tuple[Context, Context],
    library: Any,
    readers: Any,
    readers_context: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Killed after a command was done, and before it was checked off: the row is sent again, and no code is asked."""

    class NoteOffers(PublicHearing, Subscriber):
        ceqs_contract = library.contract

        def on_book_offered(self, event: Any, ctx: Any) -> Iterator[Any]:
            yield readers.NoteOfferRequest(book_id=f"{event.book_id} by other code")
            yield readers.NoteOfferRequest(book_id=f"{event.book_id} once more")

    async def never(*_: Any) -> None:
        await asyncio.Event().wait()

    world.project(both[0])
    with monkeypatch.context() as patched:
        patched.setattr("ceqs.projectors._outbox.Outbox.settle", never)
        world.project(both[1])
        await world.acquire("a", "b")
        await eventually(lambda: all_noted(world, 2))
        await world.halt()
    changed = readers_context(subscribers=[NoteOffers()])
    world.project(both[0])
    projector = world.project(changed)
    await eventually(lambda: projector.status()[0].outcomes == {"accepted": 2})
    assert sorted(await noted(world)) == ["a", "b"]
    await world.acquire("c")
    await eventually(lambda: all_noted(world, 4))
    assert sorted(await noted(world)) == ["a", "b", "c by other code", "c once more"]


async def test_what_a_handler_yields_must_be_what_it_may_yield(
    world: Any, library: Any, readers: Any, library_context: Any
) -> None:
    class Private(Publisher):
        ceqs_contract = library.contract

        def on_book_acquired(self, event: Any, ctx: Any) -> Iterator[Any]:
            yield event

    class Foreign(PrivateHearing, Subscriber):
        ceqs_contract = library.contract

        def on_book_acquired(self, event: Any, ctx: Any) -> Iterator[Any]:
            yield readers.NoteOfferRequest(book_id="a")

    class Nothing(PrivateHearing, Subscriber):
        ceqs_contract = library.contract

        def on_book_acquired(self, event: Any, ctx: Any) -> None:
            return None

    context = library_context(world.shelf, publishers=[Private()], subscribers=[Foreign(), Nothing()])
    await world.start(context)
    await world.acquire("a")
    projector = world.project(context)
    await eventually(lambda: [s.state for s in projector.status()[1:]] == ["paused"] * 3)
    private, foreign, nothing = (status.reason for status in projector.status()[1:])
    assert "BookAcquired, which is no public event" in private
    assert "NoteOfferRequest is no command of the context 'library'" in foreign
    assert "Nothing.on_book_acquired returned None" in nothing


class _Sends:
    """Records when each call is made; each takes until it is let go."""

    def __init__(self) -> None:
        self.made: list[str] = []
        self.gates: dict[str, asyncio.Event] = {}

    async def __call__(self, call: Any) -> Any:
        self.made.append(call.request_id)
        await self.gates.setdefault(call.request_id, asyncio.Event()).wait()
        return Outcome("accepted")

    def let_go(self, request_id: str) -> None:
        self.gates.setdefault(request_id, asyncio.Event()).set()


async def test_calls_that_share_a_key_are_made_in_order_and_others_side_by_side(world: Any) -> None:
    sends = _Sends()
    async with Store.open(place_of(world.models_url, "library", "sends"), "library") as store:
        calls = {"1": "ab", "2": "bc", "3": "c", "4": "d", "5": "a"}
        await _enqueue(store, calls)
        running = asyncio.create_task(Dispatcher(store.outbox, sends).run())
        await eventually(lambda: sorted(sends.made) == ["1", "4"])
        sends.let_go("4")
        await eventually(lambda: store.outbox.unsent == 4)
        assert sorted(sends.made) == ["1", "4"]
        sends.let_go("1")
        await eventually(lambda: sorted(sends.made[2:]) == ["2", "5"])
        sends.let_go("2")
        await eventually(lambda: sends.made[-1] == "3")
        sends.let_go("3")
        sends.let_go("5")
        await eventually(lambda: store.outbox.unsent == 0)
        assert store.outbox.outcomes == {"accepted": 5}
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_a_call_under_way_when_the_process_ends_is_made_again(world: Any) -> None:
    place = place_of(world.models_url, "library", "sends")
    for attempt, sends in enumerate((_Sends(), _Sends())):
        async with Store.open(place, "library") as store:
            if attempt == 0:
                await _enqueue(store, {"1": "a"})
            running = asyncio.create_task(Dispatcher(store.outbox, sends).run())
            await eventually(lambda sends=sends: sends.made == ["1"])  # type: ignore[misc]
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)


async def _enqueue(store: Store, calls: dict[str, str]) -> None:
    async with store.advance(dataclasses.replace(store.at, position=store.at.position + 1)) as session:
        outgoing = [Outgoing(request_id=i, path="/p", request=b"", keys=list(keys)) for i, keys in calls.items()]
        await enqueue(session, outgoing)


async def test_too_many_unsent_calls_pause_a_handler_until_there_are_fewer(
    world: Any, both: tuple[Context, Context], noting: Subscriber
) -> None:
    library, readers = both
    type(noting).max_unsent = 2
    world.project(library)
    projector = world.project(readers)
    await world.acquire("a")
    await eventually(lambda: all_noted(world, 1))
    await world.stop("readers")
    for number in range(5):
        await world.acquire(f"b{number}")
        await eventually(lambda number=number: offered(world, number + 2))  # type: ignore[misc]
    await eventually(lambda: "calls are unsent, and no more than 2 may be" in projector.status()[0].reason)
    await eventually(lambda: "UNAVAILABLE" in projector.status()[0].reason)
    assert projector.status()[0].state == "paused"
    # Events that came together are in one transaction, whatever there is room for.
    assert 2 <= projector.status()[0].unsent <= 5
    assert "calls are unsent, and no more than 2 may be" in (await read_status(world.models_url, readers))[0].reason
    await world.start(readers)
    await eventually(lambda: all_noted(world, 6))
    await eventually(lambda: (projector.status()[0].state, projector.status()[0].reason) == ("live", ""))


async def offered(world: Any, count: int) -> bool:
    return len(await world.events("library", "BookOffered")) == count
