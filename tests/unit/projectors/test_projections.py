"""What a projection promises, over real gRPC and without NATS."""

from __future__ import annotations

import re
from typing import Any

import pytest
import sqlalchemy as sa
import sqlalchemy.orm

from ceqs.errors import Behind, Misconfigured
from ceqs.model import Context, TableProjection
from ceqs.projectors import ModelReader, place_of, places_of, read_status
from ceqs.testing import eventually

pytestmark = pytest.mark.usefixtures("fast")


@pytest.fixture
async def served(world: Any, library_context: Any) -> Context:
    context: Context = library_context(world.shelf)
    await world.start(context)
    return context


async def test_a_projection_equals_the_fold_of_the_log(world: Any, served: Context) -> None:
    await world.acquire(*[f"b{n % 7}" for n in range(1200)])
    world.project(served)
    await world.reaches(1200)
    assert await world.rows() == {f"b{n}": 172 if n < 3 else 171 for n in range(7)}


async def test_events_that_come_later_are_projected_too(world: Any, served: Context) -> None:
    world.project(served)
    for n in range(1, 4):
        await world.acquire("b")
        await world.reaches(n)
    assert await world.rows() == {"b": 3}


async def test_a_restarted_projector_goes_on_from_the_models_own_checkpoint(world: Any, served: Context) -> None:
    world.project(served)
    await world.acquire("b", "b")
    await world.reaches(2)
    await world.halt()
    await world.acquire("b")
    world.project(served)
    await world.reaches(3)
    assert await world.rows() == {"b": 3}


async def test_events_that_the_projection_does_not_hear_move_its_checkpoint_too(world: Any, served: Context) -> None:
    projector = world.project(served)
    await world.acquire("b")
    await world.record(world.library.LibraryClosed(), world.library.BookOffered(book_id="b"))
    await world.reaches(3)
    assert await world.rows() == {"b": 1}
    assert projector.status()[0].skipped == 2


async def test_rows_and_checkpoint_are_read_in_one_snapshot(world: Any, served: Context) -> None:
    world.project(served)
    await world.acquire("b")
    await world.reaches(1)
    reader = ModelReader(places_of(world.models_url, "library", "Shelf"))
    count = sa.text("SELECT acquired FROM shelf")
    async with reader.session() as (session, checkpoint):
        await world.acquire("b")
        await world.reaches(2)
        assert (checkpoint.position, (await session.execute(count)).scalar_one()) == (1, 1)
    async with reader.session() as (session, checkpoint):
        assert (checkpoint.position, (await session.execute(count)).scalar_one()) == (2, 2)
        assert checkpoint.log_id == world.logs["library"].log_id
        assert checkpoint.event_id == (await world.events("library"))[-1].id
    await reader.close()


async def test_a_reader_cannot_write(world: Any, served: Context) -> None:
    world.project(served)
    await world.acquire("b")
    await world.reaches(1)
    reader = ModelReader(places_of(world.models_url, "library", "Shelf"))
    async with reader.session() as (session, _):
        with pytest.raises(sa.exc.OperationalError, match="readonly"):
            await session.execute(sa.text("DELETE FROM shelf"))
    await reader.close()


async def test_a_model_without_a_place_is_behind_at_position_0(world: Any) -> None:
    reader = ModelReader(places_of(world.models_url, "library", "Shelf"))
    with pytest.raises(Behind, match="has not been projected yet") as raised:
        async with reader.session():
            pass
    assert raised.value.metadata == {"position": "0"}
    assert not await reader.wait(1, 0.05)
    await reader.close()


async def test_the_model_of_an_empty_log_names_its_log(world: Any, served: Context) -> None:
    world.project(served)
    reader = ModelReader(places_of(world.models_url, "library", "Shelf"))

    async def log_id() -> str:
        try:
            async with reader.session() as (_, checkpoint):
                assert checkpoint.position == 0
                return str(checkpoint.log_id)
        except Behind:
            return ""

    assert await eventually(log_id) == world.logs["library"].log_id
    await reader.close()


async def test_an_event_that_fails_for_a_while_is_applied_once(world: Any, served: Context) -> None:
    failures = iter([OSError("flaky")] * 3)

    def before(event: Any, meta: Any) -> None:
        if meta.position == 3 and (failure := next(failures, None)):
            raise failure

    world.shelf.before = before
    await world.acquire(*"abcde")
    world.project(served)
    await world.reaches(5)
    assert await world.rows() == dict.fromkeys("abcde", 1)


