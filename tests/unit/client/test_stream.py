"""Streams of commands: each has an outcome of its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from tests.unit.client.streams import RPC, accepted, accepting, answer, books, commands_of, outcomes_of, refused

from ceqs.client._unanswered import AT_ONCE_BYTES
from ceqs.contract import decode_token, encode_token
from ceqs.errors import CeqsError, Invalid, Rejected, Unauthenticated, Unimplemented
from ceqs.v1.commands_pb2 import Command, CommandOutcome


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
