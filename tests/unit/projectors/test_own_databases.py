"""Projections with databases of their own: one that is down stops nobody else."""

from __future__ import annotations

from typing import Any

import grpc.aio
import pytest
import sqlalchemy as sa

from ceqs.embedded import PostgresServer
from ceqs.model import Context, TableProjection
from ceqs.projectors import ModelReader, place_of
from ceqs.testing import eventually

pytestmark = pytest.mark.usefixtures("fast")
TITLES = sa.MetaData()
TITLE = sa.Table(
    "titles",
    TITLES,
    sa.Column("position", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("title", sa.String, nullable=False),
)


@pytest.fixture
def two_models(world: Any, library: Any, library_context: Any) -> Context:
    """The library with a second projection, `Titles`."""

    class Titles(TableProjection):
        ceqs_contract = library.contract
        ceqs_projection = "Titles"
        metadata = TITLES

        async def on_book_acquired(self, session: Any, event: Any, meta: Any) -> None:
            await session.execute(sa.insert(TITLE), {"position": meta.position, "title": event.title})

    context: Context = library_context(world.shelf)
    context.projections["Titles"] = Titles()
    return context


async def test_a_database_that_is_down_stops_its_projection_only_and_that_catches_up_when_it_is_back(
    world: Any, library: Any, two_models: Context, capsys: Any
) -> None:
    await world.start(two_models)
    async with (
        PostgresServer() as database,
        grpc.aio.insecure_channel(f"127.0.0.1:{world.ports['library']}") as channel,
    ):
        url = database.url
        acquire: Any = channel.unary_unary("/library.v1.LendingCommandsService/AcquireBook")

        async def send(*books: str) -> None:
            for book in books:
                await acquire(library.AcquireBookRequest(book_id=book, title="t").SerializeToString(), timeout=5)

        projector = world.project(two_models, model_urls={"Titles": url})
        titles = ModelReader(place_of(url, "library", "Titles"))
        await send("a", "b")
        await world.reaches(2)
        assert await titles.wait(2, 30)

        await database.kill()
        await send("c", "d")
        await world.reaches(4)
        assert await world.rows() == dict.fromkeys("abcd", 1)
        await eventually(lambda: projector.status()[1].state == "paused")
        assert projector.status()[1].position == 2
        assert projector.status()[0].state == "live"

        await database.start()
        assert await titles.wait(4, 30)
        async with titles.session() as (session, checkpoint):
            count = (await session.execute(sa.select(sa.func.count()).select_from(TITLE))).scalar_one()
            assert (count, checkpoint.parked) == (4, 0)
        await eventually(lambda: projector.status()[1].state == "live")
        await titles.close()
        await world.halt()
    assert "Traceback" not in capsys.readouterr().out  # whoever reads the process log is told in a line
