"""Tokens of other contexts."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection
from typing import Any

import pytest

from ceqs.contract import decode_token
from ceqs.errors import Behind, Expired, Unavailable
from ceqs.queries import Answers, Around, Hearing, Hops, QueryCall


class FakeHandler:
    """A handler that stands where the test says."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.passed = 0
        self.patience: list[float] = []
        self._moved = asyncio.Event()

    def move(self, position: int) -> None:
        self.passed = position
        self._moved.set()

    async def reach(self, position: int, timeout: float) -> None:
        self.patience.append(timeout)
        try:
            async with asyncio.timeout(timeout):
                while self.passed < position:
                    self._moved.clear()
                    await self._moved.wait()
        except TimeoutError:
            raise Behind(f"{self.name} has passed position {self.passed}") from None


class FakeSource:
    """A context whose public position is a tenth of its own."""

    def __init__(self) -> None:
        self.asked: list[tuple[dict[str, int], list[str]]] = []
        self.known = {"orders log"}
        self.error: Exception | None = None
        self.then: Exception | None = None
        """What comes after the error; the error again where it is None."""

    async def public_position(self, token: str, asked: Collection[str], timeout: float) -> int | None:
        positions = decode_token(token)
        self.asked.append((positions, list(asked)))
        if error := self.error:
            self.error = self.then or error
            raise error
        return max((at // 10 for log, at in positions.items() if log in self.known), default=None)


@pytest.fixture
def orders() -> FakeSource:
    return FakeSource()


@pytest.fixture
def delivery() -> FakeHandler:
    return FakeHandler("DeliverOrders")


@pytest.fixture
def hops(asking: Any, orders: FakeSource, delivery: FakeHandler) -> Hops:
    return Hops("bank", asking.log, Around(heard={"orders": Hearing(orders, [delivery])}))


async def deposit(asking: Any, count: int) -> None:
    for _ in range(count):
        await asking.record(asking.bank.MoneyDeposited(account_id="a", amount=1))


async def test_a_token_of_another_context_is_waited_for_until_its_outcome_is_recorded_here(
    asking: Any, hops: Hops, delivery: FakeHandler
) -> None:
    waiting = asyncio.ensure_future(hops.arrived({"orders log": 50}, 10))
    await deposit(asking, 2)
    delivery.move(4)
    await asyncio.sleep(0.01)
    assert not waiting.done()
    await deposit(asking, 1)
    delivery.move(5)
    assert await asyncio.wait_for(waiting, 30) == 3


async def test_what_a_context_makes_of_its_own_events_is_waited_for_too(
    asking: Any, orders: FakeSource, delivery: FakeHandler
) -> None:
    process = FakeHandler("FulfilOrders")
    hops = Hops("bank", asking.log, Around(heard={"orders": Hearing(orders, [delivery])}, reactors=[process]))
    delivery.move(5)
    await deposit(asking, 1)
    waiting = asyncio.ensure_future(hops.arrived({"orders log": 50}, 10))
    await asyncio.sleep(0.01)
    assert not waiting.done(), "the process has not heard of the first yet"
    await deposit(asking, 1)
    process.move(1)
    await asyncio.sleep(0.01)
    assert not waiting.done(), "what it led to leads on"
    process.move(2)
    assert await asyncio.wait_for(waiting, 30) == 2


async def test_what_has_arrived_is_not_asked_for_again(
    asking: Any, hops: Hops, orders: FakeSource, delivery: FakeHandler
) -> None:
    delivery.move(9)
    await deposit(asking, 2)
    for position in (50, 50, 40, 60, 55):
        assert await hops.arrived({"orders log": position}, 1) == 2
    assert [token["orders log"] for token, _ in orders.asked] == [50, 60]


async def test_a_log_that_nobody_around_knows_is_no_concern(hops: Hops, orders: FakeSource) -> None:
    for _ in range(3):
        assert await hops.arrived({"strange": 50}, 1) == 0
    assert len(orders.asked) == 1
    assert orders.asked[0] == ({"strange": 50}, ["bank"])


async def test_who_is_behind_is_named(hops: Hops) -> None:
    with pytest.raises(Behind, match="DeliverOrders has passed position 0"):
        await hops.arrived({"orders log": 50}, 0.2)


async def test_who_was_behind_in_another_context_is_named_when_there_is_no_time_to_ask_again(
    hops: Hops, orders: FakeSource
) -> None:
    orders.error = Behind("PublishOrders has passed position 4")
    orders.then = Expired("orders has not said in time")
    with pytest.raises(Behind, match="PublishOrders has passed position 4"):
        await hops.arrived({"orders log": 50}, 10)
    assert len(orders.asked) == 2
    orders.error = Behind("PublishOrders has passed position 4")
    orders.then = None
    began = time.monotonic()
    with pytest.raises(Behind, match="PublishOrders has passed position 4"):
        await hops.arrived({"orders log": 50}, 0.2)
    assert 0.1 < time.monotonic() - began < 5
    assert len(orders.asked) > 3, "as long as there is time, it may still arrive"


async def test_whoever_has_no_time_is_told_so_and_not_that_a_context_is_down(hops: Hops, orders: FakeSource) -> None:
    with pytest.raises(Expired, match="no time is left to ask orders what the token means"):
        await hops.arrived({"orders log": 50}, 0.01)
    assert not orders.asked


async def test_a_context_says_who_is_behind_while_whoever_asks_has_time_to_pass_it_on(asking: Any) -> None:
    publisher = FakeHandler("PublishBank")
    hops = Hops("bank", asking.log, Around([publisher]))
    await deposit(asking, 1)
    with pytest.raises(Behind, match="PublishBank has passed position 0"):
        await hops.public({asking.log.log_id: 1}, 0.4)
    assert 0 < publisher.patience[0] <= 0.2
    with pytest.raises(Behind, match="the log of bank ends at 1, 1 before 2"):
        await hops.public({asking.log.log_id: 2}, 0.1)


async def test_a_context_that_cannot_be_asked_fails_the_query_rather_than_make_it_stale(
    hops: Hops, orders: FakeSource
) -> None:
    orders.error = Unavailable("down")
    with pytest.raises(Unavailable):
        await hops.arrived({"orders log": 50}, 1)


async def test_whoever_waits_for_the_answer_is_not_asked(hops: Hops, orders: FakeSource) -> None:
    assert await hops.arrived({"orders log": 50}, 1, asked=["orders"]) == 0
    assert not orders.asked


async def test_what_a_token_says_is_public_when_every_publisher_has_passed_it(asking: Any) -> None:
    publishers = [FakeHandler("one"), FakeHandler("other")]
    hops = Hops("bank", asking.log, Around(publishers))
    assert await hops.public({"strange": 1}, 1) is None
    waiting = asyncio.ensure_future(hops.public({asking.log.log_id: 2}, 10))
    await deposit(asking, 2)
    publishers[0].move(2)
    await asyncio.sleep(0.01)
    assert not waiting.done()
    publishers[1].move(2)
    head = await asyncio.wait_for(waiting, 30)
    assert head is not None
    assert (head.log_id, head.public_position) == (asking.log.log_id, 0)


async def test_a_query_waits_for_what_a_token_of_another_context_has_led_to(
    asking: Any, hops: Hops, delivery: FakeHandler
) -> None:
    answers: Any = Answers(asking.context, asking.log, asking.states, {"Total": asking.model}, hops=hops)
    request, call = asking.bank.GetBalanceRequest(account_id="a"), QueryCall(at_least={"orders log": 10})
    asked = asyncio.ensure_future(answers.answer(asking.rpc("GetBalance"), request, call))
    total = asyncio.ensure_future(answers.answer(asking.rpc("GetTotal"), asking.bank.GetTotalRequest(), call))
    await asyncio.sleep(0.01)
    await deposit(asking, 1)
    delivery.move(1)
    assert (await asyncio.wait_for(asked, 30)).response.balance == 1
    await asyncio.sleep(0.01)
    assert not total.done()
    asking.model.move(1, 1)
    assert (await asyncio.wait_for(total, 30)).response.total == 1
