"""A state whose history is longer than one read gives: what fails on the way is said, and nobody waits in vain."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import asyncpg
import grpc.aio
import pytest
from google.rpc import status_pb2

from ceqs.contract import new_id
from ceqs.errors import from_status
from ceqs.log import Entry, Log, NewEvent, Slice, open_log
from ceqs.queries import States
from ceqs.server import Served, Server, ServerSettings

EVENTS = 6_000
QUERY, COMMAND = "/bank.v1.BankQueriesService/GetAccount", "/bank.v1.BankCommandsService/Withdraw"


class Read:
    """A log that tells of every read, and lets something happen before it."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self.reads = 0
        self.before: Callable[[int], Awaitable[object]] | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)

    async def read(self, **asked: Any) -> Slice:
        self.reads += 1
        if self.before:
            await self.before(self.reads)
        return await self._log.read(**asked)


@pytest.fixture
async def log(url: str, name: str, bank: Any) -> AsyncIterator[Read]:
    """The log of an account with a long history."""
    opened = await open_log(url, name)
    payload = bank.MoneyDeposited(account_id="a", amount=1).SerializeToString()
    for _ in range(0, EVENTS, 1000):
        events = (
            NewEvent(id=new_id(), type="bank.v1.MoneyDeposited", payload=payload, tags=("account:a",))
            for _ in range(1000)
        )
        await opened.append(Entry(command_id=new_id(), events=tuple(events)))
    yield Read(opened)
    await opened.close()


@pytest.fixture
async def channel(bank: Any, log: Read) -> AsyncIterator[grpc.aio.Channel]:
    """A connection to a server that has just started: it knows no state."""
    served = Served(bank.make_context(), log, {"Total": object()})  # type: ignore[dict-item]  # log enough
    server = Server([served], ServerSettings(grace=5))
    await server.start()
    async with grpc.aio.insecure_channel(server.address) as channel:
        yield channel
    await server.stop()


async def call(channel: grpc.aio.Channel, path: str, request: Any, timeout: float = 30) -> bytes:
    method: Any = channel.unary_unary(path)
    answer: bytes = await method(request.SerializeToString(), timeout=timeout)
    return answer


async def asked(channel: grpc.aio.Channel, bank: Any, timeout: float = 30) -> int:
    answer = await call(channel, QUERY, bank.GetAccountRequest(account_id="a"), timeout)
    balance: int = bank.GetAccountResponse.FromString(answer).account.balance
    return balance


@pytest.mark.parametrize("url", ["postgres"], indirect=True)
@pytest.mark.parametrize("path", [QUERY, COMMAND])
async def test_a_database_that_fails_in_the_middle_is_unavailable_and_asked_again(
    bank: Any, log: Read, channel: grpc.aio.Channel, postgres: str, path: str
) -> None:
    killer = await asyncpg.connect(postgres)

    async def end(reads: int) -> None:
        if reads == 3:
            await killer.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'ceqs'"
            )

    log.before = end
    request = (
        bank.GetAccountRequest(account_id="a") if path == QUERY else bank.WithdrawRequest(account_id="a", amount=1)
    )
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call(channel, path, request)
    details: Any = dict(caught.value.trailing_metadata())["grpc-status-details-bin"]
    error = from_status(status_pb2.Status.FromString(details))
    assert (caught.value.code(), error.reason) == (grpc.StatusCode.UNAVAILABLE, "LOG_UNAVAILABLE")
    assert error.retry_after is not None
    assert log.reads == 3
    log.before = None
    await call(channel, path, request)
    assert await asked(channel, bank) == EVENTS - (path == COMMAND)
    await killer.close()


async def test_what_takes_longer_than_its_deadline_is_given_up(bank: Any, log: Read, channel: grpc.aio.Channel) -> None:
    log.before = lambda _: asyncio.sleep(0.3)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await asked(channel, bank, timeout=0.5)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    given_up = log.reads
    await asyncio.sleep(0.7)
    assert log.reads <= given_up + 1, "nobody reads on for whom nobody waits"
    log.before = None
    assert await asked(channel, bank) == EVENTS


async def test_others_have_their_turn_while_a_long_history_is_folded(bank: Any, log: Read) -> None:
    context = bank.make_context()
    rpc = context.contract.command_of(bank.WithdrawRequest())
    boundary = context.boundary(rpc, bank.WithdrawRequest(account_id="a", amount=1))
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    beside = asyncio.create_task(others())
    known = await States(context, log).load(boundary)
    beside.cancel()
    assert known.events == EVENTS
    assert turns >= EVENTS // 1000 - 1, "one at least between two reads"
