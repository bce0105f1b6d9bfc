"""A stream takes what there is room for, and ends as whoever uses it ends."""

from __future__ import annotations

import asyncio
import gc
import tracemalloc
from collections.abc import Iterator
from typing import Any

import pytest
from tests.unit.client.streams import RPC, accepted, accepting, answer, books, commands_of, outcomes_of

from ceqs.client._unanswered import IN_FLIGHT
from ceqs.testing import eventually
from ceqs.v1.commands_pb2 import Command


async def test_requests_are_taken_only_as_there_is_room_for_them(client: Any, server: Any, library: Any) -> None:
    seen: list[Command] = []
    go_on = asyncio.Event()

    async def hold(call: Any) -> None:
        async for commands in commands_of(call):
            seen.extend(commands)
            if len(seen) >= IN_FLIGHT:
                await go_on.wait()
                await answer(call, map(accepted, seen))
                seen.clear()

    taken = 0

    def requests() -> Iterator[Any]:
        nonlocal taken
        for request in books(library, 3 * IN_FLIGHT):
            taken += 1
            yield request

    server.bidirectional(RPC, hold)
    reading = asyncio.create_task(outcomes_of(client, requests()))
    await eventually(lambda: len(seen) >= IN_FLIGHT)
    assert IN_FLIGHT <= taken <= IN_FLIGHT + 1
    assert len(seen) == IN_FLIGHT
    go_on.set()
    assert len(await reading) == 3 * IN_FLIGHT


async def test_a_consumer_that_takes_its_time_is_not_run_away_from(client: Any, server: Any, library: Any) -> None:
    seen: list[Command] = []
    server.bidirectional(RPC, accepting(seen))
    outcomes = client.execute_many(books(library, 10 * IN_FLIGHT))
    await anext(outcomes)
    await eventually(lambda: len(seen) > IN_FLIGHT)
    before = 0
    while before < len(seen):  # until it stands still
        before = len(seen)
        await asyncio.sleep(1)
    assert before <= 3 * IN_FLIGHT
    await outcomes.aclose()


async def test_ten_thousand_commands_need_no_more_memory_than_two_thousand(
    client: Any, server: Any, library: Any
) -> None:
    async def forgetful(call: Any) -> None:
        async for commands in commands_of(call):
            await answer(call, map(accepted, commands))

    server.bidirectional(RPC, forgetful)
    sizes: list[int] = []
    tracemalloc.start()
    try:
        number = 0
        async for outcome in client.execute_many(books(library, 10_000)):
            number += 1
            assert outcome.response
            if number in (2_000, 10_000):
                gc.collect()
                sizes.append(tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
    assert sizes[1] - sizes[0] < 500_000, "bytes"


async def test_leaving_a_stream_waits_for_every_outcome(client: Any, server: Any, library: Any) -> None:
    go_on = asyncio.Event()

    async def hold(call: Any) -> None:
        async for commands in commands_of(call):
            await go_on.wait()
            await answer(call, map(accepted, commands))

    server.bidirectional(RPC, hold)

    async def use() -> list[Any]:
        async with client.stream() as stream:
            return [await stream.lend_book(request) for request in books(library, 3)]

    using = asyncio.create_task(use())
    await eventually(lambda: server.calls)
    assert not using.done()
    go_on.set()
    assert all(answer.done() for answer in await using)


async def test_leaving_a_stream_by_an_error_ends_it_at_once(client: Any, server: Any, library: Any) -> None:
    async def nothing(call: Any) -> None:
        async for _ in commands_of(call):
            pass

    server.bidirectional(RPC, nothing)
    answers = []

    async def use() -> None:
        async with client.stream() as stream:
            answers.append(await stream.lend_book(library.LendBookRequest()))
            await eventually(lambda: server.calls)
            raise ValueError("an error of mine")

    with pytest.raises(ValueError, match="of mine"):
        await use()
    assert answers[0].cancelled()
    await asyncio.wait_for(server.calls[0].ended.wait(), 5)


async def test_a_stream_that_is_left_during_an_outage_ends(
    client: Any, wire: Any, library: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """grpc.aio swallows a cancellation that meets the end of a call: one time in fifty or so here."""
    monkeypatch.setattr("ceqs.client._failures.FIRST_DELAY", 0.0001)
    await wire.stop()

    async def use() -> None:
        async with client.stream() as stream:
            await stream.lend_book(library.LendBookRequest())

    for turns in range(600):
        using = asyncio.create_task(use())
        for _ in range(turns % 30):
            await asyncio.sleep(0)
        using.cancel()
        done, _ = await asyncio.wait([using], timeout=10)
        assert done, "it went on"


async def test_breaking_off_ends_the_stream_at_the_server(client: Any, server: Any, library: Any) -> None:
    server.bidirectional(RPC, accepting([]))
    outcomes = client.execute_many(books(library, 100_000))
    await anext(outcomes)
    await outcomes.aclose()
    await asyncio.wait_for(server.calls[0].ended.wait(), 5)
