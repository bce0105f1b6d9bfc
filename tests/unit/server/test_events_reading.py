"""EventsService.Read over a real socket."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from tests.unit.server.recorded import append, collect, moment, private

from ceqs.errors import Invalid
from ceqs.log import splice
from ceqs.server import _pages
from ceqs.v1 import events_pb2
from ceqs.v1.events_pb2 import SCOPE_PRIVATE, EventFilter, ReadRequest, ReadResponse


async def test_reading_gives_stored_events_in_order_and_then_the_marker(served: Any) -> None:
    await append(served, *"abc")
    await append(served, "a", public=True)
    messages = await collect(private(served, "Read"))
    events = [event for message in messages for event in message.events]
    assert [event.position for event in events] == [1, 2, 3, 4]
    assert [event.public_position for event in events] == [0, 0, 0, 1]
    assert served.AccountOpened.FromString(events[1].payload).account_id == "b"
    assert not messages[-1].events
    assert messages[-1].caught_up.position == 4
    assert messages[-1].caught_up.log_id == served.log.log_id
    assert messages[-1].caught_up.HasField("time")


async def test_reading_an_empty_log_gives_the_marker(served: Any) -> None:
    for request, metadata in (
        (ReadRequest(), {}),
        (ReadRequest(scope=SCOPE_PRIVATE), {"ceqs_key": served.key}),
    ):
        (marker,) = await collect(served.events("Read", request, **metadata))
        assert marker.HasField("caught_up")
        assert (marker.caught_up.position, marker.caught_up.log_id) == (0, served.log.log_id)


@pytest.mark.parametrize("scope", [events_pb2.SCOPE_UNSPECIFIED, events_pb2.SCOPE_PUBLIC])
async def test_strangers_read_public_events_by_public_positions(served: Any, scope: Any) -> None:
    await append(served, *"abc")
    await append(served, *"ab", public=True)
    await append(served, "d")
    for after, expected in ((0, [1, 2]), (1, [2]), (2, [])):
        messages = await collect(served.events("Read", ReadRequest(scope=scope, after=after)))
        assert [event.public_position for message in messages for event in message.events] == expected
        assert messages[-1].caught_up.position == 2


async def test_reading_filters_by_types_and_tags(served: Any) -> None:
    await append(served, *"abab")
    await append(served, "a", public=True)

    async def positions(**chosen: Any) -> list[int]:
        messages = await collect(private(served, "Read", filter=EventFilter(**chosen)))
        assert messages[-1].caught_up.position == 5
        return [event.position for message in messages for event in message.events]

    assert await positions(tags=["account:a"]) == [1, 3, 5]
    assert await positions(types=["bank.v1.AccountOpened"]) == [1, 2, 3, 4]
    assert await positions(types=["bank.v1.AccountOpened"], tags=["account:b"]) == [2, 4]
    assert await positions(tags=["account:a", "account:b"]) == []


async def test_reading_stops_at_the_limit(served: Any) -> None:
    await append(served, *"ababab")
    messages = await collect(private(served, "Read", after=1, limit=2, filter=EventFilter(tags=["account:b"])))
    assert [event.position for message in messages for event in message.events] == [2, 4]
    assert messages[-1].caught_up.position == 4


@pytest.mark.parametrize(("backwards", "expected"), [(False, [2, 4]), (True, [6, 4])])
async def test_reading_what_follows_from_a_command_stops_at_the_limit_and_says_where(
    served: Any, backwards: bool, expected: list[int]
) -> None:
    for number in range(6):
        request = served.DepositRequest(account_id="a", amount=1)
        await served.send("Deposit", request, ceqs_correlation_id="odd" if number % 2 else "even")
    chosen = {"correlation_ids": ["odd"], "backwards": backwards}
    messages = await collect(private(served, "Read", limit=2, **chosen))
    assert [event.position for message in messages for event in message.events] == expected
    assert messages[-1].caught_up.position == expected[-1]
    messages = await collect(private(served, "Read", **chosen))
    assert sum(len(message.events) for message in messages) == 3


async def test_batches_stay_below_what_clients_take(served: Any) -> None:
    await append(served, *(str(i) for i in range(60)), size=100_000)
    messages = await collect(private(served, "Read"))
    assert sum(len(message.events) for message in messages) == 60
    assert len(messages) > 5
    assert max(message.ByteSize() for message in messages) < 2 * 1024 * 1024


def test_a_batch_is_what_protobuf_would_have_made_of_it() -> None:
    events = [
        events_pb2.RecordedEvent(id="x" * size, position=i + 1)
        for i, size in enumerate([0, 1, 100, 127, 128, 16_384, 300_000])
    ]
    assert splice([event.SerializeToString() for event in events]) == ReadResponse(events=events).SerializeToString()
    assert splice([]) == b""


async def read(served: Any, **fields: Any) -> tuple[list[int], int]:
    """Give the positions that are read, and the marker's."""
    messages = await collect(private(served, "Read", **fields))
    return [event.position for message in messages for event in message.events], messages[-1].caught_up.position


