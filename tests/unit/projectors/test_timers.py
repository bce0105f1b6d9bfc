"""What timers promise, over real gRPC and by a clock that stands still."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa

from ceqs.model import Context, PrivateHearing, Reaction, Subscriber
from ceqs.projectors import place_of
from ceqs.projectors._handlers import MAX_DEPTH
from ceqs.projectors._outbox import Outgoing
from ceqs.projectors._store import Store
from ceqs.projectors._timers import Timer, Timers, due_timers, set_timers
from ceqs.testing import FakeClock, eventually

pytestmark = pytest.mark.usefixtures("fast")
WEEK = dt.timedelta(days=7)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(dt.datetime.now(dt.UTC))


@pytest.fixture
def lend_later(library: Any) -> type[Subscriber]:
    """Lends each acquired book to the member in its title a week later, unless it is lent to somebody else before."""

    class LendLater(PrivateHearing, Subscriber):
        ceqs_contract = library.contract

        def on_book_acquired(self, event: Any, ctx: Reaction) -> Iterator[Any]:
            request = library.LendBookRequest(book_id=event.book_id, member_ids=[event.title])
            ctx.schedule(request, key=event.book_id, after=WEEK)
            yield from ()

        def on_book_lent(self, event: Any, ctx: Reaction) -> Iterator[Any]:
            ctx.cancel(event.book_id)
            yield from ()

    return LendLater


@pytest.fixture
async def context(world: Any, library_context: Any, lend_later: Any) -> Context:
    served: Context = library_context(world.shelf, subscribers=[lend_later()])
    await world.start(served)
    return served


def lender(projector: Any) -> Any:
    return next(status for status in projector.status() if status.kind == "subscriber")


async def applied(world: Any, projector: Any) -> None:
    """Wait until the subscriber has heard everything."""
    last = (await world.events("library"))[-1].position
    await eventually(lambda: lender(projector).position >= last)


async def lent(world: Any) -> list[tuple[str, str]]:
    events = await world.events("library", "BookLent")
    return [(e.book_id, e.member_id) for e in (world.library.BookLent.FromString(event.payload) for event in events)]


async def is_lent(world: Any, *expected: tuple[str, str]) -> bool:
    return await lent(world) == list(expected)


async def test_a_timer_fires_when_its_time_has_come_and_not_before(
    world: Any, context: Context, clock: FakeClock
) -> None:
    projector = world.project(context, clock=clock)
    await world.record(world.library.BookAcquired(book_id="a", title="ann"))
    await eventually(lambda: lender(projector).timers == 1)
    clock.advance(WEEK - dt.timedelta(minutes=1))
    await asyncio.sleep(0.1)
    assert await lent(world) == []
    clock.advance(dt.timedelta(minutes=2))
    await eventually(lambda: is_lent(world, ("a", "ann")))
    (event,) = await world.events("library", "BookLent")
    cause = (await world.events("library"))[0]
    assert event.command_id == f"ceqs:library/lend-later:timer:a:{cause.id}:0"
    assert (event.causation_id, event.correlation_id, event.causation_depth) == (cause.id, "why", 0)
    await applied(world, projector)
    assert (lender(projector).timers, lender(projector).outcomes) == (0, {"accepted": 1})


async def test_a_timer_is_replaced_under_its_key_and_cancelled(world: Any, context: Context, clock: FakeClock) -> None:
    library = world.library
    projector = world.project(context, clock=clock)
    await world.record(*[library.BookAcquired(book_id=book, title="ann") for book in "abc"])
    await world.record(library.BookAcquired(book_id="a", title="bob"), library.BookLent(book_id="b", member_id="eve"))
    await applied(world, projector)
    assert lender(projector).timers == 2
    clock.advance(2 * WEEK)
    await eventually(lambda: lender(projector).outcomes.get("accepted") == 2)
    assert sorted(await lent(world)) == [("a", "bob"), ("b", "eve"), ("c", "ann")]


async def test_a_key_that_is_used_again_fires_again(world: Any, context: Context, clock: FakeClock) -> None:
    world.project(context, clock=clock)
    for number in range(1, 3):
        # By the log's clock, which is behind: its times must not pass unnoticed.
        await world.record(world.library.BookAcquired(book_id="a", title="ann"))
        await world.reaches((await world.events("library"))[-1].position, "lend-later")
        clock.advance(2 * WEEK)
        await eventually(lambda number=number: is_lent(world, *[("a", "ann")] * number))  # type: ignore[misc]


async def test_a_timer_survives_a_redeploy_and_fires_late_with_the_request_that_was_stored(
    world: Any, context: Context, clock: FakeClock, library_context: Any, lend_later: Any
) -> None:
    projector = world.project(context, clock=clock)
    await world.record(world.library.BookAcquired(book_id="a", title="ann"))
    await eventually(lambda: lender(projector).timers == 1)
    await world.halt()
    clock.advance(10 * WEEK)

    class LendLater(lend_later):  # type: ignore[misc]
        def on_book_acquired(self, event: Any, ctx: Reaction) -> Iterator[Any]:
            raise AssertionError("it was heard before")

    world.project(library_context(world.shelf, subscribers=[LendLater()]), clock=clock)
    await eventually(lambda: is_lent(world, ("a", "ann")))


async def test_a_timer_that_was_cancelled_in_time_does_not_fire_because_nobody_listened(
    world: Any, context: Context, clock: FakeClock
) -> None:
    projector = world.project(context, clock=clock)
    await world.record(*[world.library.BookAcquired(book_id=book, title="ann") for book in "ab"])
    await eventually(lambda: lender(projector).timers == 2)
    await world.halt()
    await world.record(world.library.BookLent(book_id="a", member_id="eve"))
    clock.advance(2 * WEEK)
    world.project(context, clock=clock)
    await eventually(lambda: is_lent(world, ("a", "eve"), ("b", "ann")))


async def test_a_timer_fires_once_whatever_is_forgotten(
    world: Any, library: Any, library_context: Any, clock: FakeClock
) -> None:
    class LendLater(PrivateHearing, Subscriber):
        ceqs_contract = library.contract

        def on_book_acquired(self, event: Any, ctx: Reaction) -> Iterator[Any]:
            ctx.schedule(
                library.LendBookRequest(book_id=event.book_id, member_ids=["ann"]), key="a", at=ctx.recorded_at
            )
            yield from ()

    context = library_context(world.shelf, subscribers=[LendLater()])
    await world.start(context)
    await world.record(world.library.BookAcquired(book_id="a", title="ann"))
    clock.advance(WEEK)
    for _ in range(2):
        projector = world.project(context, clock=clock)
        await eventually(lambda projector=projector: lender(projector).outcomes.get("accepted") == 1)  # type: ignore[misc]
        await world.halt()
        place_of(world.models_url, "library", "lend-later").path.unlink()  # type: ignore[union-attr]
    assert await lent(world) == [("a", "ann")]


async def test_several_workers_claim_a_timer_once(world: Any, tmp_path: Any) -> None:
    place = place_of(world.models_url, "library", "claims")
    engine = place.writing_engine()
    async with Store.open(place, "library") as one:
        other = Timers(engine.begin)  # of a worker that has lost its lease, and does not know it yet
        now = dt.datetime.now(dt.UTC)
        await _set(one, *[_timer(f"k{n}", now - WEEK) for n in range(20)], _timer("later", now + WEEK))
        outcomes = await asyncio.gather(*[timers.claim(now) for timers in (one.timers, other)], return_exceptions=True)
        claimed = sum(outcome[0] for outcome in outcomes if not isinstance(outcome, BaseException))
        assert claimed == 20
        assert (await other.claim(now))[0] == 0
        assert len(await one.outbox.calls(0, 100)) == 20
        assert (await one.timers.claim(now))[1] == now + WEEK
    await engine.dispose()


async def test_an_outage_delays_a_timer_and_a_rejection_ends_it(world: Any, context: Context, clock: FakeClock) -> None:
    projector = world.project(context, clock=clock)
    await world.record(
        world.library.BookAcquired(book_id="a", title="nobody"), world.library.BookAcquired(book_id="b", title="bob")
    )
    await eventually(lambda: lender(projector).timers == 2)
    await world.stop("library")
    clock.advance(2 * WEEK)
    await eventually(lambda: lender(projector).unsent == 2 and "UNAVAILABLE" in lender(projector).reason)
    await world.start(context)
    await eventually(lambda: lender(projector).outcomes == {"accepted": 1, "rejected NO_MEMBER": 1})
    assert await lent(world) == [("b", "bob")]
    await applied(world, projector)
    assert (lender(projector).timers, lender(projector).unsent) == (0, 0)


async def test_who_cancels_a_timer_that_is_on_its_way_is_told_so(
    world: Any, context: Context, clock: FakeClock, capsys: Any
) -> None:
    projector = world.project(context, clock=clock)
    await world.record(world.library.BookAcquired(book_id="a", title="ann"))
    await eventually(lambda: lender(projector).timers == 1)
    await world.stop("library")
    clock.advance(2 * WEEK)
    await eventually(lambda: lender(projector).unsent == 1)
    await world.record(world.library.BookLent(book_id="a", member_id="eve"))
    world.servers["library"] = None
    await world.halt()
    world.servers.pop("library")
    place = place_of(world.models_url, "library", "lend-later")
    async with Store.open(place, "library") as store:
        (row, call) = (await store.outbox.calls(0, 1))[0]
        await _set(store, Timer("a", call.request_id.rpartition(":")[0].rpartition(":")[0] + ":"))
        assert row
    assert "a timer was cancelled too late" in capsys.readouterr().out
    async with Store.open(place, "library") as store:
        assert store.outbox.outcomes == {"cancelled TOO_LATE": 1}
        assert not store.outbox.refused


async def test_a_timer_whose_own_command_brings_its_cancellation_is_not_cancelled_too_late(world: Any) -> None:
    async with Store.open(place_of(world.models_url, "library", "lend-later"), "library") as store:
        due = dt.datetime.now(dt.UTC) - WEEK
        await _set(store, _timer("a", due))
        await store.timers.claim(due)
        await _set(store, Timer("a", "ceqs:a:", command_id="ceqs:a:1"))
    async with Store.open(place_of(world.models_url, "library", "lend-later"), "library") as store:
        assert store.outbox.outcomes == {}


async def test_a_due_timer_is_found_by_the_index(world: Any) -> None:
    place = place_of(world.models_url, "library", "plans")
    async with Store.open(place, "library") as store, store.begin() as connection:
        query = due_timers(dt.datetime.now(dt.UTC)).compile(connection.engine, compile_kwargs={"literal_binds": True})
        plan = (await connection.execute(sa.text(f"EXPLAIN QUERY PLAN {query}"))).all()
    assert [row.detail for row in plan] == ["SEARCH ceqs_timers USING INDEX ix_ceqs_timers_due (due<?)"]


async def test_what_repeats_itself_by_timers_is_no_endless_loop_unless_it_does_so_at_once(
    world: Any, library: Any, library_context: Any, clock: FakeClock
) -> None:
    class Repeat(PrivateHearing, Subscriber):
        ceqs_contract = library.contract

        def on_book_acquired(self, event: Any, ctx: Reaction) -> Iterator[Any]:
            again = library.AcquireBookRequest(book_id=event.book_id, title=f"{event.title}t")
            # Events are recorded by the real clock, so each has to wait for longer than the one before it.
            later = (2 * len(event.title) - 1) * WEEK
            ctx.schedule(again, key="again", after=later if event.book_id == "a" else dt.timedelta())
            yield from ()

    context = library_context(world.shelf, subscribers=[Repeat()])
    await world.start(context)
    projector = world.project(context, clock=clock)
    await world.acquire("a", depth=MAX_DEPTH)
    for number in range(1, 4):
        await world.reaches(number, "repeat")
        clock.advance(2 * WEEK)
        await eventually(lambda number=number: _count(world, number + 1))  # type: ignore[misc]
    await world.acquire("b")
    await eventually(lambda: lender(projector).parked == 1)
    assert {e.causation_depth for e in await world.events("library") if e.position > 4} <= set(range(MAX_DEPTH + 1))


async def _count(world: Any, count: int) -> bool:
    return len(await world.events("library")) == count


def _timer(key: str, due: dt.datetime) -> Timer:
    call = Outgoing(request_id=f"ceqs:{key}:1", path="/p", request=b"", keys=[key])
    return Timer(key, f"ceqs:{key}:", call, due)


async def _set(store: Store, *timers: Timer) -> None:
    async with store.amend(paused="") as session:
        await set_timers(session, timers)
