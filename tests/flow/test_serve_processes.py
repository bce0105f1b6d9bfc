"""`ceqs serve --processes`: several processes behind one port, which live and end together."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import time
from pathlib import Path
from typing import Any

import pytest

from ceqs.testing import eventually


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


async def test_processes_share_one_port_and_each_says_that_it_serves(servers: Any) -> None:
    async with servers.serving(3) as serving:
        assert {said["address"] for said in serving.said} == {serving.address}
        assert sorted(said["pid"] for said in serving.said) == sorted(serving.pids)
        assert len(set(serving.pids)) == 3
        clients = await serving.clients_of_each()
        request = servers.bank.DepositRequest(account_id="a", amount=1)
        answers = [await client.deposit(request) for client in clients]
        assert [answer.balance for answer in answers] == list(range(1, 1 + len(clients)))
        assert await serving.ends() == 0


async def test_a_process_that_dies_is_started_again_and_that_is_logged(servers: Any) -> None:
    async with servers.serving(2) as serving:
        killed, other = serving.pids
        os.kill(killed, signal.SIGKILL)
        await serving.serves(3)
        assert other in serving.pids
        assert killed not in serving.pids
        assert {said["address"] for said in serving.said} == {serving.address}
        assert "ended (killed by SIGKILL); starting again" in serving.logged
        await serving.clients_of_each()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_all_processes_in_order(servers: Any, number: signal.Signals) -> None:
    acknowledged: list[str] = []

    async def deposit(client: Any, name: str) -> None:
        for i in range(1_000_000):
            command_id = f"{name}-{i}"
            await client.deposit(
                servers.bank.DepositRequest(account_id=name, amount=1), command_id=command_id, timeout=2
            )
            acknowledged.append(command_id)

    async with servers.serving(2, CEQS_GRACE="60") as serving:
        pids = serving.pids
        clients = await serving.clients_of_each()
        working = [asyncio.create_task(deposit(client, f"w{i}")) for i, client in enumerate(clients)]
        watching = clients[0].events(scope="private")
        await anext(watching)
        await eventually(lambda: len(acknowledged) > 50)
        began = time.monotonic()
        assert await serving.ends(number) == 0
        assert time.monotonic() - began < 60, "nothing needed its grace"
        assert all(map(gone, pids))
        assert "ended" not in serving.logged, "each process ended by itself, and none was started again"
        await asyncio.gather(*working, return_exceptions=True)
        await watching.aclose()
    assert {event.command_id for event in await servers.recorded()}.issuperset(acknowledged)


async def test_no_process_outlives_the_one_that_was_started(servers: Any) -> None:
    async with servers.serving(2) as serving:
        pids = serving.pids
        assert await serving.ends(signal.SIGKILL) == -signal.SIGKILL
        await eventually(lambda: all(map(gone, pids)))


async def refused(servers: Any, address: str, **env: str) -> str:
    with pytest.raises(AssertionError) as caught:
        async with servers.serving(2, address, **env):
            pass
    return str(caught.value)


@pytest.mark.parametrize("shares", [False, True])
async def test_the_port_of_another_program_is_refused_even_where_that_would_share_it(
    servers: Any, shares: bool
) -> None:
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, int(shares))
        other.bind(("127.0.0.1", 0))
        other.listen()
        address = f"127.0.0.1:{other.getsockname()[1]}"
        assert f"cannot listen on {address}: address already in use" in await refused(servers, address)


async def test_processes_of_another_start_are_not_joined(servers: Any) -> None:
    async with servers.serving(2) as serving:
        assert "address already in use" in await refused(servers, serving.address)
        assert "address already in use" in await refused(servers, serving.address, CEQS_PROCESSES="1")


async def test_the_port_is_free_again_at_once(servers: Any) -> None:
    async with servers.serving(2) as serving:
        await serving.clients_of_each()
        address = serving.address
    async with servers.serving(2, address) as serving:
        assert serving.address == address
