"""What has no outcome yet is sent again under its id, until it has one or its time is up."""

from __future__ import annotations

import asyncio
import itertools
import time
from typing import Any

import pytest
from tests.unit.client.streams import RPC, accepted, accepting, answer, books, commands_of, outcomes_of, refused

from ceqs.client._unanswered import IN_FLIGHT
from ceqs.errors import Expired, Overloaded, Unavailable
from ceqs.testing import eventually
from ceqs.v1.commands_pb2 import Command, CommandOutcome


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
    assert 0.4 <= time.monotonic() - began < 5, "the timeout of the client"
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
