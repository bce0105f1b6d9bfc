"""Commands: retried under one id, within one timeout, where that can help and never where it cannot."""

from __future__ import annotations

import asyncio
import time
import uuid
from typing import Any

import grpc
import pytest

from ceqs.contract import decode_token, encode_token
from ceqs.errors import (
    Behind,
    CeqsError,
    Conflict,
    Denied,
    DuplicateCommand,
    Expired,
    Internal,
    Invalid,
    LogUnavailable,
    NotFound,
    Overloaded,
    Rejected,
    Unauthenticated,
    Unavailable,
    Unimplemented,
    Violation,
)
from ceqs.v1.answers_pb2 import Receipt


async def test_a_command_carries_an_id_the_key_the_actor_and_a_deadline(client: Any, server: Any, library: Any) -> None:
    async def answer(call: Any) -> Any:
        assert 0 < call.context.time_remaining() <= 4.0
        return library.LendBookResponse(receipt=Receipt(command_id=call.command_id, position=7))

    server.unary("LendBook", answer)
    response = await client.lend_book(library.LendBookRequest(book_id="b1"))
    (call,) = server.calls
    assert library.LendBookRequest.FromString(call.request).book_id == "b1"
    assert uuid.UUID(call.command_id).version == 7
    assert (call.metadata["ceqs-key"], call.metadata["ceqs-actor"]) == ("sesame", "ann")
    assert (response.receipt.command_id, response.receipt.position) == (call.command_id, 7)


async def test_each_command_has_an_id_of_its_own(client: Any, server: Any, library: Any) -> None:
    server.unary("LendBook", library.LendBookResponse())
    for _ in range(3):
        await client.lend_book(library.LendBookRequest())
    assert len({call.command_id for call in server.calls}) == 3


async def test_the_caller_may_name_the_id(client: Any, server: Any, library: Any) -> None:
    server.unary("AcquireBook", library.AcquireBookResponse())
    await client.acquire_book(library.AcquireBookRequest(), command_id="mine")
    await client.acquire_book(library.AcquireBookRequest(request_id="in the request"))
    await client.acquire_book(library.AcquireBookRequest(request_id="in the request"), command_id="mine")
    assert [call.command_id for call in server.calls] == ["mine", "in the request", "mine"]


async def test_a_lost_reply_is_asked_for_again_under_the_same_id(
    client: Any, server: Any, library: Any, wire: Any
) -> None:
    done: dict[str, Any] = {}

    async def lose(call: Any) -> Any:
        done[call.command_id] = library.LendBookResponse(receipt=Receipt(command_id=call.command_id, position=1))
        wire.cut()
        await call.ended.wait()  # the reply finds no connection

    async def give(call: Any) -> Any:
        return done[call.command_id]

    server.unary("LendBook", lose, lose, give)
    response = await client.lend_book(library.LendBookRequest())
    assert len(server.calls) == 3
    assert list(done) == [response.receipt.command_id], "done once"
    assert wire.connections == 3


@pytest.mark.parametrize("error", [Unavailable(), LogUnavailable(), Behind(), Conflict(), Overloaded(), Expired()])
async def test_what_may_pass_is_tried_again_under_the_same_id(
    client: Any, server: Any, library: Any, error: CeqsError
) -> None:
    error.retry_after = 0.01 if error.retry_after is not None else None
    server.unary("LendBook", error, error, library.LendBookResponse())
    await client.lend_book(library.LendBookRequest())
    assert len(server.calls) == 3
    assert len({call.command_id for call in server.calls}) == 1


@pytest.mark.parametrize("code", [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.ABORTED, grpc.StatusCode.CANCELLED])
async def test_a_status_without_details_that_may_pass_is_tried_again(
    client: Any, server: Any, library: Any, code: grpc.StatusCode
) -> None:
    async def fail(call: Any) -> None:
        await call.context.abort(code, "plain")

    server.unary("LendBook", fail, library.LendBookResponse())
    await client.lend_book(library.LendBookRequest())
    assert len(server.calls) == 2


