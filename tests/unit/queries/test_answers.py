"""Answers, and how old they are."""

from __future__ import annotations

import asyncio
import datetime as dt
import time
from typing import Any

import pytest

from ceqs.contract import decode_token
from ceqs.errors import Behind, Invalid, Misconfigured, NotFound
from ceqs.queries import Answers, QueryCall


async def test_a_state_answers_without_code(asking: Any) -> None:
    await asking.record(asking.bank.AccountOpened(account_id="a"))
    await asking.record(asking.bank.MoneyDeposited(account_id="a", amount=5))
    answer = await asking.ask("GetAccount", account_id="a")
    assert answer.response.account == asking.bank.Account(account_id="a", open=True, balance=5)


async def test_a_state_is_always_answered_as_of_the_head(asking: Any) -> None:
    for balance in range(1, 4):
        appended = await asking.record(asking.bank.MoneyDeposited(account_id="a", amount=1))
        answer = await asking.ask("GetBalance", account_id="a")
        assert answer.response.balance == balance
        assert answer.age.token == appended.receipt.token
        assert answer.age.recorded_at == appended.receipt.recorded_at
        assert answer.age.lag_events == 0
        assert answer.response.age == answer.age


async def test_what_nothing_is_recorded_of_is_not_found(asking: Any) -> None:
    await asking.record(asking.bank.MoneyDeposited(account_id="b", amount=1))
    with pytest.raises(NotFound, match="account:a"):
        await asking.ask("GetAccount", account_id="a")


async def test_what_came_back_to_nothing_is_found(asking: Any) -> None:
    await asking.record(asking.bank.MoneyDeposited(account_id="a", amount=1))
    await asking.record(asking.bank.MoneyWithdrawn(account_id="a", amount=1))
    answer = await asking.ask("GetAccount", account_id="a")
    assert answer.response.account.balance == 0


async def test_a_query_with_code_decides_itself_what_is_found(asking: Any) -> None:
    answer = await asking.ask("GetBalance", account_id="a")
    assert answer.response.balance == 0
    assert not answer.age.HasField("recorded_at")


