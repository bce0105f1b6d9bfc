"""Live queries."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from ceqs.queries import QueryCall, Stop


@pytest.fixture
async def watch(asking: Any) -> AsyncIterator[Any]:
    streams: list[Any] = []

    def open_stream(name: str, stop: Stop | None = None, **fields: Any) -> Any:
        request = getattr(asking.bank, f"{name}Request")(**fields)
        stream = asking.answers.watch(asking.rpc(name), request, QueryCall(), stop or Stop())
        streams.append(stream)
        return stream

    yield open_stream
    for stream in streams:
        await stream.aclose()


async def next_of(stream: Any) -> Any:
    return (await asyncio.wait_for(anext(stream), 5)).response


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


async def test_a_live_query_ends_when_it_is_asked_to(asking: Any, watch: Any) -> None:
    for name, fields in (("WatchAccount", {"account_id": "a"}), ("WatchTotal", {})):
        stop = Stop()
        stream = watch(name, stop, **fields)
        await anext(stream)
        ending = asyncio.ensure_future(anext(stream, None))
        await asyncio.sleep(0)
        stop.ask()
        assert await asyncio.wait_for(ending, 5) is None


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
