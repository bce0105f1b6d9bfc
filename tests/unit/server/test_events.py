"""EventsService over a real socket."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest
import structlog.testing
from google.protobuf.timestamp_pb2 import Timestamp
from tests.unit.server.recorded import append, collect, moment, private

from ceqs.errors import Invalid, NotFound, OutOfRange
from ceqs.log import open_log
from ceqs.server import Served, Server, ServerSettings, _ring
from ceqs.testing import eventually
from ceqs.v1 import events_pb2
from ceqs.v1.events_pb2 import SCOPE_PRIVATE, EventFilter, ReadRequest, SubscribeRequest


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
        marker = await asyncio.wait_for(stream.read(), 30)
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
    later = await asyncio.wait_for(stream.read(), 30)
    assert [event.position for event in later.events] == [3]
    stream.cancel()


async def test_a_public_subscriber_hears_public_events_only(served: Any) -> None:
    stream = served.events("Subscribe", SubscribeRequest())
    assert (await stream.read()).HasField("caught_up")
    await append(served, *"ab")
    await append(served, "c", public=True)
    later = await asyncio.wait_for(stream.read(), 30)
    assert [(event.position, event.public_position) for event in later.events] == [(3, 1)]
    stream.cancel()


async def test_a_filtered_subscriber_hears_its_events_only(served: Any) -> None:
    stream = private(served, "Subscribe", filter=EventFilter(tags=["account:b"]))
    assert (await stream.read()).HasField("caught_up")
    await append(served, *"aaab")
    later = await asyncio.wait_for(stream.read(), 30)
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
    late = await asyncio.wait_for(follow(250), 30)
    for seen in await asyncio.wait_for(asyncio.gather(*followers), 30):
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
        message = await asyncio.wait_for(stream.read(), 30)
        positions += [event.position for event in message.events]
        kinds.append("events" if message.events else "fell_behind" if message.HasField("fell_behind") else "caught_up")
    assert positions == list(range(1, 801))
    assert "fell_behind" in kinds
    marker = await asyncio.wait_for(stream.read(), 30)
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
    last = await asyncio.wait_for(stream.read(), 30)
    assert last.resume.position == 2
    assert await stream.read() is grpc.aio.EOF
    assert await stream.code() is grpc.StatusCode.OK
    await asyncio.wait_for(stopped, 30)


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
    # A few at a time: a server cancels what it does not come to take within two seconds.
    for _ in range(100):
        for served.channel in channels:
            streams.append(served.events("Subscribe", wanted[len(streams) % 3], ceqs_key=served.key))
        for stream in streams[-10:]:
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
