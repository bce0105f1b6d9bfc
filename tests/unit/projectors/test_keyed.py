"""Keyed models are folded as if event by event, and written batch by batch."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import pytest
import sqlalchemy as sa

from ceqs.projectors import Projector, ProjectorSettings, Request, ask, place_of, read_parked, read_status, table_of
from ceqs.projectors import _fill as filling
from ceqs.projectors import _worker as worker
from ceqs.projectors._keyed import projecting
from ceqs.server import Served, Server, ServerSettings
from ceqs.testing import eventually

KEY = "the key"


async def test_rows_are_what_events_give_that_are_folded_one_by_one(
    stacks: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    dice = random.Random(1)
    monkeypatch.setattr(filling, "BATCH", 13)
    await stacks.record(*stacks.some_events(dice, 200))
    for upto in (dice.randrange(1, 200), 200):
        await stacks.fill(upto)
        for name in ("Book", "Reader"):
            found = await stacks.rows(name)
            expected = stacks.folded(name, upto)
            padded = {f"{int(tag[7:]):020d}" if name == "Reader" else tag[5:]: row for tag, row in expected.items()}
            assert found == padded


async def test_a_batch_loads_and_writes_each_row_once(stacks: Any) -> None:
    await stacks.fill()
    await stacks.record(*[stacks.lent(f"book {n % 20}") for n in range(400)])
    with statements("book") as said:
        await stacks.fill()
    assert [statement.split()[0] for statement in said] == ["SELECT", "INSERT"]
    assert sum(book.times for book in (await stacks.rows("Book")).values()) == 400


async def test_a_model_has_an_index_for_each_column_that_it_is_found_by(stacks: Any) -> None:
    table = table_of(stacks.context.contract.models["Book"])
    indexed = {tuple(column.name for column in index.columns) for index in table.indexes}
    fields = ("status", "reader", "lent_at", "popular", "times")
    assert indexed == {(field, "book_id") for field in fields}
    assert [column.name for column in table.primary_key] == ["book_id"]


def test_a_model_whose_events_are_kept_in_order_by_its_key_may_have_several_workers(shelves: Any) -> None:
    context = shelves.make_context()
    handlers = {name: projecting(one, context.decoder) for name, one in context.projections.items()}
    assert handlers["Reader"].partition_by == "reader"
    # Books are lent in the order of their readers, and burnt several at once.
    assert handlers["Book"].partition_by == ""


async def test_several_workers_fold_a_model_on_postgresql(stacks: Any, models_url: str) -> None:
    if models_url.startswith("sqlite"):
        pytest.skip("a file has one writer")
    await stacks.record(*[stacks.lent("b", number=n % 30 + 1) for n in range(300)])
    async with projecting_of(stacks, partitions={"Reader": 3}):
        reader = place_of(stacks.url, "shelves", "Reader")
        await eventually(lambda: stood(stacks, "Reader", 300))
        assert {row.books for row in (await stacks.rows("Reader", reader)).values()} == {10}


async def test_an_event_that_fails_is_parked_and_those_of_its_row_wait_behind_it(
    stacks: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "TRIES", 2)
    monkeypatch.setattr(worker, "ATTEND", 0.02)
    lent, returned = stacks.lent, stacks.shelves.BookReturned
    # The reader's number, by which the event is partitioned, is not what rows are kept by.
    await stacks.record(lent("1"), lent("1", "Nobody", 7), lent("2", "Bob", 7), returned(book_id="1"), lent("2"))
    async with projecting_of(stacks):
        await eventually(lambda: stood(stacks, "Book", 5))
        book = place_of(stacks.url, "shelves", "Book")
        assert [(one.position, one.key) for one in await read_parked(book)] == [(2, "book:1"), (4, "book:1")]
        rows = await stacks.rows("Book")
        assert (rows["1"].times, rows["1"].status, rows["2"].times) == (1, 1, 2)
        await ask(book, Request(verb="skip", position=2, actor="ann", why="nobody did"))

        async def emptied() -> bool:
            return not await read_parked(book)

        await eventually(emptied)
        assert (await stacks.rows("Book"))["1"].status == 0


@asynccontextmanager
async def projecting_of(stacks: Any, **settings: Any) -> AsyncIterator[Projector]:
    """Run a server of the log, and a projector."""
    served = Served(stacks.context, stacks.log, dict.fromkeys(stacks.context.projections))  # type: ignore[arg-type]
    server = Server([served], ServerSettings(key=KEY, grace=0, port=0))
    await server.start()
    options = {"addresses": {"shelves": server.address}, "models_url": stacks.url, "key": KEY}
    projector = Projector(stacks.context, ProjectorSettings(**options | settings))
    running = asyncio.create_task(projector.run())
    try:
        yield projector
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await server.stop()


async def stood(stacks: Any, name: str, position: int) -> bool:
    found = {status.name: status for status in await read_status(stacks.url, stacks.context)}
    return found[name].position >= position


@contextmanager
def statements(table: str) -> Iterator[list[str]]:
    """Collect the statements that name a table."""
    said: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if f" {table} " in f"{statement} ":
            said.append(statement)

    sa.event.listen(sa.Engine, "before_cursor_execute", note)
    yield said
    sa.event.remove(sa.Engine, "before_cursor_execute", note)
