"""One worker writes a place, and one that has lost its lease writes nothing more."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import sqlalchemy as sa

from ceqs.embedded import PostgresServer, _postgres
from ceqs.projectors import Place, _store, place_of
from ceqs.projectors._lease import Superseded, is_gone, myself, named, take
from ceqs.projectors._outbox import ACCEPTED, Outcome
from ceqs.projectors._reader import Checkpoint
from ceqs.projectors._store import Store
from ceqs.projectors._tables import CHECKPOINT
from ceqs.testing import eventually


@pytest.fixture(autouse=True)
def tries(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Note who has the place whenever somebody tries to get it, which is often."""
    noted: list[str] = []

    async def noting(*arguments: Any) -> tuple[int, str]:
        token, holder = await take(*arguments)
        noted.append(holder)
        return token, holder

    monkeypatch.setattr(_store, "take", noting)
    monkeypatch.setattr(_store, "STAND_BY", 0.02)
    return noted


@pytest.fixture
def place(models_url: str) -> Place:
    return place_of(models_url, "library", "Shelf")


async def expire(place: Place) -> None:
    """Let time pass, as it does for a process that is suspended."""
    engine = place.writing_engine()
    async with engine.begin() as connection:
        await connection.execute(sa.text("UPDATE ceqs_checkpoint SET expires_at = 1"))
    await engine.dispose()


@asynccontextmanager
async def waiting(place: Place) -> AsyncIterator[asyncio.Future[int]]:
    """Give the position at which another worker gets the place, once it does; it keeps it until the end."""
    got: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def work() -> None:
        async with Store.open(place, "library") as store:
            got.set_result(store.at.position)
            await asyncio.Event().wait()

    task = asyncio.create_task(work())
    try:
        yield got
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def expires(place: Place) -> float:
    engine = place.reading_engine()
    async with engine.connect() as connection:
        when: float = (await connection.execute(sa.text("SELECT expires_at FROM ceqs_checkpoint"))).scalar_one()
    await engine.dispose()
    return when


async def test_whoever_writes_has_the_place_for_longer(place: Place) -> None:
    async with Store.open(place, "library") as store:
        ends = list[float]()
        for position in (1, 2):
            await asyncio.sleep(0.05)
            async with store.advance(Checkpoint("log", position, "id")):
                pass
            ends.append(await expires(place))
        assert ends[1] - ends[0] > 0.02


async def test_a_second_worker_waits_until_the_first_has_ended(place: Place, tries: list[str]) -> None:
    async with Store.open(place, "library") as first, waiting(place) as second:
        await eventually(lambda: tries[3:])
        assert set(tries[1:]) == {myself()}
        assert not second.done()
        async with first.advance(Checkpoint("log", 1, "id")):
            pass
        assert not second.done()
    async with waiting(place) as third:
        assert await asyncio.wait_for(third, 30) == 1


async def test_a_worker_that_has_lost_its_lease_writes_nothing_more(place: Place) -> None:
    async def lose() -> None:
        async with Store.open(place, "library", lease=60) as first:
            async with first.advance(Checkpoint("log", 1, "id")):
                pass
            await expire(place)
            async with waiting(place) as second:
                assert await asyncio.wait_for(second, 30) == 1
                with pytest.raises(Superseded):
                    async with first.advance(Checkpoint("log", 2, "id")):
                        raise AssertionError("nothing is written here")
                with pytest.raises(Superseded):
                    await first.outbox.settle([(1, "path", Outcome(ACCEPTED))])

    await lose()
    async with Store.open(place, "library") as last:
        assert last.at.position == 1


async def test_a_lease_is_renewed_while_its_worker_has_nothing_to_do(place: Place) -> None:
    async with Store.open(place, "library", lease=3), waiting(place) as second:
        at_first = await expires(place)

        async def renewed() -> bool:
            return await expires(place) > at_first

        await eventually(renewed)
        assert not second.done()


async def test_an_idle_worker_notices_that_it_has_lost_its_lease(place: Place) -> None:
    async def idle() -> None:
        async with Store.open(place, "library", lease=1.5), waiting(place) as second:

            async def lost() -> bool:
                await expire(place)  # again, where it was renewed meanwhile
                return second.done()

            await eventually(lost)
            await asyncio.Event().wait()

    with pytest.raises(Superseded):
        await idle()


async def test_a_worker_that_ends_when_its_lease_is_lost_is_not_cancelled_afterwards(place: Place) -> None:
    """It would stand by for nothing: whoever was cancelled ends at the next opportunity."""
    worker = asyncio.current_task()
    assert worker

    async def linger() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await eventually(lambda: not worker.cancelling())  # for what was refused: that is seen to
            await eventually(worker.cancelling)  # and now for the lost lease

    async def work() -> None:
        async with Store.open(place, "library", lease=1.5) as store, waiting(place) as second:

            async def lose() -> None:
                async def lost() -> bool:
                    await expire(place)  # again, where it was renewed meanwhile
                    return second.done()

                await eventually(lost)
                await store.pause("refused")

            async with asyncio.TaskGroup() as group:
                group.create_task(linger())
                group.create_task(lose())
                await asyncio.Event().wait()

    with pytest.raises((Superseded, ExceptionGroup)):
        await work()
    assert worker.cancelling() == 0


async def test_a_cancelled_worker_is_cancelled_and_leaves_the_place_at_once(place: Place) -> None:
    async with waiting(place) as first:
        await first
    async with waiting(place) as second:
        await asyncio.wait_for(second, 30)


async def test_a_database_that_crashes_forgets_no_lease(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would give its token again: two workers would have the same."""
    monkeypatch.setitem(_postgres._SETTINGS, "wal_writer_delay", "10s")
    async with PostgresServer() as server:
        place = place_of(server.url, "library", "Shelf")
        async with Store.open(place, "library"):
            await server.kill()
        await server.start()
        engine = place.reading_engine()
        async with engine.connect() as connection:
            assert (await connection.execute(sa.select(CHECKPOINT.c.token))).scalar_one() == 1
        await engine.dispose()


def test_a_process_that_has_ended_is_seen_to_have_ended() -> None:
    assert not is_gone(myself())
    script = "from ceqs.projectors._lease import myself; print(myself(), flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        holder = process.stdout.readline().strip()
        assert not is_gone(holder)
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # a zombie has ended too
        assert is_gone(holder)
    assert is_gone(holder)
    assert named(holder).startswith(f"process {process.pid} on ")


def test_nothing_is_known_of_processes_of_other_machines() -> None:
    host, pid, _, born = myself().rsplit("/", 3)
    assert not is_gone(f"{host}/{pid}/elsewhere/1{born}")
    assert not is_gone("")
