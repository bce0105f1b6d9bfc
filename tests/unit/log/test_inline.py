"""Reading SQLite on the event loop: short statements there, long ones on a thread."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import OperationalError

from ceqs.projectors import place_of

LONG = """
WITH RECURSIVE counted(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM counted WHERE n < 1000000)
SELECT count(*), sum(n) FROM counted
"""


@pytest.fixture
def url(tmp_path: Path) -> str:
    place = place_of(f"sqlite:///{tmp_path}", "library", "Shelf")
    assert place.path is not None
    place.path.parent.mkdir()
    connection = sqlite3.connect(place.path)
    connection.executescript("CREATE TABLE books (number); INSERT INTO books VALUES (1), (2), (3)")
    connection.close()
    return f"sqlite:///{tmp_path}"


async def test_a_statement_that_takes_long_leaves_the_loop_to_others(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[Any] = []
    to_thread = asyncio.to_thread

    async def counted(work: Any, *arguments: Any) -> Any:
        threads.append(work)
        return await to_thread(work, *arguments)

    monkeypatch.setattr(asyncio, "to_thread", counted)
    engine = place_of(url, "library", "Shelf").reading_engine()
    async with engine.connect() as connection:
        books = sa.text("SELECT number FROM books ORDER BY number")
        assert (await connection.execute(books)).scalars().all() == [1, 2, 3]
        assert not threads
        assert tuple((await connection.execute(sa.text(LONG))).one()) == (1_000_000, 500_000_500_000)
        assert len(threads) == 1
        # The snapshot has outlived the interruption, and the next statement is short again.
        assert [row.number async for row in await connection.stream(books)] == [1, 2, 3]
        assert len(threads) == 1
    await engine.dispose()


async def test_nothing_can_be_written_by_who_reads(url: str) -> None:
    engine = place_of(url, "library", "Shelf").reading_engine()
    async with engine.connect() as connection:
        with pytest.raises(OperationalError, match="readonly"):
            await connection.execute(sa.text("DELETE FROM books"))
    await engine.dispose()