async def test_reading_backwards_gives_the_last_event_first(served: Any) -> None:
    await append(served, *"ababab")
    assert await read(served, backwards=True) == ([6, 5, 4, 3, 2, 1], 1)
    assert await read(served, backwards=True, limit=2) == ([6, 5], 5)
    assert await read(served, backwards=True, before=5, limit=2) == ([4, 3], 3)
    assert await read(served, backwards=True, before=3) == ([2, 1], 1)
    assert await read(served, backwards=True, after=2, before=5) == ([4, 3], 3)
    assert await read(served, backwards=True, filter=EventFilter(tags=["account:a"])) == ([5, 3, 1], 1)
    assert await read(served, backwards=True, filter=EventFilter(tags=["account:a"]), limit=2) == ([5, 3], 3)
    # Where nothing is left, the marker's position stays where the next page would begin.
    assert await read(served, backwards=True, before=1) == ([], 1)
    assert await read(served, backwards=True, after=6) == ([], 7)


async def test_pages_of_a_log_that_is_read_backwards_have_no_gap(served: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_pages, "LIMIT", 3)
    await append(served, *(str(i) for i in range(20)))
    found, before = list[int](), 0
    while before != 1:
        part, before = await read(served, backwards=True, before=before, limit=7)
        found += part
    assert found == list(range(20, 0, -1))


async def test_reading_ends_before_a_position(served: Any) -> None:
    await append(served, *"ababab")
    assert await read(served, before=4) == ([1, 2, 3], 3)
    assert await read(served, after=1, before=4) == ([2, 3], 3)
    assert await read(served, before=100) == ([1, 2, 3, 4, 5, 6], 6)
    assert await read(served, after=4, before=3) == ([], 4)
    assert await read(served, before=4, filter=EventFilter(tags=["account:a"])) == ([1, 3], 3)


async def test_reading_between_times(served: Any) -> None:
    for account in "abcd":
        await append(served, account, public=account in "bd")
        await asyncio.sleep(0.002)
    times = [moment(stored) for stored in (await served.log.read()).events]
    assert await read(served, from_time=times[1]) == ([2, 3, 4], 4)
    assert await read(served, before_time=times[2]) == ([1, 2], 2)
    assert await read(served, from_time=times[1], before_time=times[3]) == ([2, 3], 3)
    assert await read(served, from_time=times[1], before=4, backwards=True) == ([3, 2], 2)
    assert await read(served, from_time=Timestamp(seconds=-62_135_596_800)) == ([1, 2, 3, 4], 4)
    assert await read(served, from_time=Timestamp(seconds=253_402_300_799, nanos=999_999_999)) == ([], 4)
    # The log counts in microseconds: a time right after one of them is later than it.
    later = Timestamp(seconds=times[1].seconds, nanos=times[1].nanos + 1)
    assert await read(served, from_time=later) == ([3, 4], 4)
    assert await read(served, before_time=later) == ([1, 2], 2)
    public = await collect(served.events("Read", ReadRequest(from_time=times[2])))
    assert [event.public_position for message in public for event in message.events] == [2]


@pytest.mark.parametrize(
    ("rpc", "fields"),
    [
        ("Read", {"from_time": Timestamp(seconds=1), "after": 1}),
        ("Read", {"before_time": Timestamp(seconds=1), "before": 1}),
        ("Read", {"from_time": Timestamp(nanos=-1)}),
        ("Subscribe", {"from_time": Timestamp(seconds=1), "after": 1}),
    ],
)
async def test_two_bounds_in_place_of_one_are_refused(served: Any, refused: Any, rpc: str, fields: Any) -> None:
    await append(served, "a")
    with refused(Invalid) as found:
        await collect(private(served, rpc, **fields))
    assert [v.field for v in found[0].violations] == [next(iter(fields))]
