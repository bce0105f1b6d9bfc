"""Places on PostgreSQL."""

from __future__ import annotations

import asyncio
import datetime as dt
from typing import Any

import pytest
import sqlalchemy as sa

from ceqs.errors import Behind, Unavailable
from ceqs.model import Context, Publisher
from ceqs.projectors import ModelReader, Request, ask, place_of, places_of, read_parked, read_status
from ceqs.projectors import _worker as worker
from ceqs.projectors._outbox import Outgoing
from ceqs.projectors._store import Store
from ceqs.projectors._timers import Timer, due_timers, set_timers
from ceqs.testing import eventually

pytestmark = pytest.mark.usefixtures("fast")


@pytest.fixture
async def served(world: Any, library_context: Any, offering: Publisher, postgres_url: str) -> Context:
    world.models_url = postgres_url
    context: Context = library_context(world.shelf, publishers=[offering])
    await world.start(context)
    return context


async def test_a_projection_and_a_publisher_on_postgresql(world: Any, served: Context) -> None:
    reader = ModelReader(places_of(world.models_url, "library", "Shelf"))
    with pytest.raises(Behind):
        async with reader.session():
            pass
    world.project(served)
    await world.acquire(*[f"b{n % 7}" for n in range(30)])
    await eventually(lambda: published(world, 30))
    await world.reaches(60)
    assert await world.rows() == {f"b{n}": 5 if n < 2 else 4 for n in range(7)}
    await world.halt()
    await world.acquire("b0")
    world.project(served)
    await world.reaches(62)
    assert (await world.rows())["b0"] == 6
    shelf, publisher = await read_status(world.models_url, served)
    assert (shelf.position, publisher.outcomes, publisher.unsent) == (62, {"accepted": 31}, 0)
    async with reader.session() as (session, checkpoint):
        await world.acquire("b0")
        await world.reaches(63)
        assert checkpoint.position == 62
        assert (type(checkpoint.parked), type(shelf.skipped)) == (int, int)
        assert (await session.execute(sa.text("SELECT position FROM ceqs_checkpoint"))).scalar_one() == 62
        with pytest.raises(sa.exc.DBAPIError, match="read-only transaction"):
            await session.execute(sa.text("DELETE FROM shelf"))
    await reader.close()


async def published(world: Any, count: int) -> bool:
    return len(await world.events("library", "BookOffered")) == count


async def test_a_second_projector_stands_by_and_takes_over_on_postgresql(world: Any, served: Context) -> None:
    world.project(served)
    await world.acquire("a")
    await world.reaches(1)
    first, world.projectors = world.projectors, []
    second = world.project(served)
    await asyncio.sleep(0.3)
    assert second.status()[0].state == "stand-by"
    world.projectors, other = first, world.projectors
    await world.halt()
    world.projectors = other
    await eventually(lambda: second.status()[0].state == "live")
    await world.acquire("a")
    await eventually(lambda: published(world, 2))
    assert await world.rows() == {"a": 2}


async def test_a_worker_that_has_lost_its_lock_writes_nothing(world: Any, served: Context) -> None:
    world.project(served)
    await world.acquire("a")
    await world.reaches(2)
    engine = place_of(world.models_url, "library", "Shelf").writing_engine()
    async with engine.begin() as connection:
        await connection.execute(sa.text("UPDATE ceqs_checkpoint SET position = 3"))
    await engine.dispose()
    await world.acquire("b", "b")
    await world.reaches(6)
    assert await world.rows() == {"a": 1, "b": 1}


async def test_a_database_that_restarts_is_waited_for(world: Any, served: Context) -> None:
    world.project(served)
    await world.acquire("a")
    await world.reaches(1)
    engine = place_of(world.models_url, "library", "Shelf").reading_engine()
    async with engine.connect() as connection:
        others = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
        await connection.execute(sa.text(others + " AND datname = current_database()"))
    await engine.dispose()
    await world.acquire("b", "c")
    await eventually(lambda: rows_are(world, {"a": 1, "b": 1, "c": 1}))
    await eventually(lambda: published(world, 3))


