"""How much of a stream of commands is under way, for how long, and what becomes of it when it ends."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any

import grpc
import grpc.aio
import pytest
from google.rpc import error_details_pb2
from google.rpc.code_pb2 import DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED, UNIMPLEMENTED

from ceqs.errors import Unavailable
from ceqs.log import Appended
from ceqs.server import CommandExecutor, Served, Server, ServerSettings, _command_stream
from ceqs.server._command_stream import BOUND
from ceqs.testing import eventually
from ceqs.v1.answers_pb2 import Receipt
from ceqs.v1.commands_pb2 import CommandOutcome


@pytest.fixture
async def slow(context: Any, watched: Any) -> AsyncIterator[Any]:
    """A server whose log answers when `watched.open` is set, and a channel to it."""
    models: dict[str, Any] = {"Total": None}
    server = Server([Served(context, watched, models)], ServerSettings(grace=5))
    await server.start()
    async with grpc.aio.insecure_channel(server.address) as channel:
        yield server, channel
    watched.open.set()
    await server.stop()


def balances(bank: Any, outcomes: Iterable[CommandOutcome]) -> list[int]:
    return [bank.DepositResponse.FromString(outcome.response).balance for outcome in outcomes]


async def test_a_command_whose_time_is_over_appends_nothing(stream_to: Any, slow: Any, bank: Any, watched: Any) -> None:
    stream = stream_to(slow[1])
    watched.open.clear()
    first = await stream.send("Deposit", {"account_id": "a", "amount": 1})
    await eventually(lambda: watched.batches)
    late = stream.command("Deposit", {"account_id": "a", "amount": 2})
    late.timeout.nanos = 50_000_000
    patient = stream.command("Deposit", {"account_id": "a", "amount": 4})
    patient.timeout.seconds = 60
    sent = time.monotonic()
    await stream.write(late, patient)
    await eventually(lambda: time.monotonic() > sent + 0.2)
    watched.open.set()
    found = await stream.read(3)
    assert found[late.number].status.code == DEADLINE_EXCEEDED
    assert balances(bank, (found[first], found[patient.number])) == [1, 5]


async def test_the_deadline_of_the_stream_is_every_commands(stream_to: Any, slow: Any, bank: Any, watched: Any) -> None:
    stream = stream_to(slow[1], timeout=2)
    watched.open.clear()
    await stream.send("Deposit", {"account_id": "a", "amount": 1})
    await eventually(lambda: watched.batches)
    over = time.monotonic() + 2
    late = stream.command("Deposit", {"account_id": "a", "amount": 2})
    late.timeout.seconds = 60
    await stream.write(late)
    with pytest.raises(grpc.aio.AioRpcError) as ended:
        await stream.call.read()
    assert ended.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    # The server's clock began a little later than the client's.
    await eventually(lambda: time.monotonic() > over)
    watched.open.set()
    after = await stream_to(slow[1]).outcome("Deposit", {"account_id": "a", "amount": 4})
    assert balances(bank, [after]) == [5]


async def test_what_waits_behind_an_ended_stream_is_not_begun(
    stream_to: Any, slow: Any, bank: Any, watched: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended: list[object] = []
    run = _command_stream._Stream.run

    async def noted(self: Any, stop: Any) -> None:
        try:
            await run(self, stop)
        finally:
            ended.append(self)

    monkeypatch.setattr(_command_stream._Stream, "run", noted)
    stream = stream_to(slow[1])
    watched.open.clear()
    await stream.send("Deposit", {"account_id": "a", "amount": 1})
    await eventually(lambda: watched.batches)
    await stream.write(*(stream.command("Deposit", {"account_id": "a", "amount": 1}) for _ in range(50)))
    probe = stream_to(slow[1])
    await stream.write(stream.command("NoSuch", b""))
    assert (await stream.read(1))[52].status.code == UNIMPLEMENTED, "the server has read them all"
    stream.call.cancel()
    # The client knows it before the server does.
    await eventually(lambda: ended)
    number = await probe.send("ReserveName", {"name": "n"})
    watched.open.set()
    assert (await probe.read(1))[number].HasField("receipt")
    assert len(watched.entries) <= 2


async def test_a_message_of_more_commands_than_the_bound_is_answered_whole(stream: Any) -> None:
    count = 3 * BOUND + 7
    await stream.write(*(stream.command("NoSuch", b"") for _ in range(count)))
    assert sorted(await stream.read(count)) == list(range(1, count + 1))


async def test_outcomes_that_are_ready_together_travel_together(stream: Any) -> None:
    await stream.write(*(stream.command("ReserveName", {"name": str(i)}) for i in range(100)))
    await stream.read(100)
    assert stream.messages <= 4


def accept(submitted: list[Any], size: int, answered: Callable[[], bool]) -> Any:
    """An executor's `queue` that accepts at once, with receipts of a size, or never."""

    def queue(_: CommandExecutor, command: Any, *, hurry: bool) -> None:
        assert hurry
        call = command.says(None)
        submitted.append(call.command_id)
        if answered():
            receipt = Receipt(command_id=call.command_id, token="t" * size)
            command.set_result(Appended.of(receipt.SerializeToString()))

    return queue


