"""What a server serves: each role by itself, on a log that only commands need to write."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from ceqs.errors import Misconfigured
from ceqs.log import Log, open_log, open_reader
from ceqs.server import Role, Served, Server, ServerSettings

KEY = "the key of the bank"
SERVICES = {
    Role.COMMANDS: {"bank.v1.BankCommandsService", "ceqs.v1.AdminService", "ceqs.v1.CommandsService"},
    Role.QUERIES: {"bank.v1.BankQueriesService"},
    Role.EVENTS: {"ceqs.v1.EventsService"},
}


@pytest.fixture
async def written(tmp_path: Path) -> AsyncIterator[Log]:
    """The bank's log in a file, as the process that serves commands has it."""
    log = await open_log(f"sqlite:///{tmp_path / 'bank.db'}", "bank")
    yield log
    await log.close()


@pytest.fixture
def start(bank: Any, context: Any, served: Any, tmp_path: Path, written: Log) -> Any:
    @asynccontextmanager
    async def start(*roles: Role, writing: bool = False) -> AsyncIterator[Any]:
        log = written if writing else await open_reader(f"sqlite:///{tmp_path / 'bank.db'}", "bank")
        server = Server(
            [Served(context, log, {"Total": served.model})], ServerSettings(key=KEY, roles=frozenset(roles))
        )
        try:
            await server.start()
            yield server.address
        finally:
            await server.stop()
            if not writing:
                await log.close()

    return start


@pytest.mark.parametrize("role", list(Role))
async def test_health_tells_of_the_role_and_its_services_and_knows_no_other(start: Any, role: Role) -> None:
    async with start(role, writing=True) as address, grpc.aio.insecure_channel(address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)

        async def answers(service: str) -> bool:
            check = stub.Check(health_pb2.HealthCheckRequest(service=service))
            found: Any = (await asyncio.gather(check, return_exceptions=True))[0]
            if isinstance(found, grpc.aio.AioRpcError):
                return found.code() is not grpc.StatusCode.NOT_FOUND
            return bool(found.status == health_pb2.HealthCheckResponse.SERVING)

        for each in Role:
            for service in (each.value, *SERVICES[each]):
                assert await answers(service) is (each is role), service
        assert await answers("")


async def test_queries_and_events_follow_the_log_by_reading(bank: Any, start: Any) -> None:
    async with (
        start(Role.COMMANDS, writing=True) as commands,
        start(Role.QUERIES) as queries,
        start(Role.EVENTS) as events,
        bank.BankClient(commands, queries=queries, events=events, key=KEY) as client,
    ):
        live = client.watch_account(bank.WatchAccountRequest(account_id="a"))
        recorded = client.events(scope="private")
        assert not (await asyncio.wait_for(anext(live), 30)).message.HasField("account")
        for balance in (5, 10):
            await client.deposit(bank.DepositRequest(account_id="a", amount=5))
            asked = await client.get_account(bank.GetAccountRequest(account_id="a"))
            assert asked.message.account.balance == balance, "what the client wrote is read"
            assert asked.age.lag_events == 0
            assert (await asyncio.wait_for(anext(recorded), 30)).message.amount == 5
            assert (await asyncio.wait_for(anext(live), 30)).message.account.balance == balance
        await recorded.aclose()
        await live.aclose()


async def test_commands_need_a_log_that_is_opened_for_writing(start: Any) -> None:
    with pytest.raises(Misconfigured, match="the log of bank is opened for reading, and commands write it"):
        async with start(Role.COMMANDS, Role.QUERIES):
            pass


async def test_a_server_without_a_role_is_none() -> None:
    with pytest.raises(Misconfigured, match="give it one of commands, queries, events"):
        ServerSettings(roles=frozenset())


async def test_a_role_refuses_what_another_one_serves(start: Any, bank: Any) -> None:
    async with start(Role.QUERIES) as address, grpc.aio.insecure_channel(address) as channel:
        method: Any = channel.unary_unary("/bank.v1.BankCommandsService/Deposit")
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await method(bank.DepositRequest(account_id="a", amount=1).SerializeToString())
        assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED
