"""Gatekeepers ask queries, have a deadline, and say what happens while they cannot say."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import structlog

from ceqs.errors import Misconfigured, Rejected, Unavailable
from ceqs.model import Admission, gate

COMMANDS = "/bank.v1.BankCommandsService/"


@pytest.fixture
def guard(context: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Let a function guard a command."""

    def guard(rpc: str, method: Any) -> None:
        monkeypatch.setitem(context._guards, COMMANDS + rpc, method)

    return guard


async def test_it_asks_the_queries_of_its_own_context(served: Any, guard: Any, refused: Any) -> None:
    async def withdraw(request: Any, ctx: Admission[Any]) -> None:
        asked = await ctx.ask.get_account(served.GetAccountRequest(account_id=request.account_id))
        if not asked.found:
            raise Rejected("NOBODY", f"there is no {request.account_id}")
        if asked.message.account.balance < request.amount:
            raise Rejected("POOR", f"{asked.message.account.balance} as of {asked.age.token}")

    guard("Withdraw", withdraw)
    with refused(Rejected) as found:
        await served.send("Withdraw", served.WithdrawRequest(account_id="a", amount=1))
    assert found[0].reason == "NOBODY"
    receipt = (await served.send("Deposit", served.DepositRequest(account_id="a", amount=5))).receipt
    with refused(Rejected) as found:
        await served.send("Withdraw", served.WithdrawRequest(account_id="a", amount=6))
    assert (found[0].reason, found[0].message) == ("POOR", f"5 as of {receipt.token}")
    await served.send("Withdraw", served.WithdrawRequest(account_id="a", amount=5))


@pytest.mark.parametrize("when_down", ["open", "closed"])
@pytest.mark.parametrize("how", ["down", "slow", "refused connection"])
async def test_while_it_cannot_say_it_is_open_or_closed_as_declared(
    served: Any, guard: Any, refused: Any, when_down: Any, how: str
) -> None:
    @gate(within=0.05, when_down=when_down)
    async def deposit(request: Any, ctx: Admission[Any]) -> None:
        if how == "down":
            raise Unavailable("the list is being rebuilt")
        if how == "refused connection":
            raise ConnectionRefusedError("nobody listens there")
        await asyncio.sleep(60)

    guard("Deposit", deposit)
    request = served.DepositRequest(account_id="a", amount=1)
    why = {"down": "the list is being rebuilt", "slow": "it took more than 0.05 s"}.get(how, "nobody listens there")
    with structlog.testing.capture_logs() as logged:
        if when_down == "open":
            call = served.channel.unary_unary(f"{COMMANDS}Deposit")(request.SerializeToString())
            await call
            assert dict(await call.trailing_metadata())["ceqs-gate"] == "open"
        else:
            with refused(Unavailable) as found:
                await served.send("Deposit", request)
            assert found[0].reason == "GATE_CLOSED"
            assert found[0].metadata == {"gate": "closed"}
            assert why in found[0].message
            assert found[0].retry_after
    assert (await served.log.head()).position == (1 if when_down == "open" else 0)
    (entry,) = [one for one in logged if one["event"] == "a gatekeeper cannot say"]
    assert (entry["gate"], entry["error"], entry["rpc"]) == (when_down, why, f"{COMMANDS}Deposit")


async def test_a_refusal_is_one_whatever_the_gate_does_while_down(served: Any, guard: Any, refused: Any) -> None:
    @gate(when_down="open")
    async def deposit(request: Any, ctx: Admission[Any]) -> None:
        raise Rejected("NO")

    guard("Deposit", deposit)
    with refused(Rejected):
        await served.send("Deposit", served.DepositRequest(account_id="a", amount=1))


async def test_a_command_without_a_gate_says_nothing_of_one(served: Any) -> None:
    call = served.channel.unary_unary(f"{COMMANDS}Deposit")(
        served.DepositRequest(account_id="a", amount=1).SerializeToString()
    )
    await call
    assert "ceqs-gate" not in dict(await call.trailing_metadata())


async def test_where_no_queries_are_answered_a_gatekeeper_that_asks_is_told(sender: Any, guard: Any) -> None:
    async def deposit(request: Any, ctx: Admission[Any]) -> None:
        await ctx.ask.get_account(sender.bank.GetAccountRequest(account_id="a"))

    guard("Deposit", deposit)
    with pytest.raises(Misconfigured, match=r"nobody answers /bank\.v1.*/GetAccount to gatekeepers"):
        await sender.send("Deposit", account_id="a", amount=1)