async def fill(stream: Any, commands: int, most: int) -> int:
    """Write messages of so many commands for as long as they are taken within a second; give how many were."""
    taken = 0

    async def write() -> None:
        nonlocal taken
        while taken < most:
            await stream.write(*(stream.command("ReserveName", {"name": "n" * 500}) for _ in range(commands)))
            taken += commands

    writing = asyncio.create_task(write())
    before = -1
    while before < taken < most:
        before = taken
        await asyncio.wait([writing], timeout=1)
    stream.writing = writing
    return taken


async def test_a_stream_is_not_read_while_its_bound_of_commands_is_unanswered(
    stream: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    submitted: list[str] = []
    monkeypatch.setattr(CommandExecutor, "queue", accept(submitted, 10, lambda: False))
    most = 100_000
    assert await fill(stream, 100, most) < most, "gRPC holds the client"
    await eventually(lambda: len(submitted) >= BOUND)
    assert len(submitted) == BOUND


async def test_a_client_that_takes_no_outcomes_is_not_read(stream: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    submitted: list[str] = []
    monkeypatch.setattr(CommandExecutor, "queue", accept(submitted, 10_000, lambda: True))
    most = 100_000
    assert await fill(stream, 100, most) < most, "gRPC holds the client"
    held = len(submitted)
    assert held * 10_000 < 32 * 1024 * 1024
    await stream.read(held)
    await eventually(lambda: len(submitted) > held)


async def test_a_stream_with_commands_under_way_waits_for_room_and_is_not_refused(
    stream: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(CommandExecutor, "is_full", lambda self, _: len(self._optimistic.waiting) >= 3)
    await stream.write(*(stream.command("Deposit", {"account_id": "a", "amount": 1}) for _ in range(50)))
    outcomes = await stream.read(50)
    assert {one.WhichOneof("result") for one in outcomes.values()} == {"receipt"}


async def test_overload_is_told_command_by_command_with_when_to_try_again(
    stream: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(CommandExecutor, "is_full", lambda *_: True)
        overloaded = await stream.outcome("ReserveName", {"name": "n"})
    assert overloaded.status.code == RESOURCE_EXHAUSTED
    assert any(detail.Is(error_details_pb2.RetryInfo.DESCRIPTOR) for detail in overloaded.status.details)
    assert (await stream.outcome("ReserveName", {"name": "n"})).HasField("receipt")


async def test_a_stopping_server_answers_what_it_has_read_and_sends_the_client_elsewhere(
    stream_to: Any, slow: Any, bank: Any, watched: Any, refused: Any
) -> None:
    server, channel = slow
    stream = stream_to(channel)
    watched.open.clear()
    await stream.write(*(stream.command("Deposit", {"account_id": "a", "amount": 1}) for _ in range(3)))
    await eventually(lambda: watched.batches)
    await stream.write(stream.command("Deposit", {"account_id": "a", "amount": 1}), stream.command("NoSuch", b""))
    assert list(await stream.read(1)) == [5], "the server has read the fourth"
    stopping = asyncio.create_task(server.stop())
    await eventually(lambda: server._stop.asked)
    watched.open.set()
    found = await stream.read(4)
    assert balances(bank, (found[n] for n in range(1, 5))) == [1, 2, 3, 4]
    with refused(Unavailable) as errors:
        await stream.call.read()
    assert errors[0].retry_after, "the client comes again"
    await stopping


async def test_a_stopping_server_does_not_wait_for_an_idle_stream(
    stream_to: Any, slow: Any, bank: Any, refused: Any
) -> None:
    server, channel = slow
    stream = stream_to(channel)
    await stream.outcome("Deposit", {"account_id": "a", "amount": 1})
    began = time.monotonic()
    await server.stop()
    assert time.monotonic() - began < 5, "its grace"
    with refused(Unavailable):
        await stream.call.read()


async def test_a_client_that_is_done_writing_gets_the_rest_and_a_good_end(stream: Any) -> None:
    await stream.send("Deposit", {"account_id": "a", "amount": 1})
    await stream.call.done_writing()
    assert (await stream.read(1))[1].HasField("receipt")
    assert await stream.call.read() is grpc.aio.EOF
    assert await stream.call.code() is grpc.StatusCode.OK
