"""Streams of commands: each with an outcome of its own, sent again under its id until it has one."""

from __future__ import annotations

import asyncio
import gc
import itertools
import time
import tracemalloc
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from typing import Any

import grpc.aio
import pytest

from ceqs.client import Outcome
from ceqs.client._unanswered import AT_ONCE_BYTES, IN_FLIGHT
from ceqs.contract import decode_token, encode_token
from ceqs.errors import (
    CeqsError,
    Expired,
    Invalid,
    Overloaded,
    Rejected,
    Unauthenticated,
    Unavailable,
    Unimplemented,
    to_status,
)
from ceqs.testing import eventually
from ceqs.v1.answers_pb2 import Receipt
from ceqs.v1.commands_pb2 import Command, CommandOutcome, ExecuteStreamRequest, ExecuteStreamResponse

RPC = "ExecuteStream"


async def commands_of(call: Any) -> AsyncIterator[list[Command]]:
    """Give the commands that the server reads, message by message."""
    while (raw := await call.context.read()) is not grpc.aio.EOF:
        yield list(ExecuteStreamRequest.FromString(raw).commands)


def accepted(command: Command, **fields: Any) -> CommandOutcome:
    receipt = Receipt(command_id=command.command_id, position=command.number, token=encode_token({"l": command.number}))
    return CommandOutcome(number=command.number, receipt=receipt, **fields)


def refused(command: Command, error: CeqsError) -> CommandOutcome:
    return CommandOutcome(number=command.number, status=to_status(error, "library"))


async def answer(call: Any, outcomes: Iterable[CommandOutcome]) -> None:
    await call.write(ExecuteStreamResponse(outcomes=outcomes))


def accepting(seen: list[Command], decide: Callable[[Command], CommandOutcome] = accepted) -> Any:
    """A step of the server's script: answer every command, and note it."""

    async def step(call: Any) -> None:
        async for commands in commands_of(call):
            seen.extend(commands)
            await answer(call, map(decide, commands))

    return step


def books(library: Any, count: int) -> Iterator[Any]:
    return (library.LendBookRequest(book_id=str(i)) for i in range(count))


async def outcomes_of(client: Any, requests: Any, **options: Any) -> list[Outcome[Any]]:
    return [outcome async for outcome in client.execute_many(requests, **options)]


async def test_outcomes_come_in_the_order_of_the_requests(client: Any, server: Any, library: Any) -> None:
    async def backwards(call: Any) -> None:
        async for commands in commands_of(call):
            for command in reversed(commands):
                await answer(call, [accepted(command)])

    server.bidirectional(RPC, backwards)
    found = await outcomes_of(client, books(library, 300))
    asked: list[Any] = [outcome.request for outcome in found]
    assert [request.book_id for request in asked] == [str(i) for i in range(300)]
    assert [outcome.receipt.position for outcome in found if outcome.receipt] == list(range(1, 301))


async def test_an_outcome_has_the_response_with_its_receipt_and_its_own_fields(
    client: Any, server: Any, library: Any
) -> None:
    own = library.AcquireBookResponse(copy_id="b1/2").SerializeToString()
    server.bidirectional(RPC, accepting([], lambda command: accepted(command, response=own)))
    async with client.stream() as stream:
        outcome = await (await stream.acquire_book(library.AcquireBookRequest(book_id="b1"), command_id="c1"))
    assert isinstance(outcome.response, library.AcquireBookResponse)
    assert outcome.response.copy_id == "b1/2"
    assert outcome.response.receipt == outcome.receipt
    assert outcome.result() is outcome.response
    assert (outcome.command_id, outcome.request.book_id, outcome.error) == ("c1", "b1", None)


async def test_a_refused_command_has_an_error_and_disturbs_no_other(client: Any, server: Any, library: Any) -> None:
    def decide(command: Command) -> CommandOutcome:
        if command.number == 2:
            return refused(command, Rejected("NOT_THERE", "it is lent", metadata={"book": "1"}))
        return accepted(command)

    server.bidirectional(RPC, accepting([], decide))
    first, second, third = await outcomes_of(client, books(library, 3))
    assert first.response
    assert third.response
    assert (second.response, second.receipt) == (None, None)
    with pytest.raises(Rejected, match="it is lent") as raised:
        second.result()
    assert (raised.value.reason, raised.value.metadata) == ("NOT_THERE", {"book": "1"})


