"""Aggregators: several queries at once, and an answer that says of each part how old it is, or why it is missing."""

from __future__ import annotations

import asyncio
import datetime as dt
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from ceqs.client import Services
from ceqs.contract import Moment, decode_token, encode_token
from ceqs.errors import Behind, Misconfigured, Rejected, Unavailable
from ceqs.log import Log
from ceqs.model import Asked
from ceqs.queries import Answers, QueryCall, States
from ceqs.server import Served, Server, ServerSettings
from ceqs.v1.answers_pb2 import Age

Gather = Callable[[Any, Any], Awaitable[Any]]


@pytest.fixture
def gather(asking: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Answer GetMotto by a function of the request and of what it gathers by."""

    async def gather(by: Gather, call: QueryCall | None = None) -> Any:
        monkeypatch.setitem(asking.context._methods, asking.rpc("GetMotto").path, by)
        return await asking.ask("GetMotto", call)

    return gather


def answered(bank: Any, motto: str) -> Asked[Any]:
    return Asked(bank.GetMottoResponse(motto=motto), Age(lag_events=3))


async def test_parts_are_asked_at_once_and_each_tells_its_age(asking: Any, gather: Any) -> None:
    bank = asking.bank
    first = await asking.record(bank.MoneyDeposited(account_id="a", amount=5))
    asking.model.move(1, 5)
    asking.model.log_id, asking.model.recorded_at = asking.log.log_id, dt.datetime(2010, 12, 1, tzinfo=dt.UTC)
    last = await asking.record(bank.MoneyDeposited(account_id="a", amount=5))
    meeting = asyncio.Barrier(2)

    async def meet(asked: Awaitable[Any]) -> Any:
        async with asyncio.timeout(5):
            await meeting.wait()
        return await asked

    async def by(request: Any, ctx: Any) -> Any:
        account = ctx.part("account", meet(ctx.ask.get_account(bank.GetAccountRequest(account_id="a"))))
        total = ctx.part("total", meet(ctx.ask.get_total(bank.GetTotalRequest())))
        return bank.GetMottoResponse(motto=f"{(await account).account.balance} of {(await total).total}")

    answer = await gather(by)
    assert answer.response.motto == "10 of 5"
    parts = answer.response.parts
    assert (parts["account"].age.token, parts["account"].age.lag_events) == (last.receipt.token, 0)
    assert (parts["total"].age.token, parts["total"].age.lag_events) == (first.receipt.token, 1)
    assert answer.age is not None
    assert answer.age.token == first.receipt.token, "the whole is as old as its oldest part"
    assert answer.age.lag_events == 1
    assert answer.age.recorded_at == parts["total"].age.recorded_at


async def test_states_are_of_one_moment_though_the_log_moves_on(asking: Any, gather: Any) -> None:
    bank = asking.bank
    await asking.record(bank.MoneyDeposited(account_id="a", amount=1), bank.MoneyDeposited(account_id="b", amount=1))

    async def by(request: Any, ctx: Any) -> Any:
        balances = []
        for account_id in ("a", "b"):
            asked = ctx.part(account_id, ctx.ask.get_account(bank.GetAccountRequest(account_id=account_id)))
            balances.append((await asked).account.balance)
            # Both at once: an answer with one of them would be of no moment at all.
            both = (bank.MoneyDeposited(account_id="a", amount=9), bank.MoneyDeposited(account_id="b", amount=9))
            await asking.record(*both)
        return bank.GetMottoResponse(motto=str(balances))

    assert (await gather(by)).response.motto == "[1, 1]"
    assert (await gather(by)).response.motto == "[19, 19]"


async def test_an_optional_part_may_be_late_or_fail_and_the_answer_says_why(asking: Any, gather: Any) -> None:
    bank = asking.bank
    released = asyncio.Event()

    async def late() -> Asked[Any]:
        await released.wait()
        return answered(bank, "late")

    async def failing() -> Asked[Any]:
        raise Unavailable("inventory is down")

    async def by(request: Any, ctx: Any) -> Any:
        nothing = ctx.optional("late", late(), within=0.02)
        fallback = ctx.optional("failing", failing(), fallback=bank.GetMottoResponse(motto="older"))
        ctx.optional("forgotten", late())
        return bank.GetMottoResponse(motto=f"{await nothing} {(await fallback).motto}")

    began = time.monotonic()
    answer = await gather(by)
    assert time.monotonic() - began < 5
    assert answer.response.motto == "None older"
    parts = answer.response.parts
    assert (parts["late"].missing, parts["late"].fallback) == ("late was not answered within 0.02 s", False)
    assert (parts["failing"].missing, parts["failing"].fallback) == ("inventory is down", True)
    assert parts["forgotten"].missing == "nobody waited for it"
    assert not any(part.HasField("age") for part in parts.values())
    assert answer.age is None


async def test_without_a_part_that_is_needed_there_is_no_answer_and_nothing_goes_on(asking: Any, gather: Any) -> None:
    bank = asking.bank
    ended: list[str] = []

    async def long() -> Asked[Any]:
        try:
            await asyncio.sleep(60)
        finally:
            ended.append("long")
        return answered(bank, "")

    async def refused() -> Asked[Any]:
        raise Rejected("NO", "not today")

    async def by(request: Any, ctx: Any) -> Any:
        ctx.optional("long", long())
        await asyncio.sleep(0)
        await ctx.part("needed", refused())

    with pytest.raises(Rejected, match="not today"):
        await gather(by)
    assert ended == ["long"]

    async def slow(request: Any, ctx: Any) -> Any:
        await ctx.part("needed", long(), within=0.02)

    with pytest.raises(Unavailable, match=r"needed was not answered within 0\.02 s"):
        await gather(slow)


async def test_a_part_has_no_longer_than_the_call(asking: Any, gather: Any) -> None:
    async def long() -> Asked[Any]:
        await asyncio.sleep(60)
        raise AssertionError

    async def by(request: Any, ctx: Any) -> Any:
        return await ctx.part("needed", long(), within=30)

    with pytest.raises(Unavailable, match="needed was not answered within"):
        await gather(by, QueryCall(expires=time.monotonic() + 0.05))


async def test_every_part_has_what_the_caller_wrote(asking: Any, gather: Any) -> None:
    bank = asking.bank
    await asking.record(bank.MoneyDeposited(account_id="a", amount=5))

    async def by(request: Any, ctx: Any) -> Any:
        return bank.GetMottoResponse(motto=str((await ctx.part("t", ctx.ask.get_total(bank.GetTotalRequest()))).total))

    call = QueryCall(at_least={asking.log.log_id: 1}, expires=time.monotonic() + 0.3)
    with pytest.raises(Behind):
        await gather(by, call)
    asking.model.move(1, 5)
    assert (await gather(by, QueryCall(at_least={asking.log.log_id: 1}))).response.motto == "5"


async def test_as_of_a_moment_the_own_parts_are_of_that_moment(asking: Any, gather: Any) -> None:
    bank = asking.bank
    first = await asking.record(bank.MoneyDeposited(account_id="a", amount=5))
    await asking.record(bank.MoneyDeposited(account_id="a", amount=5))

    async def by(request: Any, ctx: Any) -> Any:
        asked = ctx.part("account", ctx.ask.get_account(bank.GetAccountRequest(account_id="a")))
        return bank.GetMottoResponse(motto=str((await asked).account.balance))

    as_of: Moment = decode_token(first.receipt.token)
    assert (await gather(by, QueryCall(as_of=as_of))).response.motto == "5"


async def test_two_parts_of_one_name_are_refused(asking: Any, gather: Any) -> None:
    async def nothing() -> Asked[Any]:
        return answered(asking.bank, "")

    async def by(request: Any, ctx: Any) -> Any:
        ctx.part("same", nothing())
        ctx.part("same", nothing())

    with pytest.raises(Misconfigured, match="two parts are named 'same'"):
        await gather(by)


@pytest.fixture
async def other(bank: Any, log: Log, model: Any) -> AsyncIterator[Server]:
    """Another service, over the network."""
    server = Server([Served(bank.make_context(), log, {"Total": model})], ServerSettings(grace=1))
    await server.start()
    yield server
    await server.stop()


async def test_other_services_are_asked_for_what_the_caller_wrote(
    asking: Any, gather: Any, other: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    bank = asking.bank
    services = Services({"bank": other.address})
    asking.answers = Answers(
        asking.context, asking.log, States(asking.context, asking.log), {"Total": asking.model}, services=services
    )
    await asking.record(bank.MoneyDeposited(account_id="a", amount=5))

    async def by(request: Any, ctx: Any) -> Any:
        client = ctx.service(bank.BankClient)
        assert client.token == encode_token({asking.log.log_id: 1})
        asked = ctx.part("there", client.get_account(bank.GetAccountRequest(account_id="a")))
        return bank.GetMottoResponse(motto=str((await asked).account.balance))

    answer = await gather(by, QueryCall(at_least={asking.log.log_id: 1}))
    assert answer.response.motto == "5"
    assert answer.response.parts["there"].age.token
    await services.close()


async def test_as_of_a_moment_other_services_are_asked_as_of_its_time(asking: Any, gather: Any, other: Server) -> None:
    bank = asking.bank
    services = Services({"bank": other.address})
    asking.answers = Answers(
        asking.context, asking.log, States(asking.context, asking.log), {"Total": asking.model}, services=services
    )
    before = dt.datetime.now(dt.UTC)
    await asyncio.sleep(0.002)
    first = await asking.record(bank.MoneyDeposited(account_id="a", amount=5))
    await asyncio.sleep(0.002)
    between = dt.datetime.now(dt.UTC)
    await asking.record(bank.MoneyDeposited(account_id="a", amount=5))

    async def by(request: Any, ctx: Any) -> Any:
        asked = ctx.optional("there", ctx.service(bank.BankClient).get_account(bank.GetAccountRequest(account_id="a")))
        found = await asked
        return bank.GetMottoResponse(motto=str(found.account.balance) if found else "nothing")

    token: Moment = decode_token(first.receipt.token)
    for moment, motto in ((token, "5"), (between, "5"), (before, "nothing"), (None, "10")):
        answer = await gather(by, QueryCall(as_of=moment))
        assert answer.response.motto == motto
    await services.close()


async def test_a_service_that_the_settings_do_not_know_is_unavailable(asking: Any, gather: Any) -> None:
    asking.answers = Answers(
        asking.context, asking.log, asking.states, {"Total": asking.model}, services=Services({"other": "127.0.0.1:1"})
    )

    async def by(request: Any, ctx: Any) -> Any:
        ctx.service(asking.bank.BankClient)

    with pytest.raises(Unavailable, match="nobody knows here where bank is"):
        await gather(by)