async def test_of_rows_that_fail_in_the_commit_the_event_is_found_that_wrote_them(world: Any, served: Context) -> None:
    """ORM objects are written when the transaction ends, so no call of a method names the event that fails."""
    world.shelf.before = lambda event, meta: None
    original = world.shelf.on_book_acquired

    async def deferred(session: Any, event: Any, meta: Any) -> None:
        await original(session, event, meta)
        if meta.position == 4:
            session.sync_session.add(_Unwritable(id=None, text=None))

    world.shelf.on_book_acquired = deferred
    await world.acquire(*"abcde")
    projector = world.project(served)
    await world.reaches(5)
    assert await world.rows() == dict.fromkeys("abce", 1)
    assert projector.status()[0].parked == 1


class _Base(sa.orm.DeclarativeBase):
    pass


class _Unwritable(_Base):
    __tablename__ = "nowhere"
    id: sa.orm.Mapped[int] = sa.orm.mapped_column(primary_key=True)
    text: sa.orm.Mapped[str]


async def test_an_event_type_of_the_own_context_that_this_build_does_not_know_pauses(
    world: Any, served: Context, readers: Any
) -> None:
    await world.acquire("a")
    await world.record(readers.OfferNoted(book_id="b"))
    await world.acquire("c")
    projector = world.project(served)
    await eventually(lambda: projector.status()[0].state == "paused")
    status = (await read_status(world.models_url, served))[0]
    assert status.position == 1
    assert "readers.v1.OfferNoted at position 2 is no event of this build's contract" in status.reason


async def test_one_paused_handler_holds_up_no_other(world: Any, library: Any, library_context: Any) -> None:
    class Second(TableProjection):
        ceqs_contract = library.contract
        ceqs_projection = "Second"
        metadata = sa.MetaData()

        async def on_book_acquired(self, session: Any, event: Any, meta: Any) -> None:
            raise ValueError("never")

    context = library_context(world.shelf)
    await world.start(context)
    context.projections["Second"] = Second()
    await world.acquire("a", "b")
    world.project(context)
    await world.reaches(2)


async def test_a_projection_that_commits_by_itself_is_paused_and_has_written_nothing(
    world: Any, served: Context
) -> None:
    original = world.shelf.on_book_acquired

    async def committing(session: Any, event: Any, meta: Any) -> None:
        await original(session, event, meta)
        await session.commit()

    world.shelf.on_book_acquired = committing
    await world.acquire("a")
    projector = world.project(served)
    await eventually(lambda: projector.status()[0].state == "paused")
    assert "must not commit" in projector.status()[0].reason
    assert await world.rows() == {}


async def test_a_second_projector_stands_by_and_takes_over(world: Any, served: Context) -> None:
    world.project(served)
    await world.acquire("a")
    await world.reaches(1)
    first, world.projectors = world.projectors, []
    second = world.project(served)
    await world.acquire("a")
    await world.reaches(2)
    assert second.status()[0].state == "stand-by"
    world.projectors, other = first, world.projectors
    await world.halt()
    world.projectors = other
    await eventually(lambda: second.status()[0].state == "live")
    await world.acquire("a")
    await world.reaches(3)
    assert await world.rows() == {"a": 3}


async def test_a_worker_whose_checkpoint_was_moved_by_another_writes_nothing(world: Any, served: Context) -> None:
    """As where a database connection, and the lock with it, was lost unnoticed."""
    world.project(served)
    await world.acquire("a")
    await world.reaches(1)
    place = place_of(world.models_url, "library", "Shelf")
    engine = place.writing_engine()
    async with engine.begin() as connection:
        await connection.execute(sa.text("UPDATE ceqs_checkpoint SET position = 2"))
        await connection.execute(sa.text("UPDATE shelf SET acquired = 2"))
    await engine.dispose()
    await world.acquire("a", "a")
    await world.reaches(3)
    assert await world.rows() == {"a": 3}


