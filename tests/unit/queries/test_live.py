"""Live queries."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from typing import Any

import pytest

from ceqs.errors import LogUnavailable
from ceqs.queries import QueryCall, Stop
from ceqs.testing import eventually

ASKED: list[tuple[str, dict[str, Any]]] = [("WatchAccount", {"account_id": "a"}), ("WatchTotal", {})]


@pytest.fixture
async def watch(asking: Any) -> AsyncIterator[Any]:
    streams: list[Any] = []

    def open_stream(name: str, **fields: Any) -> Any:
        request = getattr(asking.bank, f"{name}Request")(**fields)
        stream = asking.answers.watch(asking.rpc(name), request, QueryCall())
        streams.append(stream)
        return stream

    yield open_stream
    for stream in streams:
        await stream.aclose()


async def next_of(stream: Any) -> Any:
    return (await asyncio.wait_for(anext(stream), 30)).response


async def test_a_live_state_answers_at_once_and_whenever_it_changes(asking: Any, watch: Any) -> None:
    await asking.record(asking.bank.AccountOpened(account_id="a"))
    stream = watch("WatchAccount", account_id="a")
    first = await next_of(stream)
    assert first.account.open
    assert first.age.token
    for balance in (5, 10):
        appended = await asking.record(asking.bank.MoneyDeposited(account_id="a", amount=5))
        later = await next_of(stream)
        assert later.account.balance == balance
        assert later.age.token == appended.receipt.token


async def test_a_live_state_of_which_nothing_is_recorded_yet_answers_with_its_age(asking: Any, watch: Any) -> None:
    stream = watch("WatchAccount", account_id="a")
    first = await next_of(stream)
    assert not first.HasField("account")
    assert first.HasField("age")
    await asking.record(asking.bank.AccountOpened(account_id="a"))
    assert (await next_of(stream)).account.open


async def test_a_live_state_is_silent_about_what_does_not_change_it(asking: Any, watch: Any) -> None:
    await asking.record(asking.bank.AccountOpened(account_id="a"))
    stream = watch("WatchAccount", account_id="a")
    await next_of(stream)
    coming = asyncio.ensure_future(next_of(stream))
    await asking.record(asking.bank.AccountOpened(account_id="b"))
    await asking.record(asking.bank.AccountOpened(account_id="a"))
    await asyncio.sleep(0.05)
    assert not coming.done()
    await asking.record(asking.bank.MoneyDeposited(account_id="a", amount=1))
    assert (await coming).account.balance == 1


async def test_a_slow_reader_gets_the_newest_answer_only(asking: Any, watch: Any) -> None:
    await asking.record(asking.bank.AccountOpened(account_id="a"))
    stream = watch("WatchAccount", account_id="a")
    await next_of(stream)
    for _ in range(100):
        await asking.record(asking.bank.MoneyDeposited(account_id="a", amount=1))
    assert (await next_of(stream)).account.balance == 100


async def test_a_live_projection_answers_whenever_its_answer_changes(asking: Any, watch: Any) -> None:
    stream = watch("WatchTotal")
    assert (await next_of(stream)).total == 0
    coming = asyncio.ensure_future(next_of(stream))
    await asyncio.sleep(0)
    asking.model.move(1, 0)
    await asyncio.sleep(0.02)
    assert not coming.done()
    asking.model.move(2, 9)
    assert (await coming).total == 9


async def test_a_thousand_who_ask_the_same_cost_one_evaluation_per_change(asking: Any, watch: Any) -> None:
    streams = [watch("WatchAccount", account_id="a") for _ in range(1000)]
    for stream in streams:
        await next_of(stream)
    coming = [asyncio.ensure_future(next_of(stream)) for stream in streams]
    await asyncio.sleep(0.05)
    asked = evaluations(asking)
    for balance in (1, 2, 3):
        await asking.record(asking.bank.MoneyDeposited(account_id="a", amount=1))
        answers = await asyncio.wait_for(asyncio.gather(*coming), 30)
        assert {one.account.balance for one in answers} == {balance}
        coming = [asyncio.ensure_future(next_of(stream)) for stream in streams]
        await asyncio.sleep(0)
    assert len(asked) == 3
    for one in coming:
        one.cancel()
    await asyncio.gather(*coming, return_exceptions=True)


async def test_what_changes_one_state_evaluates_no_query_of_another(asking: Any, watch: Any) -> None:
    stream = watch("WatchAccount", account_id="a")
    await next_of(stream)
    coming = asyncio.ensure_future(next_of(stream))
    await asyncio.sleep(0.05)
    asked = evaluations(asking)
    for _ in range(20):
        await asking.record(asking.bank.MoneyDeposited(account_id="b", amount=1))
        await asyncio.sleep(0)
    await asking.record(asking.bank.MoneyDeposited(account_id="a", amount=1))
    assert (await coming).account.balance == 1
    assert len(asked) == 1


async def test_no_reader_misses_the_last_state_and_none_goes_back(asking: Any, watch: Any) -> None:
    dice = random.Random(3)

    async def read(pause: float) -> list[int]:
        seen: list[int] = []
        await asyncio.sleep(pause)
        stream = watch("WatchAccount", account_id="a")
        while not seen or seen[-1] < 200:
            seen.append((await next_of(stream)).account.balance)
            await asyncio.sleep(dice.choice((0, 0, 0.001, 0.01)))
        return seen

    readers = [asyncio.ensure_future(read(dice.uniform(0, 0.1))) for _ in range(30)]
    for _ in range(200):
        await asking.record(asking.bank.MoneyDeposited(account_id=dice.choice("bc"), amount=1))
        await asking.record(asking.bank.MoneyDeposited(account_id="a", amount=1))
        await asyncio.sleep(dice.choice((0, 0, 0.001)))
    for seen in await asyncio.wait_for(asyncio.gather(*readers), 30):
        assert seen == sorted(set(seen))
        assert seen[-1] == 200


async def test_whoever_leaves_last_leaves_nothing_behind(asking: Any, watch: Any) -> None:
    before = asyncio.all_tasks()
    streams = [watch(name, **fields) for name, fields in ASKED * 2]
    for stream in streams:
        await next_of(stream)
    coming = [asyncio.ensure_future(next_of(stream)) for stream in streams]
    await asyncio.sleep(0.01)
    for one, stream in zip(coming, streams, strict=True):
        one.cancel()
        await asyncio.gather(one, return_exceptions=True)
        await stream.aclose()
    await eventually(lambda: asyncio.all_tasks() <= before)
    assert not asking.answers._live._asked
    assert not asking.answers._changes._marks


async def test_whoever_watches_is_told_when_the_log_is_lost(
    asking: Any, watch: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def lost(after: int, timeout: float) -> int:
        await asyncio.sleep(0.01)
        raise LogUnavailable("lost")

    monkeypatch.setattr(asking.log, "wait", lost)
    streams = [watch("WatchAccount", account_id=account_id) for account_id in "ab"]
    for stream in streams:
        await next_of(stream)
    await asyncio.sleep(0.05)
    for stream in streams:
        with pytest.raises(LogUnavailable):
            await next_of(stream)
    monkeypatch.undo()
    again = watch("WatchAccount", account_id="a")
    await next_of(again)
    await asking.record(asking.bank.MoneyDeposited(account_id="a", amount=1))
    assert (await next_of(again)).account.balance == 1


def evaluations(asking: Any) -> list[Any]:
    """Count the evaluations from now on."""
    asked: list[Any] = []
    evaluate = asking.answers._evaluate

    async def counted(*arguments: Any) -> Any:
        asked.append(arguments)
        return await evaluate(*arguments)

    asking.answers._evaluate = counted
    return asked


async def test_a_live_query_ends_when_it_is_asked_to(asking: Any, watch: Any) -> None:
    ending = []
    for name, fields in ASKED:
        stream = watch(name, **fields)
        await anext(stream)
        ending.append(asyncio.ensure_future(anext(stream, None)))
    await asyncio.sleep(0.01)
    asking.stop.ask()
    assert await asyncio.wait_for(asyncio.gather(*ending), 30) == [None, None]


async def test_waiting_gives_the_error_of_its_work() -> None:
    async def fail() -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await Stop().or_result(fail())


async def test_work_is_cancelled_when_the_stop_comes_first() -> None:
    stop, cancelled = Stop(), asyncio.Event()

    async def work() -> int:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.set()
            raise
        return 1

    stop.ask()
    assert await stop.or_result(work()) is None
    assert cancelled.is_set()
