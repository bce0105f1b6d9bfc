"""SQLite on the event loop: what is short there, what takes long on a thread."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import OperationalError

from ceqs.log import inline
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


@pytest.fixture
def threads(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What was done on a thread."""
    done: list[Any] = []
    to_thread = asyncio.to_thread

    async def counted(work: Any, *arguments: Any) -> Any:
        done.append(work)
        return await to_thread(work, *arguments)

    monkeypatch.setattr(asyncio, "to_thread", counted)
    return done


async def test_a_statement_that_takes_long_leaves_the_loop_to_others(url: str, threads: list[Any]) -> None:
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


async def test_a_projection_waits_for_the_disk_on_a_thread_and_for_nothing_else(
    url: str, threads: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    place = place_of(url, "library", "Shelf")
    engine = place.writing_engine()
    log = Path(f"{place.path}-wal")

    async def write(books: int) -> int:
        """Commit some books; give how much of that was done on a thread."""
        before = len(threads)
        async with engine.begin() as connection:
            await connection.execute(sa.text("INSERT INTO books VALUES (:n)"), [{"n": n} for n in range(books)])
        return len(threads) - before

    monkeypatch.setattr(inline, "MUCH", 200_000)
    # What begins the write-ahead log waits for the disk; what goes on with it does not.
    assert [await write(1) for _ in range(4)] == [1, 0, 0, 0]
    # A long one is carried to the database, and begun anew.
    assert [await write(books) for books in (40_000, 1, 1)] == [1, 1, 0]
    assert log.stat().st_size < 50_000
    await engine.dispose()
    async with place.reading_engine().connect() as connection:
        assert (await connection.execute(sa.text("SELECT count(*) FROM books"))).scalar_one() == 3 + 4 + 40_002


async def test_what_is_read_meanwhile_keeps_the_write_ahead_log_but_nobody_waiting(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = place_of(url, "library", "Shelf")
    writing, reading = place.writing_engine(), place.reading_engine()
    count, log = sa.text("SELECT count(*) FROM books"), Path(f"{place.path}-wal")
    monkeypatch.setattr(inline, "MUCH", 0)

    async def write() -> None:
        async with writing.begin() as connection:
            await connection.execute(sa.text("INSERT INTO books VALUES (4)"))

    await write()
    async with reading.connect() as reader:
        for _ in range(10):
            assert (await reader.execute(count)).scalar_one() == 4
            await write()
    long = log.stat().st_size
    async with reading.connect() as reader:
        assert (await reader.execute(count)).scalar_one() == 14
    await write()
    await write()
    assert log.stat().st_size < long
    await writing.dispose()
    await reading.dispose()
