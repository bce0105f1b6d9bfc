"""Earlier versions of events, as EventsService and AdminService handle them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc.aio
import pytest

from ceqs.client import ContextClient
from ceqs.contract import new_id, tags_of
from ceqs.log import Entry, Log, NewEvent, open_log
from ceqs.server import Served, Server, ServerSettings
from ceqs.v1.admin_pb2 import AppendPublicRequest, PublicEvent
from ceqs.v1.events_pb2 import (
    SCOPE_PRIVATE,
    EventFilter,
    ReadRequest,
    ReadResponse,
    RecordedEvent,
    SubscribeRequest,
    SubscribeResponse,
)

KEY = "the key of the parcels"


@pytest.fixture
async def log(parcels: Any) -> AsyncIterator[Log]:
    """A log with a history: weighed as version 1, 2 and 3, noted, dispatched, announced as version 1."""
    opened = await open_log("memory:", "parcels")
    weighed = parcels.ParcelWeighed
    for message, name, version in (
        (weighed.V1(parcel_id="p", pounds=2.5), "ParcelWeighed", 1),
        (weighed.V2(parcel_id="p", grams=7), "ParcelWeighed", 2),
        (weighed(parcel_id="p", milligrams=1), "ParcelWeighed", 3),
        (parcels.ParcelNoted(parcel_id="p", text="!"), "ParcelNoted", 1),
        (parcels.ParcelDispatched(parcel_id="p", address="Ada, GB"), "ParcelDispatched", 1),
        (parcels.ParcelAnnounced.V1(parcel_id="p", address="Ada, GB"), "ParcelAnnounced", 1),
    ):
        await opened.append(Entry(command_id=new_id(), events=(recordable(parcels, message, name, version),)))
    yield opened
    await opened.close()


def recordable(parcels: Any, message: Any, name: str, version: int) -> NewEvent:
    context = parcels.make_context()
    return NewEvent(
        id=new_id(),
        type=f"parcels.v1.{name}",
        payload=message.SerializeToString(),
        tags=tags_of(newest := context.decoder.newest(message), context.contract.event(newest).tags),
        public=name == "ParcelAnnounced",
        version=version,
    )


@pytest.fixture
async def address(parcels: Any, log: Log) -> AsyncIterator[str]:
    served = Served(parcels.make_context(), log, {"Weights": None})  # type: ignore[dict-item]
    server = Server([served], ServerSettings(key=KEY, grace=0))
    await server.start()
    yield server.address
    await server.stop()


@pytest.fixture
async def channel(address: str) -> AsyncIterator[grpc.aio.Channel]:
    async with grpc.aio.insecure_channel(address) as channel:
        yield channel


async def read(channel: grpc.aio.Channel, **request: Any) -> list[RecordedEvent]:
    call: Any = channel.unary_stream("/ceqs.v1.EventsService/Read", None, ReadResponse.FromString)
    sent = ReadRequest(scope=SCOPE_PRIVATE, **request).SerializeToString()
    found: list[RecordedEvent] = []
    async for batch in call(sent, metadata=(("ceqs-key", KEY),), timeout=20):
        found += batch.events
    return found


def short(events: Any) -> list[tuple[str, int]]:
    return [(event.type.rpartition(".")[2], event.schema_version) for event in events]


RECORDED = [
    ("ParcelWeighed", 1),
    ("ParcelWeighed", 2),
    ("ParcelWeighed", 3),
    ("ParcelNoted", 1),
    ("ParcelDispatched", 1),
    ("ParcelAnnounced", 1),
]
TODAY = [*[("ParcelWeighed", 3)] * 3, ("ParcelNoted", 1), ("ParcelSent", 1), ("ParcelAnnounced", 2)]


async def test_events_are_read_as_they_were_recorded_unless_todays_are_asked_for(
    parcels: Any, channel: grpc.aio.Channel, log: Log
) -> None:
    stored = [RecordedEvent.FromString(event.envelope) for event in (await log.read()).events]
    assert await read(channel) == stored
    assert short(stored) == RECORDED
    today = await read(channel, upcast=True)
    assert short(today) == TODAY
    assert [event.id for event in today] == [event.id for event in stored]
    assert [parcels.ParcelWeighed.FromString(event.payload).milligrams for event in today[:3]] == [1_134_000, 7_000, 1]
    assert parcels.ParcelSent.FromString(today[4].payload).receiver.country == "GB"
    assert short(await read(channel, upcast=True, backwards=True, limit=2)) == TODAY[:-3:-1]


async def test_a_filter_for_todays_type_finds_what_it_has_replaced(channel: grpc.aio.Channel) -> None:
    chosen = EventFilter(types=["parcels.v1.ParcelSent"], tags=["parcel:p"])
    assert short(await read(channel, filter=chosen, upcast=True)) == [("ParcelSent", 1)]
    assert await read(channel, filter=chosen) == []


async def test_a_subscriber_is_sent_todays_events_live_and_from_the_log(
    parcels: Any, channel: grpc.aio.Channel, log: Log
) -> None:
    open_stream: Any = channel.unary_stream("/ceqs.v1.EventsService/Subscribe", None, SubscribeResponse.FromString)
    request = SubscribeRequest(scope=SCOPE_PRIVATE, upcast=True)
    call = open_stream(request.SerializeToString(), metadata=(("ceqs-key", KEY),), timeout=20)
    found: list[RecordedEvent] = []
    async for batch in call:
        found += batch.events
        if batch.HasField("caught_up"):
            live = recordable(parcels, parcels.ParcelWeighed.V1(parcel_id="p", pounds=1), "ParcelWeighed", 1)
            await log.append(Entry(command_id=new_id(), events=(live,)))
        if len(found) == 7:
            break
    call.cancel()
    assert short(found) == [*TODAY, ("ParcelWeighed", 3)]


async def test_what_an_earlier_build_of_a_publisher_derived_is_recorded_as_todays(
    parcels: Any, channel: grpc.aio.Channel, log: Log
) -> None:
    announced = parcels.ParcelAnnounced.V1(parcel_id="q", address="Bob, FI").SerializeToString()
    event = PublicEvent(id=new_id(), type="parcels.v1.ParcelAnnounced", payload=announced, schema_version=1)
    call: Any = channel.unary_unary("/ceqs.v1.AdminService/AppendPublic")
    request = AppendPublicRequest(append_id="ceqs:test", events=[event]).SerializeToString()
    await call(request, metadata=(("ceqs-key", KEY),), timeout=10)
    (last,) = (await log.read(after=6)).events
    stored = RecordedEvent.FromString(last.envelope)
    assert stored.schema_version == 2
    assert parcels.ParcelAnnounced.FromString(stored.payload) == parcels.ParcelAnnounced(parcel_id="q", country="FI")


class ParcelsClient(ContextClient):
    ceqs_context = "parcels"


async def test_a_client_is_given_todays_events_or_those_that_were_recorded(parcels: Any, address: str) -> None:
    events = {f"parcels.v1.{name}": getattr(parcels, name) for name in ("ParcelWeighed", "ParcelSent", "ParcelNoted")}
    knowing: Any = type("Knowing", (ParcelsClient,), {"ceqs_events": events})
    async with knowing(address, key=KEY) as client:
        today = [event async for event in client.events(scope="private", live=False)]
        assert [event.message for event in today[:3]] == [
            parcels.ParcelWeighed(parcel_id="p", milligrams=milligrams) for milligrams in (1_134_000, 7_000, 1)
        ]
        stored = [event async for event in client.events(scope="private", live=False, upcast=False)]
        assert [(event.type.rpartition(".")[2], event.version) for event in stored] == RECORDED
        # Read as today's, the first two would be parcels without a weight.
        assert [event.message for event in stored[:3]] == [
            None,
            None,
            parcels.ParcelWeighed(parcel_id="p", milligrams=1),
        ]