async def test_a_handler_cannot_change_the_cached_state(asking: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    await asking.record(asking.bank.MoneyDeposited(account_id="a", amount=1))

    async def spoil(request: Any, account: Any) -> Any:
        account.balance += 100
        return asking.bank.GetBalanceResponse(balance=account.balance)

    path = asking.rpc("GetBalance").path
    monkeypatch.setitem(asking.context._methods, path, spoil)
    for _ in range(2):
        assert (await asking.ask("GetBalance", account_id="a")).response.balance == 101
    assert (await asking.ask("GetAccount", account_id="a")).response.account.balance == 1


async def test_a_request_without_a_value_for_the_key_is_invalid(asking: Any) -> None:
    with pytest.raises(Invalid) as refused:
        await asking.ask("GetBalance")
    assert [violation.field for violation in refused.value.violations] == ["account_id"]


async def test_a_state_waits_for_what_the_call_asks_for(asking: Any) -> None:
    asked = asyncio.ensure_future(asking.ask("GetBalance", QueryCall(at_least={asking.log.log_id: 1}), account_id="a"))
    await asyncio.sleep(0)
    assert not asked.done()
    await asking.record(asking.bank.MoneyDeposited(account_id="a", amount=1))
    assert (await asyncio.wait_for(asked, 30)).response.balance == 1


async def test_a_state_that_does_not_get_there_is_behind(asking: Any) -> None:
    call = QueryCall(at_least={asking.log.log_id: 3}, expires=time.monotonic() + 0.15)
    with pytest.raises(Behind, match="position 0, 3 before 3"):
        await asking.ask("GetBalance", call, account_id="a")


async def test_tokens_of_other_logs_are_no_concern(asking: Any) -> None:
    answer = await asking.ask("GetBalance", QueryCall(at_least={"another log": 99}), account_id="a")
    assert answer.response.balance == 0


async def test_a_projection_answers_with_the_age_of_its_snapshot(asking: Any) -> None:
    for _ in range(3):
        await asking.record(asking.bank.MoneyDeposited(account_id="a", amount=1))
    recorded_at = dt.datetime(2011, 12, 9, tzinfo=dt.UTC)
    asking.model.move(1, 1)
    asking.model.log_id, asking.model.recorded_at = asking.log.log_id, recorded_at
    answer = await asking.ask("GetTotal")
    assert answer.response.total == 1
    assert decode_token(answer.age.token) == {asking.log.log_id: 1}
    assert answer.age.recorded_at.ToDatetime(dt.UTC) == recorded_at
    assert answer.age.lag_events == 2
    assert 0 < answer.age.lag_seconds < 60


async def test_a_projection_that_has_caught_up_does_not_lag(asking: Any) -> None:
    await asking.record(asking.bank.MoneyDeposited(account_id="a", amount=1))
    asking.model.move(1, 1)
    answer = await asking.ask("GetTotal")
    assert (answer.age.lag_events, answer.age.lag_seconds, answer.age.parked) == (0, 0, 0)


async def test_the_lag_is_nothing_while_the_log_is_idle_and_grows_while_the_projector_is_dead(asking: Any) -> None:
    await asking.record(asking.bank.MoneyDeposited(account_id="a", amount=1))
    asking.model.move(1, 1)
    for _ in range(2):
        assert (await asking.ask("GetTotal")).age.lag_seconds == 0
        await asyncio.sleep(0.05)
    await asking.record(asking.bank.MoneyDeposited(account_id="a", amount=1))
    lags: list[float] = []
    for _ in range(3):
        await asking.record(asking.bank.MoneyDeposited(account_id="a", amount=1))
        await asyncio.sleep(0.05)
        lags.append((await asking.ask("GetTotal")).age.lag_seconds)
    # It counts from the oldest event that is missing: later ones do not make it young again.
    assert lags == sorted(lags)
    assert 0.15 <= lags[-1] < 60
    asking.model.move(5, 5)
    assert (await asking.ask("GetTotal")).age.lag_seconds == 0


async def test_a_projection_waits_for_what_the_call_asks_for(asking: Any) -> None:
    asked = asyncio.ensure_future(asking.ask("GetTotal", QueryCall(at_least={asking.log.log_id: 2})))
    await asyncio.sleep(0.01)
    assert not asking.model.patience, "a model cannot be where the log is not yet"
    for _ in range(2):
        await asking.record(asking.bank.MoneyDeposited(account_id="a", amount=1))
    asking.model.move(1, 1)
    await asyncio.sleep(0.01)
    assert not asked.done()
    asking.model.move(2, 7)
    assert (await asyncio.wait_for(asked, 30)).response.total == 7


async def test_a_projection_that_does_not_get_there_says_so_before_the_deadline(asking: Any) -> None:
    asking.model.move(1, 1)
    expires = time.monotonic() + 0.3
    with pytest.raises(Behind, match="Total stands at position 1, 4 before 5") as behind:
        await asking.ask("GetTotal", QueryCall(at_least={asking.log.log_id: 5}, expires=expires))
    assert time.monotonic() < expires
    assert behind.value.metadata == {"position": "1", "asked": "5"}
    assert behind.value.retry_after


async def test_an_aggregator_is_asked_as_it_is(asking: Any) -> None:
    answer = await asking.ask("GetMotto")
    assert answer.response.motto == "money is time"
    assert answer.age is None


async def test_an_answer_of_another_type_is_the_handlers_error(asking: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async def wrong(request: Any, ctx: Any) -> Any:
        return request

    monkeypatch.setitem(asking.context._methods, asking.rpc("GetMotto").path, wrong)
    with pytest.raises(Misconfigured, match="GetMottoRequest, not GetMottoResponse"):
        await asking.ask("GetMotto")


async def test_a_projection_without_a_reader_is_refused(asking: Any) -> None:
    with pytest.raises(Misconfigured, match="GetTotal reads the projection Total, which has no reader"):
        Answers(asking.context, asking.log, asking.states, {})
