"""What answers of a projection say that folds what another context tells."""

from __future__ import annotations

import asyncio
import datetime as dt
import math
from collections.abc import Collection
from typing import Any

import pytest

from ceqs.contract import decode_token, encode_token, new_id, public_of
from ceqs.errors import Behind, LogUnavailable, OutOfRange
from ceqs.log import Entry, Head, NewEvent, Slice, StoredEvent
from ceqs.queries import Around, Hearing, Hops
from ceqs.queries._folded import ToldLog
from ceqs.v1.events_pb2 import RecordedEvent

START = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)


class FakeTold:
    """A context whose every third event is public, one a second."""

    def __init__(self) -> None:
        self.name, self.log_id = "orders", "log:public"
        self.end = 9
        self.error: Exception | None = None
        self.resolved: list[str] = []

    def _checked(self) -> None:
        if self.error:
            raise self.error

    async def head(self) -> Head:
        self._checked()
        return Head(self.log_id, self.end, self.end)

    async def read(self, *, after: int = 0, limit: int = 1000, until: int | None = None) -> Slice:
        self._checked()
        events = []
        for position in range(after + 1, min(self.end, after + limit) + 1):
            event = RecordedEvent(position=3 * position, public_position=position)
            event.recorded_at.FromDatetime(START + dt.timedelta(seconds=position))
            events.append(StoredEvent(position, position, "", event.SerializeToString()))
        return Slice(events, after + len(events))

    async def position_before(self, time: dt.datetime) -> int:
        return min(self.end, max(0, math.ceil((time - START).total_seconds()) - 1))

    async def counted(self, position: int) -> int:
        return position // 3

    async def public_position(self, token: str, asked: Collection[str], timeout: float) -> int | None:
        self._checked()
        self.resolved.append(token)
        found = decode_token(token)
        return found["log"] // 3 if "log" in found else None


@pytest.fixture
def told() -> FakeTold:
    return FakeTold()


@pytest.fixture
def folded(asking: Any, told: FakeTold) -> ToldLog:
    model = asking.model
    model.log_id, model.position, model.recorded_at = "log", 9, START + dt.timedelta(seconds=9)
    return ToldLog(told, model, asking.log, Hops("bank", asking.log, Around(told={"orders": told})))


async def test_an_answer_is_aged_against_what_the_other_has_told(asking: Any, told: FakeTold, folded: ToldLog) -> None:
    age = (await folded.aged(asking.model)).age
    assert (decode_token(age.token), age.lag_events, age.lag_seconds, age.behind) == ({"log:public": 9}, 0, 0, "")
    told.end = 12
    age = (await folded.aged(asking.model)).age
    assert age.lag_events == 3
    waiting = (dt.datetime.now(dt.UTC) - START).total_seconds() - 10
    assert age.lag_seconds == pytest.approx(waiting, abs=60)


async def test_where_nobody_says_how_far_the_other_is_the_lag_grows_from_when_it_was_known(
    asking: Any, told: FakeTold, folded: ToldLog
) -> None:
    told.error = LogUnavailable("down")
    aged = await folded.aged(asking.model)
    since_then = (dt.datetime.now(dt.UTC) - START).total_seconds() - 9
    assert aged.age.behind == "orders"
    assert aged.age.lag_seconds == pytest.approx(since_then, abs=60)
    assert ("ceqs-behind", "orders") in aged.trailers
    told.error = None
    assert not (await folded.aged(asking.model)).age.behind
    told.error = LogUnavailable("down again")
    one, other = [(await folded.aged(asking.model)).age for _ in range(2)]
    assert 0 < one.lag_seconds < other.lag_seconds < 600, "a moment ago it lacked nothing"
    asking.model.position = 4
    lacking = (await folded.aged(asking.model)).age
    assert (lacking.lag_events, lacking.behind) == (5, "orders")
    assert lacking.lag_seconds > 600


async def test_a_model_of_a_log_that_is_no_more_does_not_pass_for_up_to_date(
    asking: Any, told: FakeTold, folded: ToldLog
) -> None:
    told.log_id = "other:public"
    age = (await folded.aged(asking.model)).age
    assert (age.behind, decode_token(age.token)) == ("orders", {"log:public": 9})


async def test_public_positions_are_known_without_asking_and_those_of_the_log_by_asking_once(
    asking: Any, told: FakeTold, folded: ToldLog
) -> None:
    own = {asking.log.log_id: 5}
    assert await folded.least(own, 1) == 0
    assert await folded.least({"log:public": 8, **own}, 1) == 8
    assert told.resolved == []
    for _ in range(2):
        assert await folded.least({"log": 30, **own}, 1) == 10
    assert told.resolved == [encode_token({"log": 30})]
    assert await folded.least({"strange": 1}, 1) == 0
    told.error = LogUnavailable("down")
    assert await folded.least({"log:public": 8, **own}, 1) == 8


async def test_whoever_subscribes_to_it_too_is_told_by_a_public_position_where_to_be(
    asking: Any, told: FakeTold
) -> None:
    reached: list[int] = []

    class Delivery:
        async def reach(self, position: int, timeout: float) -> None:
            reached.append(position)

    around = Around(heard={"orders": Hearing(told, [Delivery()])}, told={"orders": told})
    assert await Hops("bank", asking.log, around).arrived({"log:public": 4}, 1) == 0
    assert (reached, told.resolved) == ([4], [])


async def test_moments_are_public_positions_positions_of_the_log_times_or_own_moments(
    asking: Any, told: FakeTold, folded: ToldLog
) -> None:
    assert await folded.position_of({"log:public": 7}) == 7
    assert await folded.position_of({"log": 20}) == 6
    assert await folded.position_of(START + dt.timedelta(seconds=4)) == 4
    await asking.record(asking.bank.MoneyDeposited(account_id="a", amount=1))
    assert await folded.position_of({asking.log.log_id: 1}) == 9, "it was recorded just now"
    with pytest.raises(OutOfRange, match="the log of orders ends at 9, before 10"):
        await folded.position_of({"log:public": 10})


async def test_a_public_position_of_the_own_log_is_waited_for_like_any_other(asking: Any) -> None:
    hops, public = Hops("bank", asking.log, Around()), public_of(asking.log.log_id)
    with pytest.raises(Behind, match="the log of bank has 0 public events, not yet 1"):
        await hops.arrived({public: 1}, 0.05)
    waiting = asyncio.ensure_future(hops.arrived({public: 1}, 10))
    await asking.record(asking.bank.MoneyDeposited(account_id="a", amount=1))
    await asyncio.sleep(0.01)
    assert not waiting.done()
    event = asking.bank.AccountAnnounced(account_id="a")
    new = NewEvent(id=new_id(), type="bank.v1.AccountAnnounced", payload=event.SerializeToString(), public=True)
    await asking.log.append(Entry(command_id=new_id(), events=(new,)))
    assert await asyncio.wait_for(waiting, 5) == 2