async def test_each_command_has_an_id_and_the_stream_the_key_and_the_actor(
    client: Any, server: Any, library: Any
) -> None:
    seen: list[Command] = []
    server.bidirectional(RPC, accepting(seen))
    requests = [
        library.LendBookRequest(),
        ("mine", library.LendBookRequest()),
        library.AcquireBookRequest(request_id="in the request"),
        ("mine too", library.AcquireBookRequest(request_id="in the request")),
    ]
    found = await outcomes_of(client, requests)
    assert [c.command_id for c in seen] == [found[0].command_id, "mine", "in the request", "mine too"]
    assert len(seen[0].command_id) == 36
    assert [c.rpc.rpartition("/")[2] for c in seen] == ["LendBook", "LendBook", "AcquireBook", "AcquireBook"]
    assert all(0 < c.timeout.seconds <= 5 for c in seen)
    (call,) = server.calls
    assert (call.metadata["ceqs-key"], call.metadata["ceqs-actor"]) == ("sesame", "ann")


async def test_after_a_cut_what_is_unanswered_is_sent_again_in_order_under_the_same_ids(
    client: Any, server: Any, library: Any, wire: Any
) -> None:
    first: list[Command] = []
    again: list[Command] = []

    async def half(call: Any) -> None:
        async for commands in commands_of(call):
            first.extend(commands)
            if len(first) == 300:
                break
        await answer(call, map(accepted, first[::2]))
        await eventually(lambda: sum(answer.done() for answer in answers) == 150)
        wire.cut()
        await call.ended.wait()

    server.bidirectional(RPC, half, accepting(again))
    async with client.stream() as stream:
        answers = [await stream.lend_book(request) for request in books(library, 300)]
    assert all(answer.result().response for answer in answers)
    assert [c.command_id for c in again] == [c.command_id for c in first[1::2]]
    assert [c.request for c in again] == [c.request for c in first[1::2]]
    assert wire.connections == 2


async def test_a_server_that_goes_away_is_followed_to_its_successor(client: Any, server: Any, library: Any) -> None:
    first: list[Command] = []
    again: list[Command] = []

    async def go(call: Any) -> None:
        async for commands in commands_of(call):
            first.extend(commands)
            await answer(call, [accepted(commands[0])])
            await call.fail(Unavailable("going away"))

    server.bidirectional(RPC, go, accepting(again))
    found = await outcomes_of(client, books(library, 3))
    assert [outcome.error for outcome in found] == [None] * 3
    assert [c.command_id for c in again] == [outcome.command_id for outcome in found[1:]]


async def test_servers_that_go_away_while_more_is_written_fail_no_command(
    client: Any, server: Any, library: Any
) -> None:
    async def go(call: Any) -> None:
        async for commands in commands_of(call):
            await answer(call, map(accepted, commands))
            await call.fail(Unavailable("going away"))

    server.bidirectional(RPC, *[go] * 6, accepting([]))
    found = await outcomes_of(client, books(library, 3 * IN_FLIGHT))
    assert [outcome.error for outcome in found if outcome.error] == []
    assert len(server.calls) == 7


async def test_a_command_that_the_server_puts_off_is_sent_again_when_it_said(
    client: Any, server: Any, library: Any
) -> None:
    seen: list[Command] = []
    times: list[float] = []
    busy = Overloaded()
    busy.retry_after = 0.3

    def decide(command: Command) -> CommandOutcome:
        if command.number != 2:
            return accepted(command)
        times.append(time.monotonic())
        return refused(command, busy) if len(times) < 3 else accepted(command)

    server.bidirectional(RPC, accepting(seen, decide))
    found = await outcomes_of(client, books(library, 3))
    assert [outcome.error for outcome in found] == [None] * 3
    assert [c.number for c in seen] == [1, 2, 3, 2, 2]
    assert {c.command_id for c in seen if c.number == 2} == {found[1].command_id}
    assert all(later - earlier >= 0.3 for earlier, later in itertools.pairwise(times))
    assert len(server.calls) == 1, "the stream goes on"


async def test_what_stays_unanswered_expires_and_tells_its_command_id(client: Any, server: Any, library: Any) -> None:
    async def nothing(call: Any) -> None:
        async for _ in commands_of(call):
            pass

    server.bidirectional(RPC, nothing)
    began = time.monotonic()
    first, second = await outcomes_of(
        client, [("c1", library.LendBookRequest()), ("c2", library.LendBookRequest())], timeout=0.4
    )
    assert 0.4 <= time.monotonic() - began < 3
    assert isinstance(first.error, Expired)
    assert first.error.__notes__ == ["It may have been done. Send it again with command_id='c1': it is done once."]
    assert second.error is not None
    assert second.error.__notes__ == ["It may have been done. Send it again with command_id='c2': it is done once."]


async def test_the_last_thing_that_was_told_is_the_error(client: Any, server: Any, library: Any) -> None:
    server.bidirectional(RPC, Unavailable("the log is being moved"))
    found = await outcomes_of(client, books(library, 2), timeout=2)
    for outcome in found:
        with pytest.raises(Unavailable, match="the log is being moved") as raised:
            outcome.result()
        (note,) = raised.value.__notes__
        assert f"command_id={outcome.command_id!r}" in note
    assert len(server.calls) > 1