@pytest.mark.parametrize(
    "error",
    [
        Rejected("NOT_THERE", "book b1 is lent", metadata={"book": "b1"}),
        Invalid(violations=[Violation("book_id", "is required")]),
        DuplicateCommand(),
        NotFound("what?"),
        Unauthenticated(),
        Denied(),
        Unimplemented(),
        Internal("error 17", metadata={"error_id": "17"}),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_a_refusal_is_raised_at_once(client: Any, server: Any, library: Any, error: CeqsError) -> None:
    server.unary("LendBook", error)
    with pytest.raises(CeqsError) as raised:
        await client.lend_book(library.LendBookRequest())
    assert type(raised.value) is type(error)
    assert (raised.value.reason, raised.value.message) == (error.reason, error.message)
    assert raised.value.metadata == ({} if isinstance(error, Invalid) else error.metadata)
    assert getattr(raised.value, "violations", ()) == getattr(error, "violations", ())
    assert len(server.calls) == 1


async def test_an_error_that_leaves_it_open_tells_the_command_id(client: Any, server: Any, library: Any) -> None:
    server.unary("LendBook", Unavailable())
    with pytest.raises(Unavailable) as unknown:
        await client.lend_book(library.LendBookRequest(), command_id="c1", timeout=0.2)
    assert unknown.value.__notes__ == ["It may have been done. Send it again with command_id='c1': it is done once."]
    assert unknown.value.__cause__ is None
    server.unary("LendBook", Rejected("NOT_THERE"))
    with pytest.raises(Rejected) as known:
        await client.lend_book(library.LendBookRequest(), command_id="c1")
    assert not hasattr(known.value, "__notes__")


async def test_an_unknown_rpc_is_unimplemented(client: Any, library: Any) -> None:
    with pytest.raises(Unimplemented):
        await client.lend_book(library.LendBookRequest())


async def test_exhaustion_is_tried_again_only_where_the_server_says_when(
    client: Any, server: Any, library: Any
) -> None:
    async def exhausted(call: Any) -> None:
        await call.context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "no more today")

    server.unary("LendBook", exhausted)
    with pytest.raises(Overloaded, match="no more today"):
        await client.lend_book(library.LendBookRequest())
    assert len(server.calls) == 1


async def test_a_message_beyond_the_size_limit_is_invalid_and_not_sent_again(
    client: Any, server: Any, library: Any
) -> None:
    server.unary("AcquireBook", library.AcquireBookResponse())
    with pytest.raises(Invalid, match="too large"):
        await client.acquire_book(library.AcquireBookRequest(title="x" * (5 << 20)))
    assert server.calls == []


async def test_the_delay_that_the_server_asks_for_is_kept(client: Any, server: Any, library: Any) -> None:
    busy = Overloaded()
    busy.retry_after = 0.4
    server.unary("LendBook", busy, library.LendBookResponse())
    started = time.monotonic()
    await client.lend_book(library.LendBookRequest())
    assert time.monotonic() - started >= 0.4


async def test_a_delay_beyond_the_timeout_is_not_waited_for(client: Any, server: Any, library: Any) -> None:
    busy = Overloaded("come back tomorrow")
    busy.retry_after = 86_400
    server.unary("LendBook", busy)
    started = time.monotonic()
    with pytest.raises(Overloaded, match="come back tomorrow") as raised:
        await client.lend_book(library.LendBookRequest())
    assert raised.value.retry_after == 86_400
    assert time.monotonic() - started < 5, "its timeout"


async def test_the_timeout_bounds_all_attempts_together(client: Any, server: Any, library: Any) -> None:
    unavailable = Unavailable("not now")
    unavailable.retry_after = 0.05
    server.unary("LendBook", unavailable)
    started = time.monotonic()
    with pytest.raises(Unavailable, match="not now"):
        await client.lend_book(library.LendBookRequest(), timeout=1.5)
    assert time.monotonic() - started < 5, "the timeout of the client"
    assert len(server.calls) > 1
    assert len({call.command_id for call in server.calls}) == 1


async def test_an_attempt_that_hangs_is_given_up_for_another(
    client_type: Any, wire: Any, server: Any, library: Any
) -> None:
    async def hang(call: Any) -> None:
        await asyncio.sleep(60)

    server.unary("LendBook", hang, library.LendBookResponse())
    async with client_type(wire.address, attempt_timeout=0.2) as client:
        await client.lend_book(library.LendBookRequest())
    first, second = server.calls
    assert first.command_id == second.command_id
    await asyncio.wait_for(first.ended.wait(), 5)


async def test_a_server_that_never_answers_expires(client_type: Any, wire: Any, server: Any, library: Any) -> None:
    async def hang(call: Any) -> None:
        await asyncio.sleep(60)

    server.unary("LendBook", hang)
    started = time.monotonic()
    async with client_type(wire.address, timeout=1.2, attempt_timeout=0.5) as client:
        with pytest.raises(Expired, match="no answer came in time"):
            await client.lend_book(library.LendBookRequest())
    assert time.monotonic() - started < 60
    assert 2 <= len(server.calls) <= 3


async def test_the_last_thing_that_was_told_is_the_error(
    client_type: Any, wire: Any, server: Any, library: Any
) -> None:
    async def hang(call: Any) -> None:
        await asyncio.sleep(60)

    server.unary("LendBook", Unavailable("the log is being moved"), hang)
    async with client_type(wire.address, timeout=1.5) as client:
        with pytest.raises(Unavailable, match="the log is being moved"):
            await client.lend_book(library.LendBookRequest())
    assert len(server.calls) == 2


async def test_a_server_that_is_not_there_is_unavailable(
    client_type: Any, wire: Any, server: Any, library: Any
) -> None:
    await wire.stop()
    async with client_type(wire.address, timeout=0.5) as client:
        with pytest.raises(Unavailable):
            await client.lend_book(library.LendBookRequest())


async def test_a_server_that_comes_up_late_is_reached(client_type: Any, wire: Any, server: Any, library: Any) -> None:
    server.unary("LendBook", library.LendBookResponse())
    await wire.stop()
    async with client_type(wire.address, timeout=10) as client:
        sending = asyncio.create_task(client.lend_book(library.LendBookRequest()))
        await asyncio.sleep(0.3)  # long enough for some refused connections; the test holds without them
        await wire.start(wire.port)
        await sending
    assert len(server.calls) == 1


async def test_a_cancelled_command_is_cancelled_at_the_server(client: Any, server: Any, library: Any) -> None:
    reached = asyncio.Event()

    async def hang(call: Any) -> None:
        reached.set()
        await asyncio.sleep(60)

    server.unary("LendBook", hang)
    sending = asyncio.create_task(client.lend_book(library.LendBookRequest()))
    await reached.wait()
    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sending
    await asyncio.wait_for(server.calls[0].ended.wait(), 5)
    assert len(server.calls) == 1


async def test_text_that_a_header_cannot_carry_is_invalid(client: Any, library: Any, client_type: Any) -> None:
    for command_id in ("ünïcode", "line\nbreak", "nul\0"):
        with pytest.raises(Invalid, match="ceqs-command-id: must be printable ASCII"):
            await client.lend_book(library.LendBookRequest(), command_id=command_id)
    with pytest.raises(Invalid, match="ceqs-actor"):
        client_type("127.0.0.1:1", actor="Zoë")


async def test_the_token_of_the_last_command_is_remembered(client: Any, server: Any, library: Any) -> None:
    def receipt(log: str, position: int) -> Any:
        return library.LendBookResponse(receipt=Receipt(token=encode_token({log: position})))

    async def in_a_trailer(call: Any) -> Any:
        call.context.set_trailing_metadata((("ceqs-token", encode_token({"c": 5})),))
        return library.CloseLibraryResponse()

    server.unary("LendBook", receipt("a", 3), receipt("b", 9), receipt("a", 2), Rejected("NOT_THERE"))
    server.unary("CloseLibrary", in_a_trailer)
    assert client.token == ""
    await client.lend_book(library.LendBookRequest())
    assert client.token == encode_token({"a": 3})
    await client.lend_book(library.LendBookRequest())
    await client.lend_book(library.LendBookRequest())
    await client.close_library(library.CloseLibraryRequest())
    with pytest.raises(Rejected):
        await client.lend_book(library.LendBookRequest())
    assert decode_token(client.token) == {"a": 3, "b": 9, "c": 5}


async def test_clients_share_a_channel_that_stays_its_owners(
    client: Any, client_type: Any, server: Any, library: Any, wire: Any
) -> None:
    server.unary("LendBook", library.LendBookResponse())
    async with client_type(client.channel) as guest:
        await guest.lend_book(library.LendBookRequest())
    assert "ceqs-key" not in server.calls[0].metadata
    await client.lend_book(library.LendBookRequest())
    assert wire.connections == 1
