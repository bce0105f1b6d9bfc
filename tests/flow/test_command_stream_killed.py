"""Servers are killed in the middle of a stream of commands: each is done once, and each boundary in order."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

COMMANDS = 3000
ACCOUNTS = 30
KILLS = 3


@pytest.mark.timeout(300)
async def test_killed_servers_lose_nothing_and_do_nothing_twice(servers: Any) -> None:
    bank = servers.bank

    def deposits() -> Iterator[tuple[str, Any]]:
        for i in range(COMMANDS):
            yield f"deposit-{i}", bank.DepositRequest(account_id=f"a{i % ACCOUNTS}", amount=1 + i // ACCOUNTS)

    killed = 0
    balances: dict[str, list[int]] = {}
    async with servers.serving(2) as serving:
        client = await serving.client(timeout=120)
        number = 0
        async for outcome in client.execute_many(deposits()):
            assert outcome.command_id == f"deposit-{number}"
            balances.setdefault(outcome.request.account_id, []).append(outcome.result().balance)
            number += 1
            if killed < KILLS and number % (COMMANDS // (KILLS + 1)) == 1:
                # More than what is left of this message is under way.
                for pid in serving.connected():
                    os.kill(pid, signal.SIGKILL)
                    killed += 1
    assert killed >= KILLS
    events = await servers.recorded()
    assert set(Counter(event.command_id for event in events).values()) == {1}
    assert {event.command_id for event in events} == {f"deposit-{i}" for i in range(COMMANDS)}
    in_order = [sum(range(1, n + 2)) for n in range(COMMANDS // ACCOUNTS)]
    assert balances == {f"a{a}": in_order for a in range(ACCOUNTS)}