async def test_a_log_that_was_replaced_stops_the_handler(world: Any, served: Context) -> None:
    world.project(served)
    await world.acquire("a")
    await world.reaches(1)
    await world.halt()
    await world.stop("library")
    await world.logs.pop("library").close()
    await world.start(served)
    await world.acquire("b", "b", "b")
    projector = world.project(served)
    await eventually(lambda: projector.status()[0].state == "stopped")
    assert re.search("belongs to the log .*: ceqs projection rebuild library/", projector.status()[0].reason)
    assert await world.rows() == {"a": 1}


async def test_a_log_that_is_replaced_under_a_running_projector_stops_the_handler(world: Any, served: Context) -> None:
    projector = world.project(served)
    await world.acquire("a")
    await world.reaches(1)
    await world.stop("library")
    await world.logs.pop("library").close()
    await world.start(served)
    await world.acquire("b", "b", "b")
    await eventually(lambda: projector.status()[0].state == "stopped")
    assert await world.rows() == {"a": 1}


async def test_a_server_that_is_down_is_waited_for(world: Any, served: Context) -> None:
    await world.acquire("a")
    await world.stop("library")
    projector = world.project(served)
    await eventually(lambda: "cannot be read" in projector.status()[0].reason)
    await world.start(served)
    await world.reaches(1)
    await world.stop("library")
    await world.acquire("b")
    await world.start(served)
    await world.reaches(2)
    await eventually(lambda: not projector.status()[0].reason)
    assert await world.rows() == {"a": 1, "b": 1}


async def test_the_wrong_key_is_named_and_waited_for(world: Any, served: Context) -> None:
    await world.acquire("a")
    projector = world.project(served, key="another")
    await eventually(lambda: "key" in projector.status()[0].reason)
    assert projector.status()[0].position == 0


async def test_a_projection_may_not_take_the_platforms_table_names(
    world: Any, library: Any, library_context: Any
) -> None:
    class Bad(TableProjection):
        ceqs_contract = library.contract
        ceqs_projection = "Bad"
        metadata = sa.MetaData()

        async def on_book_acquired(self, session: Any, event: Any, meta: Any) -> None: ...

    sa.Table("ceqs_checkpoint", Bad.metadata, sa.Column("id", sa.Integer))
    context = library_context(world.shelf)
    await world.start(context)
    context.projections["Bad"] = Bad()
    projector = world.project(context)
    await eventually(lambda: "taken by the platform" in projector.status()[1].reason)


async def test_a_projector_names_the_address_that_it_lacks(world: Any, served: Context) -> None:
    with pytest.raises(Misconfigured, match="needs the address of library"):
        world.project(served, addresses={})


async def test_a_place_that_is_no_database_is_named_and_left_as_it_is(world: Any, served: Context) -> None:
    place = place_of(world.models_url, "library", "Shelf")
    assert place.path is not None
    place.path.parent.mkdir(parents=True)
    place.path.write_bytes(b"holiday pictures" * 100)
    projector = world.project(served)
    await eventually(lambda: projector.status()[0].state == "paused")
    assert projector.status()[0].reason == f"{place.path}: DatabaseError: file is not a database"
    assert (await read_status(world.models_url, served))[0].state == "missing"
    reader = ModelReader(place)
    with pytest.raises(Behind, match="file is not a database"):
        async with reader.session():
            pass
    await reader.close()
    assert place.path.read_bytes() == b"holiday pictures" * 100


async def test_the_place_of_a_version_is_its_own(world: Any, served: Context) -> None:
    world.project(served)
    await world.acquire("a")
    await world.reaches(1)
    await world.halt()
    world.shelf.version = 2
    world.project(served)
    places = places_of(world.models_url, "library", "Shelf")

    async def serving() -> str:
        place = await places.serving()
        return place.label if place else ""

    await eventually(lambda: _is(serving(), "v2"))
    assert [known.place.label for known in await places.known()] == ["v1", "v2"]
    assert await world.rows(1) == await world.rows(2) == {"a": 1}
    await places.close()


async def _is(found: Any, expected: Any) -> bool:
    return bool(await found == expected)


@pytest.mark.parametrize("url", ["", "models", "mysql://a/b", "sqlite://", "sqlite:///:memory:"])
def test_a_models_url_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(Misconfigured, match="models_url"):
        place_of(url, "library", "Shelf")


def test_a_schema_name_that_postgresql_would_cut_off_is_refused() -> None:
    with pytest.raises(Misconfigured, match="longer than 63 bytes"):
        place_of("postgresql://localhost/db", "library", "Shelf" * 20)
