"""EventsService over a real socket."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest
import structlog.testing
from google.protobuf.timestamp_pb2 import Timestamp

from ceqs.errors import Invalid, NotFound, OutOfRange
from ceqs.log import Entry, NewEvent, open_log, splice
from ceqs.server import Served, Server, ServerSettings, _pages, _ring
from ceqs.testing import eventually
from ceqs.v1 import events_pb2
from ceqs.v1.events_pb2 import SCOPE_PRIVATE, EventFilter, ReadRequest, ReadResponse, RecordedEvent, SubscribeRequest


async def append(served: Any, *accounts: str, public: bool = False, size: int = 0) -> None:
    """Append an event for each account, as one command each."""
    kind = "AccountAnnounced" if public else "AccountOpened"
    entries = [
        Entry(
            command_id=f"{kind}-{(await served.log.head()).position}-{i}",
            events=(
                NewEvent(
                    id=f"00000000-0000-7000-8000-{i:012}",
                    type=f"bank.v1.{kind}",
                    payload=b"x" * size or getattr(served, kind)(account_id=account).SerializeToString(),
                    tags=(f"account:{account}",),
                    public=public,
                ),
            ),
        )
        for i, account in enumerate(accounts)
    ]
    await asyncio.gather(*(served.log.append(entry) for entry in entries))


async def collect(stream: Any) -> list[Any]:
    return [message async for message in stream]


def private(served: Any, rpc: str, **fields: Any) -> Any:
    request = getattr(events_pb2, f"{rpc}Request")(scope=SCOPE_PRIVATE, **fields)
    return served.events(rpc, request, ceqs_key=served.key)


async def test_the_head_says_where_the_log_stands(served: Any) -> None:
    async def head() -> Any:
        raw = await served.raw("/ceqs.v1.EventsService/GetHead", b"")
        return events_pb2.GetHeadResponse.FromString(raw).head

    empty = await head()
    assert (empty.log, empty.log_id, empty.position, empty.epoch) == ("bank", served.log.log_id, 0, 1)
    assert not empty.HasField("recorded_at")
    await append(served, "a")
    await append(served, "a", public=True)
    full = await head()
    assert (full.position, full.public_position) == (2, 1)
    assert full.HasField("recorded_at")


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


@pytest.mark.parametrize("rpc", ["Read", "Subscribe"])
async def test_a_position_beyond_the_head_is_out_of_range(served: Any, refused: Any, rpc: str) -> None:
    await append(served, "a")
    with refused(OutOfRange) as found:
        await collect(private(served, rpc, after=2))
    assert "ends at 1" in found[0].message


async def test_unknown_contexts_and_scopes_are_refused(served: Any, refused: Any) -> None:
    with refused(NotFound) as found:
        await collect(served.events("Read", ReadRequest(context="shop")))
    assert "'shop'" in found[0].message
    with refused(Invalid):
        await collect(served.events("Read", ReadRequest(scope=7)))  # type: ignore[arg-type]
    assert await collect(served.events("Read", ReadRequest(context="bank")))


async def test_subscribing_to_an_empty_log_says_at_once_that_there_is_nothing(served: Any) -> None:
    for stream in (private(served, "Subscribe"), served.events("Subscribe", SubscribeRequest())):
        marker = await asyncio.wait_for(stream.read(), 5)
        assert marker.HasField("caught_up")
        assert (marker.caught_up.position, marker.caught_up.log_id) == (0, served.log.log_id)
        stream.cancel()


async def test_subscribing_gives_what_is_recorded_and_then_what_is_recorded_later(served: Any) -> None:
    await append(served, *"ab")
    stream = private(served, "Subscribe", after=1)
    first, marker = await stream.read(), await stream.read()
    assert [event.position for event in first.events] == [2]
    assert marker.caught_up.position == 2
    await append(served, "c")
    later = await asyncio.wait_for(stream.read(), 5)
    assert [event.position for event in later.events] == [3]
    stream.cancel()


async def test_a_public_subscriber_hears_public_events_only(served: Any) -> None:
    stream = served.events("Subscribe", SubscribeRequest())
    assert (await stream.read()).HasField("caught_up")
    await append(served, *"ab")
    await append(served, "c", public=True)
    later = await asyncio.wait_for(stream.read(), 5)
    assert [(event.position, event.public_position) for event in later.events] == [(3, 1)]
    stream.cancel()


async def test_a_filtered_subscriber_hears_its_events_only(served: Any) -> None:
    stream = private(served, "Subscribe", filter=EventFilter(tags=["account:b"]))
    assert (await stream.read()).HasField("caught_up")
    await append(served, *"aaab")
    later = await asyncio.wait_for(stream.read(), 5)
    assert [event.position for event in later.events] == [4]
    stream.cancel()


async def test_subscribers_see_every_position_once_and_in_order_while_writers_write(served: Any) -> None:
    async def follow(after: int) -> list[int]:
        seen: list[int] = []
        async for message in private(served, "Subscribe", after=after):
            seen += [event.position for event in message.events]
            if seen and seen[-1] == 600:
                break
        return seen

    followers = [asyncio.ensure_future(follow(0)) for _ in range(3)]
    for _ in range(20):
        await append(served, *(str(i) for i in range(30)))
    late = await asyncio.wait_for(follow(250), 10)
    for seen in await asyncio.wait_for(asyncio.gather(*followers), 10):
        assert seen == list(range(1, 601))
    assert late == list(range(251, 601))


async def test_a_reader_that_stops_reading_is_told_that_it_fell_behind(
    served: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_ring, "MOST_EVENTS", 50)
    stream = private(served, "Subscribe")
    assert (await stream.read()).HasField("caught_up")
    # More than the transport takes before it holds the server back.
    for _ in range(40):
        await append(served, *(str(i) for i in range(20)), size=20_000)
    kinds: list[str] = []
    positions: list[int] = []
    while len(positions) < 800:
        message = await asyncio.wait_for(stream.read(), 10)
        positions += [event.position for event in message.events]
        kinds.append("events" if message.events else "fell_behind" if message.HasField("fell_behind") else "caught_up")
    assert positions == list(range(1, 801))
    assert "fell_behind" in kinds
    marker = await asyncio.wait_for(stream.read(), 10)
    assert marker.caught_up.position == 800
    stream.cancel()


async def test_a_subscriber_that_goes_away_leaves_nothing_behind(served: Any) -> None:
    before = len(asyncio.all_tasks())
    streams = [private(served, "Subscribe") for _ in range(10)]
    for stream in streams:
        await stream.read()
    for stream in streams:
        stream.cancel()
    await eventually(lambda: len(asyncio.all_tasks()) <= before)


async def test_a_stopping_server_ends_streams_with_where_to_resume(served: Any) -> None:
    await append(served, *"ab")
    stream = private(served, "Subscribe")
    assert len((await stream.read()).events) == 2
    assert (await stream.read()).HasField("caught_up")
    stopped = asyncio.ensure_future(served.server.stop())
    last = await asyncio.wait_for(stream.read(), 5)
    assert last.resume.position == 2
    assert await stream.read() is grpc.aio.EOF
    assert await stream.code() is grpc.StatusCode.OK
    await asyncio.wait_for(stopped, 5)


async def test_a_server_of_several_contexts_asks_for_the_one_that_is_meant(
    bank: Any, context: Any, served: Any, refused: Any
) -> None:
    class Other(type(context)):  # type: ignore[misc]
        name = "other"

    other = Other(
        **{
            "commands": context_parts(context, "commands"),
            "folds": context_parts(context, "folds"),
            "projections": list(context.projections.values()),
            "queries": context_parts(context, "queries"),
        }
    )
    log = await open_log("memory:", "other")
    model = {"Total": served.model}
    server = Server([Served(context, served.log, model), Served(other, log, model)], ServerSettings())
    await server.start()
    own, served.channel = served.channel, grpc.aio.insecure_channel(server.address)
    with refused(Invalid) as found:
        await served.raw("/ceqs.v1.EventsService/GetHead", b"")
    assert [v.field for v in found[0].violations] == ["context"]
    request = events_pb2.GetHeadRequest(context="other").SerializeToString()
    response = events_pb2.GetHeadResponse.FromString(await served.raw("/ceqs.v1.EventsService/GetHead", request))
    assert response.head.log == "other"
    await served.channel.close()
    served.channel = own
    await server.stop()
    await log.close()


def context_parts(context: Any, kind: str) -> Any:
    """Give the handlers that a context was made with."""
    if kind == "folds":
        return [next(iter(folder.methods.values())).__self__ for folder in context.folders.values()]
    service = "BankCommandsService/Deposit" if kind == "commands" else "BankQueriesService/GetMotto"
    return context._methods[f"/bank.v1.{service}"].__self__


def moment(stored: Any) -> Any:
    return RecordedEvent.FromString(stored.envelope).recorded_at


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


async def test_subscribing_from_a_time(served: Any) -> None:
    for account in "abc":
        await append(served, account)
        await asyncio.sleep(0.002)
    times = [moment(stored) for stored in (await served.log.read()).events]
    stream = private(served, "Subscribe", from_time=times[1])
    assert [event.position for event in (await stream.read()).events] == [2, 3]
    assert (await stream.read()).caught_up.position == 3
    to_come = private(served, "Subscribe", from_time=Timestamp(seconds=times[2].seconds + 3600))
    assert (await to_come.read()).caught_up.position == 3
    await append(served, "d")
    for one in (stream, to_come):
        assert [event.position for event in (await one.read()).events] == [4]
        one.cancel()


async def test_a_thousand_subscribers_see_every_position_once_while_some_have_stopped(
    served: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_ring, "MOST_EVENTS", 200)
    channels = [grpc.aio.insecure_channel(served.server.address) for _ in range(10)]
    wanted = [SubscribeRequest(scope=SCOPE_PRIVATE, filter=EventFilter(tags=tags)) for tags in ([], [], ["account:3"])]
    streams: list[Any] = []
    for group in range(20):
        for i in range(50):
            served.channel = channels[i % 10]
            streams.append(served.events("Subscribe", wanted[len(streams) % 3], ceqs_key=served.key))
        for stream in streams[group * 50 :]:
            assert (await asyncio.wait_for(stream.read(), 30)).HasField("caught_up")
    # Every tenth of them stops reading.
    seen: list[list[int]] = [[] for _ in streams]

    async def take(number: int, last: int) -> None:
        while seen[number][-1:] != [last]:
            seen[number] += [event.position for event in (await streams[number].read()).events]

    ends = {0: 300, 1: 300, 2: 294}
    reading = asyncio.gather(*(take(i, ends[i % 3]) for i in range(1000) if i % 10))
    for _ in range(30):
        await append(served, *(str(i) for i in range(10)), size=3000)
    await asyncio.wait_for(reading, 60)
    await asyncio.wait_for(asyncio.gather(*(take(i, ends[i % 3]) for i in range(0, 1000, 10))), 60)
    for i, one in enumerate(seen):
        assert one == (list(range(4, 301, 10)) if i % 3 == 2 else list(range(1, 301)))
    for channel in channels:
        await channel.close()


async def test_a_reader_that_goes_away_is_no_failure_of_the_server(served: Any) -> None:
    await append(served, *(str(i) for i in range(200)), size=100_000)
    before = len(asyncio.all_tasks())
    with structlog.testing.capture_logs() as said:
        for _ in range(3):
            async with grpc.aio.insecure_channel(served.server.address) as served.channel:
                for rpc in ("Read", "Subscribe") * 10:
                    # It takes a first batch, and leaves while the server waits to send the next one.
                    assert await private(served, rpc).read()
        await eventually(lambda: len(asyncio.all_tasks()) <= before)
    assert said == []
