"""Answers as of an earlier moment."""

from __future__ import annotations

import datetime as dt
import random
from typing import Any

import pytest

from ceqs.contract import decode_token
from ceqs.errors import Behind, Invalid, NotFound, OutOfRange, Unimplemented
from ceqs.log import Log, open_log
from ceqs.queries import QueryCall

BEGIN = dt.datetime(2010, 12, 1, 8, 26, tzinfo=dt.UTC)


class Clock:
    now = BEGIN


@pytest.fixture
async def log() -> Any:
    opened = await open_log("memory:", "bank", clock=lambda: Clock.now)
    yield opened
    await opened.close()


async def deposits(asking: Any, count: int, account_id: str = "a") -> None:
    """Record deposits of 1, an hour apart."""
    for _ in range(count):
        Clock.now += dt.timedelta(hours=1)
        await asking.record(asking.bank.MoneyDeposited(account_id=account_id, amount=1))


def at(log: Log, position: int) -> QueryCall:
    return QueryCall(as_of={log.log_id: position})


async def test_a_state_is_answered_as_of_any_position(asking: Any, log: Log) -> None:
    dice = random.Random(5)
    balances = [{"a": 0, "b": 0}]
    for _ in range(60):
        account_id, amount = dice.choice("ab"), dice.randint(1, 9)
        await asking.record(asking.bank.MoneyDeposited(account_id=account_id, amount=amount))
        balances.append({**balances[-1], account_id: balances[-1][account_id] + amount})
        if dice.random() < 0.2:
            await asking.ask("GetBalance", account_id=account_id)
    for _ in range(100):
        position, account_id = dice.randint(0, 60), dice.choice("ab")
        answer = await asking.ask("GetBalance", at(log, position), account_id=account_id)
        assert answer.response.balance == balances[position][account_id]
        assert decode_token(answer.age.token) == {log.log_id: position}
        assert answer.age.lag_events == 60 - position


async def test_a_history_is_read_once_up_to_the_moment(asking: Any, log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    await deposits(asking, 3)
    reads: list[dict[str, Any]] = []
    read = log.read

    async def counted(**options: Any) -> Any:
        reads.append(options)
        return await read(**options)

    monkeypatch.setattr(log, "read", counted)
    answer = await asking.ask("GetBalance", at(log, 2), account_id="a")
    assert answer.response.balance == 2
    assert len([one for one in reads if "query" in one]) == 1


async def test_the_past_leaves_the_present_as_it_is(asking: Any, log: Log) -> None:
    await deposits(asking, 3)
    await asking.ask("GetBalance", at(log, 2), account_id="a")
    assert (await asking.ask("GetBalance", account_id="a")).response.balance == 3
    await asking.ask("GetBalance", at(log, 1), account_id="a")
    folds = asking.context.folders["Account"].methods["bank.v1.MoneyDeposited"].__self__
    before = folds.folded
    assert (await asking.ask("GetBalance", account_id="a")).response.balance == 3
    assert folds.folded == before


async def test_folding_the_past_begins_with_what_is_at_hand(asking: Any, log: Log) -> None:
    await deposits(asking, 5)
    await asking.ask("GetBalance", account_id="a")
    await deposits(asking, 3)
    folds = asking.context.folders["Account"].methods["bank.v1.MoneyDeposited"].__self__
    before = folds.folded
    assert (await asking.ask("GetBalance", at(log, 7), account_id="a")).response.balance == 7
    assert folds.folded - before == 2


async def test_a_long_history_is_folded_to_where_it_is_wanted(asking: Any, log: Log) -> None:
    for _ in range(25):
        await asking.record(*(asking.bank.MoneyDeposited(account_id="a", amount=1) for _ in range(100)))
    assert (await asking.ask("GetBalance", at(log, 2345), account_id="a")).response.balance == 2345


async def test_a_moment_may_be_a_time(asking: Any, log: Log) -> None:
    Clock.now = BEGIN
    await deposits(asking, 3)
    for hours, balance in ((0.5, 0), (1, 1), (1.5, 1), (2, 2), (99, 3)):
        call = QueryCall(as_of=BEGIN + dt.timedelta(hours=hours))
        answer = await asking.ask("GetBalance", call, account_id="a")
        assert answer.response.balance == balance
        if balance:
            assert answer.age.recorded_at.ToDatetime(dt.UTC) == BEGIN + dt.timedelta(hours=balance)
        else:
            assert not answer.age.HasField("recorded_at")


async def test_what_was_not_recorded_then_is_not_found(asking: Any, log: Log) -> None:
    await deposits(asking, 2, "b")
    await deposits(asking, 1)
    with pytest.raises(NotFound, match="account:a"):
        await asking.ask("GetAccount", at(log, 2), account_id="a")
    assert (await asking.ask("GetAccount", at(log, 3), account_id="a")).response.account.balance == 1


async def test_a_moment_to_come_is_out_of_range(asking: Any, log: Log) -> None:
    await deposits(asking, 1)
    with pytest.raises(OutOfRange, match="ends at 1, before 2") as refused:
        await asking.ask("GetBalance", at(log, 2), account_id="a")
    assert refused.value.metadata == {"log_id": log.log_id, "position": "1"}
    tomorrow = dt.datetime.now(dt.UTC) + dt.timedelta(days=1)
    with pytest.raises(OutOfRange, match="still to come"):
        await asking.ask("GetBalance", QueryCall(as_of=tomorrow), account_id="a")
    with pytest.raises(OutOfRange, match="still to come"):
        await asking.ask("GetBalance", QueryCall(as_of=dt.datetime.max.replace(tzinfo=dt.UTC)), account_id="a")


async def test_what_a_reader_is_still_to_see_is_waited_for_first(asking: Any, log: Log) -> None:
    with pytest.raises(Behind):
        await asking.ask(
            "GetBalance", QueryCall(as_of={log.log_id: 1}, at_least={log.log_id: 1}, expires=0.0), account_id="a"
        )


async def test_a_token_of_another_log_is_no_moment(asking: Any) -> None:
    with pytest.raises(Invalid, match="ceqs-as-of: is no token of the log of bank"):
        await asking.ask("GetBalance", QueryCall(as_of={"another": 1}), account_id="a")


async def test_a_live_query_of_the_past_answers_once_and_ends(asking: Any, log: Log) -> None:
    await deposits(asking, 3)
    request = asking.bank.WatchAccountRequest(account_id="a")
    answers = [one async for one in asking.answers.watch(asking.rpc("WatchAccount"), request, at(log, 2))]
    assert [one.response.account.balance for one in answers] == [2]
    assert decode_token(answers[0].response.age.token) == {log.log_id: 2}


async def test_without_scratch_the_past_of_a_projection_is_unimplemented(asking: Any, log: Log) -> None:
    with pytest.raises(Unimplemented, match="set scratch_url"):
        await asking.ask("GetTotal", at(log, 0))
