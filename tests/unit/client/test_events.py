"""Events: each once and in order, whatever happens to the connection."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
from typing import Any

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from ceqs.client import Event
from ceqs.errors import Denied, Internal, Invalid, OutOfRange, Unauthenticated, Unavailable
from ceqs.v1.events_pb2 import (
    SCOPE_PRIVATE,
    SCOPE_PUBLIC,
    CaughtUp,
    FellBehind,
    ReadRequest,
    ReadResponse,
    RecordedEvent,
    Resume,
    SubscribeRequest,
    SubscribeResponse,
)


def recorded(position: int, **fields: Any) -> RecordedEvent:
    return RecordedEvent(id=f"e{position}", position=position, type="library.v1.BookLent", **fields)


def batch(*positions: int) -> SubscribeResponse:
    return SubscribeResponse(events=[recorded(position) for position in positions])


def caught_up(position: int, log_id: str = "log") -> SubscribeResponse:
    return SubscribeResponse(caught_up=CaughtUp(position=position, log_id=log_id))


async def take(events: Any, count: int) -> list[int]:
    """Take events, then stop listening."""
    taken: list[int] = []
    async with contextlib.aclosing(events):
        async for event in events:
            taken.append(event.position)
            if len(taken) == count:
                break
    return taken


def asked(server: Any) -> list[int]:
    return [SubscribeRequest.FromString(call.request).after for call in server.calls]


async def forever(call: Any) -> None:
    await asyncio.sleep(60)


async def test_a_recorded_event_is_given_decoded(client: Any, server: Any, library: Any) -> None:
    lent = library.BookLent(book_id="b1", member_id="m1")
    full = RecordedEvent(
        id="0190",
        position=1,
        public_position=0,
        type="library.v1.BookLent",
        payload=lent.SerializeToString(),
        recorded_at=Timestamp(seconds=1291191960, nanos=5000),
        command_id="c",
        causation_id="d",
        correlation_id="e",
        actor="ann",
    )
    server.stream("Subscribe", [SubscribeResponse(events=[full])])
    event = await anext(client.events(scope="private"))
    assert event == Event(
        message=lent,
        id="0190",
        type="library.v1.BookLent",
        position=1,
        public_position=0,
        recorded_at=dt.datetime(2010, 12, 1, 8, 26, 0, 5, tzinfo=dt.UTC),
        command_id="c",
        causation_id="d",
        correlation_id="e",
        actor="ann",
        payload=lent.SerializeToString(),
    )
    assert server.calls[0].metadata["ceqs-key"] == "sesame"


async def test_what_cannot_be_decoded_is_given_without_a_message(client: Any, server: Any) -> None:
    unknown = RecordedEvent(position=1, type="library.v9.BookBurnt", payload=b"\x0a\x01x")
    encrypted = RecordedEvent(position=2, type="library.v1.BookLent", payload=b"\xff\xff", codec=1)
    server.stream("Subscribe", [SubscribeResponse(events=[unknown, encrypted])])
    events = client.events(scope="private")
    first, second = await anext(events), await anext(events)
    await events.aclose()
    assert (first.message, first.type, first.payload) == (None, "library.v9.BookBurnt", b"\x0a\x01x")
    assert second.message is None


async def test_the_server_is_asked_for_scope_position_types_and_tags(client: Any, server: Any, library: Any) -> None:
    server.stream("Subscribe", [SubscribeResponse(events=[recorded(9, public_position=4)])])
    events = client.events(after=3, types=[library.BookOffered, "library.v1.Other"], tags=["book:b1"])
    await take(events, 1)
    request = SubscribeRequest.FromString(server.calls[0].request)
    assert (request.context, request.scope, request.after) == ("library", SCOPE_PUBLIC, 3)
    assert list(request.filter.types) == ["library.v1.BookOffered", "library.v1.Other"]
    assert list(request.filter.tags) == ["book:b1"]


async def test_a_cut_stream_goes_on_after_the_last_event(client: Any, server: Any, wire: Any) -> None:
    async def cut(call: Any) -> None:
        await call.write(batch(1, 2))
        await call.write(batch(3))
        await call.ended.wait()

    server.stream("Subscribe", cut, [batch(4, 5)], forever)
    seen = []
    async with contextlib.aclosing(client.events(scope="private")) as events:
        async for event in events:
            seen.append(event.position)
            if event.position == 3:
                wire.cut()
            if event.position == 5:
                break
    assert seen == [1, 2, 3, 4, 5]
    assert asked(server) == [0, 3]


async def test_a_cut_within_a_batch_leaves_no_gap(client: Any, server: Any, wire: Any) -> None:
    """The rest of a batch that was received is given although the connection has gone."""
    server.stream("Subscribe", [batch(1, 2, 3)], Unavailable(), [batch(4)])
    seen = []
    async with contextlib.aclosing(client.events(scope="private")) as events:
        async for event in events:
            seen.append(event.position)
            if event.position == 1:
                wire.cut()
            if event.position == 4:
                break
    assert seen == [1, 2, 3, 4]
    assert asked(server) == [0, 3, 3]


async def test_an_unavailable_service_is_waited_for(client: Any, server: Any) -> None:
    async def fail(call: Any) -> None:
        await call.write(batch(1))
        await call.context.abort(grpc.StatusCode.UNAVAILABLE, "going")

    async def stop(call: Any) -> None:
        await call.context.abort(grpc.StatusCode.CANCELLED, "stopped")

    server.stream("Subscribe", Unavailable(), fail, stop, Unavailable(), [batch(2)], forever)
    assert await take(client.events(scope="private"), 2) == [1, 2]
    assert asked(server) == [0, 0, 1, 1, 1]


async def test_an_outage_longer_than_the_timeout_is_waited_out(client_type: Any, server: Any, wire: Any) -> None:
    async def cut(call: Any) -> None:
        await call.write(batch(1))
        await call.ended.wait()

    server.stream("Subscribe", cut, [batch(2)])
    async with (
        client_type(wire.address, timeout=0.2) as client,
        contextlib.aclosing(client.events(scope="private")) as events,
    ):
        assert (await anext(events)).position == 1
        await wire.stop()
        going_on = asyncio.create_task(anext(events))
        await asyncio.sleep(0.6)  # the outage itself
        assert not going_on.done()
        await wire.start(wire.port)
        assert (await going_on).position == 2


async def test_a_service_that_never_comes_is_given_up(client_type: Any, server: Any, wire: Any) -> None:
    await wire.stop()
    async with client_type(wire.address, timeout=0.3) as client:
        with pytest.raises(Unavailable):
            await anext(client.events())


async def test_a_resume_marker_is_followed(client: Any, server: Any) -> None:
    """With a filter, the server has read further than the last event that it sent."""
    going = SubscribeResponse(resume=Resume(position=41))
    server.stream("Subscribe", [batch(7), going], [batch(50)], forever)
    assert await take(client.events(scope="private", tags=["book:b1"]), 2) == [7, 50]
    assert asked(server) == [0, 41]


async def test_the_caught_up_marker_is_remembered(client: Any, server: Any) -> None:
    behind = SubscribeResponse(fell_behind=FellBehind(position=7))
    server.stream("Subscribe", [caught_up(5), batch(7), behind, caught_up(30)], [batch(31)], forever)
    assert await take(client.events(scope="private", tags=["book:b1"]), 2) == [7, 31]
    assert asked(server) == [0, 30]


async def test_a_stream_that_ends_without_a_marker_goes_on(client: Any, server: Any) -> None:
    server.stream("Subscribe", [batch(1)], [batch(2)], [], [batch(3)], forever)
    assert await take(client.events(scope="private"), 3) == [1, 2, 3]
    assert asked(server) == [0, 1, 2, 2]


async def test_what_was_given_is_not_given_again(client: Any, server: Any) -> None:
    server.stream("Subscribe", [batch(3, 4), batch(4, 5)], [batch(4, 5, 6)], forever)
    assert await take(client.events(scope="private", after=2), 4) == [3, 4, 5, 6]


async def test_a_gap_is_an_error_and_never_passed_over(client: Any, server: Any) -> None:
    server.stream("Subscribe", [batch(1, 3)])
    events = client.events(scope="private")
    assert (await anext(events)).position == 1
    with pytest.raises(Internal, match="position 3 after 1"):
        await anext(events)


async def test_public_events_are_counted_by_public_positions(client: Any, server: Any) -> None:
    server.stream(
        "Subscribe",
        [SubscribeResponse(events=[recorded(90, public_position=1), recorded(95, public_position=2)])],
        [SubscribeResponse(events=[recorded(95, public_position=2), recorded(99, public_position=3)])],
        forever,
    )
    assert await take(client.events(), 3) == [90, 95, 99]
    assert asked(server) == [0, 2]


async def test_a_restored_log_ends_the_reading(client: Any, server: Any) -> None:
    server.stream("Subscribe", [batch(1), caught_up(1)], [caught_up(1, log_id="restored"), batch(2)])
    events = client.events(scope="private")
    assert (await anext(events)).position == 1
    with pytest.raises(OutOfRange, match="restored"):
        await anext(events)


@pytest.mark.parametrize("error", [Denied(), Unauthenticated(), OutOfRange()])
async def test_a_refusal_is_raised_at_once(client: Any, server: Any, error: Any) -> None:
    server.stream("Subscribe", error)
    with pytest.raises(type(error)):
        await anext(client.events(scope="private"))
    assert len(server.calls) == 1


async def test_reading_once_ends_with_what_was_there(client: Any, server: Any) -> None:
    end = ReadResponse(caught_up=CaughtUp(position=3, log_id="log"))
    server.stream("Read", [ReadResponse(events=[recorded(2), recorded(3)]), end])
    seen = [event.position async for event in client.events(after=1, scope="private", live=False)]
    assert seen == [2, 3]
    request = ReadRequest.FromString(server.calls[0].request)
    assert (request.context, request.scope, request.after) == ("library", SCOPE_PRIVATE, 1)


async def test_reading_once_goes_on_after_a_cut(client: Any, server: Any) -> None:
    async def cut(call: Any) -> None:
        await call.write(ReadResponse(events=[recorded(1)]))
        await call.fail(Unavailable())

    end = ReadResponse(caught_up=CaughtUp(position=2, log_id="log"))
    server.stream("Read", Unavailable(), cut, [ReadResponse(events=[recorded(2)]), end])
    assert [event.position async for event in client.events(scope="private", live=False)] == [1, 2]
    assert [ReadRequest.FromString(call.request).after for call in server.calls] == [0, 0, 1]


async def test_reading_an_empty_log_once_ends(client: Any, server: Any) -> None:
    server.stream("Read", [ReadResponse(caught_up=CaughtUp(log_id="log"))])
    assert [event async for event in client.events(live=False)] == []


async def test_whoever_stops_listening_leaves_no_call(client: Any, server: Any) -> None:
    async def one(call: Any) -> None:
        await call.write(batch(1))
        await asyncio.sleep(60)

    server.stream("Subscribe", one)
    assert await take(client.events(scope="private"), 1) == [1]
    await asyncio.wait_for(server.calls[0].ended.wait(), 5)


async def test_a_cancelled_listener_leaves_no_call(client: Any, server: Any) -> None:
    heard = asyncio.Event()

    async def one(call: Any) -> None:
        await call.write(batch(1))
        await asyncio.sleep(60)

    async def listen() -> None:
        async for _ in client.events(scope="private"):
            heard.set()

    server.stream("Subscribe", one)
    listening = asyncio.create_task(listen())
    await heard.wait()
    listening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await listening
    await asyncio.wait_for(server.calls[0].ended.wait(), 5)
    assert len(server.calls) == 1


async def test_reading_backwards_asks_for_what_is_left(client: Any, server: Any) -> None:
    async def cut(call: Any) -> None:
        await call.write(ReadResponse(events=[recorded(9), recorded(8)]))
        await call.fail(Unavailable())

    end = ReadResponse(caught_up=CaughtUp(position=7, log_id="log"))
    server.stream("Read", cut, [ReadResponse(events=[recorded(8), recorded(7)]), end])
    events = client.events(before=10, after=2, limit=3, backwards=True, scope="private", live=False)
    assert [event.position async for event in events] == [9, 8, 7]
    requests = [ReadRequest.FromString(call.request) for call in server.calls]
    assert [(r.after, r.before, r.limit, r.backwards) for r in requests] == [(2, 10, 3, True), (2, 8, 1, True)]


async def test_a_gap_backwards_is_an_error(client: Any, server: Any) -> None:
    server.stream("Read", [ReadResponse(events=[recorded(9), recorded(7)])])
    events = client.events(backwards=True, scope="private", live=False)
    assert (await anext(events)).position == 9
    with pytest.raises(Internal, match="position 7 after 9"):
        await anext(events)


@pytest.mark.parametrize("live", [True, False])
async def test_reading_from_a_time_goes_on_after_a_position(client: Any, server: Any, live: bool) -> None:
    rpc, request, response = (
        ("Subscribe", SubscribeRequest, SubscribeResponse) if live else ("Read", ReadRequest, ReadResponse)
    )
    batches = [response(events=[recorded(position)]) for position in (5, 6, 7)]
    server.stream(rpc, Unavailable(), batches[:2], [batches[2], response(caught_up=CaughtUp(position=7))], forever)
    begin = dt.datetime(2010, 12, 1, 8, 26, 0, 5, tzinfo=dt.UTC)
    until = {} if live else {"before_time": begin + dt.timedelta(days=1)}
    events = client.events(from_time=begin, scope="private", live=live, **until)
    assert await take(events, 3) == [5, 6, 7]
    requests: list[Any] = [request.FromString(call.request) for call in server.calls]
    assert [(r.after, r.HasField("from_time")) for r in requests] == [(0, True), (0, True), (6, False)]
    assert requests[0].from_time.ToDatetime(dt.UTC) == begin
    if not live:
        assert [r.before_time.ToDatetime(dt.UTC) for r in requests] == [until["before_time"]] * 3


async def test_a_live_reading_ends_at_its_limit(client: Any, server: Any) -> None:
    server.stream("Subscribe", [batch(1, 2, 3), batch(4)], forever)
    assert [event.position async for event in client.events(scope="private", limit=2)] == [1, 2]
    await asyncio.wait_for(server.calls[0].ended.wait(), 5)


@pytest.mark.parametrize(
    ("bounds", "field"),
    [
        ({"before": 3}, "live"),
        ({"backwards": True}, "live"),
        ({"before_time": dt.datetime(2010, 12, 1, tzinfo=dt.UTC)}, "live"),
        ({"from_time": dt.datetime(2010, 12, 1)}, "from_time"),  # that is what is refused
        ({"before_time": dt.datetime(2010, 12, 1), "live": False}, "before_time"),
        ({"correlation_ids": ["a"]}, "live"),
        ({"limit": 0}, "limit"),
        ({"after": -1}, "after"),
        ({"before": -1, "live": False}, "before"),
        ({"after": 3, "from_time": dt.datetime(2010, 12, 1, tzinfo=dt.UTC)}, "from_time"),
        ({"before": 3, "before_time": dt.datetime(2010, 12, 1, tzinfo=dt.UTC), "live": False}, "before_time"),
    ],
)
async def test_bounds_that_cannot_be_are_refused(client: Any, bounds: dict[str, Any], field: str) -> None:
    with pytest.raises(Invalid) as caught:
        client.events(**bounds)
    assert [v.field for v in caught.value.violations] == [field]