async def test_a_server_that_falls_silent_is_called_anew(
    client_type: Any, wire: Any, server: Any, library: Any
) -> None:
    seen: list[Command] = []

    async def silent(call: Any) -> None:
        async for _ in commands_of(call):
            pass

    server.bidirectional(RPC, silent, accepting(seen))
    async with client_type(wire.address, attempt_timeout=0.3) as client:
        found = await outcomes_of(client, books(library, 3))
    assert [c.command_id for c in seen] == [outcome.command_id for outcome in found]
    await asyncio.wait_for(server.calls[0].ended.wait(), 5)


async def test_a_server_that_never_reads_is_called_anew(client_type: Any, wire: Any, server: Any, library: Any) -> None:
    async def hang(call: Any) -> None:
        await asyncio.sleep(60)

    server.bidirectional(RPC, hang, accepting([]))
    async with client_type(wire.address, attempt_timeout=0.5) as client:
        (found,) = await outcomes_of(client, [library.AcquireBookRequest(title="x" * 2_000_000)])
    assert found.error is None
    assert len(server.calls) == 2


async def test_a_stream_may_have_all_the_time_in_the_world(client: Any, server: Any, library: Any) -> None:
    server.bidirectional(RPC, accepting([]))
    found = await outcomes_of(client, books(library, 3), timeout=float("inf"))
    assert [outcome.error for outcome in found] == [None] * 3


async def test_a_stream_that_is_owed_nothing_bears_any_silence(
    client_type: Any, wire: Any, server: Any, library: Any
) -> None:
    server.bidirectional(RPC, accepting([]))
    async with client_type(wire.address, attempt_timeout=0.1) as client, client.stream() as stream:
        assert (await (await stream.lend_book(library.LendBookRequest()))).response
        began = time.monotonic()
        await eventually(lambda: time.monotonic() > began + 0.4)
        assert (await (await stream.lend_book(library.LendBookRequest()))).response
    assert len(server.calls) == 1


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


async def test_a_command_that_is_too_large_is_refused_alone(client: Any, server: Any, library: Any) -> None:
    server.bidirectional(RPC, accepting([]))
    sizes = [10, AT_ONCE_BYTES + 1, 5 << 20, 10, 6 << 20, 3 << 20, 3 << 20]
    requests = [library.AcquireBookRequest(title="x" * size) for size in sizes]
    found = await outcomes_of(client, requests)
    assert [outcome.error is not None for outcome in found] == [size > 4 << 20 for size in sizes]
    with pytest.raises(Invalid, match="too large"):
        found[2].result()
    assert len(server.calls) == 3, "each of the two ended one, and was known by it"


@pytest.mark.parametrize("error", [Unauthenticated(), Unimplemented("no streams here")])
async def test_a_stream_that_is_refused_refuses_every_command(
    client: Any, server: Any, library: Any, error: CeqsError
) -> None:
    server.bidirectional(RPC, error)
    async with client.stream() as stream:
        answers = [await stream.lend_book(request) for request in books(library, 3)]
        found = [await answer for answer in answers]
        assert {type(outcome.error) for outcome in found} == {type(error)}
        with pytest.raises(type(error)):
            await stream.lend_book(library.LendBookRequest())


async def test_the_token_of_what_was_accepted_is_remembered(client: Any, server: Any, library: Any) -> None:
    server.bidirectional(RPC, accepting([]))
    client.token = encode_token({"other": 3})
    await outcomes_of(client, books(library, 200))
    assert decode_token(client.token) == {"other": 3, "l": 200}


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


async def test_what_the_requests_raise_is_raised_after_the_outcomes_before_it(
    client: Any, server: Any, library: Any
) -> None:
    async def requests() -> AsyncIterator[Any]:
        for request in books(library, 5):
            yield request
        raise ValueError("no more")

    server.bidirectional(RPC, accepting([]))
    outcomes = client.execute_many(requests())
    for _ in range(5):
        assert (await anext(outcomes)).response
    with pytest.raises(ValueError, match="no more"):
        await anext(outcomes)


async def test_outcomes_are_given_while_the_requests_still_come(client: Any, server: Any, library: Any) -> None:
    server.bidirectional(RPC, accepting([]))
    seen = asyncio.Event()

    async def requests() -> AsyncIterator[Any]:
        yield library.LendBookRequest()
        await seen.wait()
        yield library.LendBookRequest()

    count = 0
    async for _ in client.execute_many(requests()):
        count += 1
        seen.set()
    assert count == 2


async def test_a_request_of_another_context_is_refused(client: Any, library: Any) -> None:
    with pytest.raises(TypeError, match=r"library\.v1\.GetBookRequest is no command"):
        await outcomes_of(client, [library.GetBookRequest()])


async def test_a_stream_is_used_inside_async_with_only(client: Any, library: Any) -> None:
    with pytest.raises(RuntimeError, match="async with"):
        await client.stream().lend_book(library.LendBookRequest())