async def test_a_deadlock_or_a_lost_connection_parks_nothing_on_postgresql(
    world: Any, served: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both are real: a rival holds the row that the handler wants, and wants the handler's; its connection is ended."""
    monkeypatch.setattr(worker, "TRIES", 2)
    engine = place_of(world.models_url, "library", "Shelf").writing_engine()
    kinds = iter(["deadlock"] * 2 + ["end"] * 3)
    original, update = world.shelf.on_book_acquired, sa.text("UPDATE shelf SET acquired = acquired WHERE book_id = :b")
    rivals: list[asyncio.Task[None]] = []
    met: list[str] = []

    async def end(pid: int) -> None:
        async with engine.begin() as connection:
            await connection.execute(sa.text("SELECT pg_terminate_backend(:pid)"), {"pid": pid})

    async def rival(has_b: asyncio.Event, go: asyncio.Event) -> None:
        async with engine.begin() as connection:
            # The rival's patience lasts longer than the handler's, so that it is the handler that gives way.
            await connection.execute(sa.text("SET LOCAL deadlock_timeout = '10s'"))
            await connection.execute(update, {"b": "b"})
            has_b.set()
            await go.wait()
            await connection.execute(update, {"b": "a"})

    async def meets(session: Any, event: Any, meta: Any) -> None:
        kind = next(kinds, "") if event.book_id == "c" else ""
        if kind == "deadlock":
            has_b, go = asyncio.Event(), asyncio.Event()
            rivals.append(asyncio.create_task(rival(has_b, go)))
            await session.execute(sa.text("SET LOCAL deadlock_timeout = '100ms'"))
            await session.execute(update, {"b": "a"})
            await has_b.wait()
            go.set()
            try:
                await session.execute(update, {"b": "b"})
            except sa.exc.DBAPIError as error:
                met.append(str(error.orig.sqlstate))  # type: ignore[union-attr]
                raise
        elif kind == "end":
            met.append(kind)
            await end((await session.execute(sa.text("SELECT pg_backend_pid()"))).scalar_one())
        await original(session, event, meta)

    world.shelf.on_book_acquired = meets
    await world.acquire("a", "b")
    world.project(served)
    await eventually(lambda: rows_are(world, {"a": 1, "b": 1}))
    await world.acquire("c")
    await eventually(lambda: rows_are(world, {"a": 1, "b": 1, "c": 1}))
    await asyncio.gather(*rivals)
    await engine.dispose()
    assert met == ["40P01", "40P01", "end", "end", "end"]
    assert await read_parked(place_of(world.models_url, "library", "Shelf")) == []


async def test_an_event_is_parked_and_tried_again_on_postgresql(
    world: Any, served: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "TRIES", 2)
    broken, place = True, place_of(world.models_url, "library", "Shelf")

    def before(event: Any, meta: Any) -> None:
        if event.book_id == "b" and meta.position == 2 and broken:
            raise ValueError("no")

    world.shelf.before = before
    await world.acquire(*"abcb")
    projector = world.project(served)
    await eventually(lambda: rows_are(world, {"a": 1, "c": 1}))
    assert [(one.position, one.error) for one in await read_parked(place)] == [(2, "ValueError: no"), (4, "")]
    broken = False
    await ask(place, Request(verb="retry", position=2, actor="ann"))
    await eventually(lambda: projector.status()[0].parked == 0)
    assert await world.rows() == {"a": 1, "b": 2, "c": 1}


async def rows_are(world: Any, rows: dict[str, int]) -> bool:
    try:
        return bool(await world.rows() == rows)
    except Behind:
        return False


async def test_an_unreachable_database_is_named() -> None:
    reader = ModelReader(places_of("postgresql://nobody@127.0.0.1:1/none", "library", "Shelf"))
    with pytest.raises(Unavailable, match="Shelf of the context library cannot be reached"):
        async with reader.session():
            pass
    await reader.close()


async def test_timers_fire_on_postgresql_and_are_found_by_the_index(world: Any, served: Context) -> None:
    now = dt.datetime.now(dt.UTC)
    async with Store.open(place_of(world.models_url, "library", "times"), "library") as store:
        call = Outgoing(request_id="ceqs:a:1", path="/p", request=b"")
        for due in (now + dt.timedelta(days=2), now + dt.timedelta(days=1)):
            async with store.amend(paused="") as session:
                await set_timers(session, [Timer("a", "ceqs:a:", call, due), Timer("b", "ceqs:b:")])
        assert await store.timers.claim(now) == (0, now + dt.timedelta(days=1))
        async with store.begin() as connection:
            await connection.execute(sa.text("SET LOCAL enable_seqscan = off"))
            query = due_timers(now).compile(connection.engine.sync_engine, compile_kwargs={"literal_binds": True})
            plan = (await connection.execute(sa.text(f"EXPLAIN {query}"))).scalars().all()
        assert any("Index Scan" in line and "ix_ceqs_timers_due" in line for line in plan)
        assert await store.timers.claim(now + dt.timedelta(days=1)) == (1, None)
        assert [call.request_id for _, call in await store.outbox.calls(0, 9)] == ["ceqs:a:1"]
