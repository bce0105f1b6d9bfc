"""Projections, publishers and subscribers of a log that has earlier versions of its events."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import sqlalchemy as sa

from ceqs.contract import new_id, tags_of
from ceqs.errors import Misconfigured
from ceqs.log import Entry, NewEvent
from ceqs.model import Context, PublicHearing, Subscriber
from ceqs.projectors import ModelReader, place_of
from ceqs.testing import eventually

pytestmark = pytest.mark.usefixtures("fast")


@pytest.fixture
async def served(world: Any, parcels: Any) -> Context:
    context: Context = parcels.make_context()
    await world.start(context)
    return context


@pytest.fixture
def record(world: Any, served: Context) -> Callable[..., Any]:
    """Records events as builds did of which these were the newest forms."""

    async def recorded(message: Any, name: str, version: int) -> None:
        newest = served.decoder.newest(message)
        kind = served.contract.event(newest)
        event = NewEvent(
            id=new_id(),
            type=f"parcels.v1.{name}",
            payload=message.SerializeToString(),
            tags=tags_of(newest, kind.tags),
            public=kind.public,
            version=version,
        )
        await world.logs["parcels"].append(Entry(command_id=new_id(), events=(event,)))

    return recorded


async def weights(world: Any) -> dict[str, int]:
    reader = ModelReader(place_of(world.models_url, "parcels", "Weights"))
    try:
        async with reader.session() as (session, _):
            rows = await session.execute(sa.text("SELECT parcel_id, milligrams FROM weights"))
            return {row.parcel_id: row.milligrams for row in rows}
    finally:
        await reader.close()


async def test_handlers_see_todays_events_whatever_was_recorded(
    world: Any, parcels: Any, served: Context, record: Any
) -> None:
    weighed = parcels.ParcelWeighed
    await record(weighed.V1(parcel_id="a", pounds=2.5), "ParcelWeighed", 1)
    await record(weighed.V2(parcel_id="b", grams=7), "ParcelWeighed", 2)
    await record(weighed(parcel_id="c", milligrams=1), "ParcelWeighed", 3)
    await record(parcels.ParcelDispatched(parcel_id="a", address="Ada, GB"), "ParcelDispatched", 1)
    world.project(served)
    await world.reaches(6, "Weights", "parcels")
    assert await weights(world) == {"a": 1_134_000, "b": 7_000, "c": 1}
    (noted,) = await world.events("parcels", "ParcelNoted")
    assert parcels.ParcelNoted.FromString(noted.payload).text == "to GB"
    (announced,) = await world.events("parcels", "ParcelAnnounced")
    assert parcels.ParcelAnnounced.FromString(announced.payload).country == "GB"
    assert announced.schema_version == 2


async def test_a_newer_version_than_this_build_knows_pauses_who_hears_it_and_nobody_else(
    world: Any, parcels: Any, served: Context, record: Any
) -> None:
    await record(parcels.ParcelWeighed(parcel_id="a", milligrams=1), "ParcelWeighed", 9)
    await record(parcels.ParcelSent(parcel_id="a"), "ParcelSent", 1)
    projector = world.project(served)
    await world.reaches(4, "labels", "parcels")
    status = {one.name: one for one in projector.status()}
    assert (status["Weights"].state, status["Weights"].position) == ("paused", 0)
    assert "ParcelWeighed at position 1 is of version 9, which this build does not know" in status["Weights"].reason
    assert {status[name].state for name in ("labels", "announcer")} == {"live"}
    assert not status["Weights"].parked, "another build reads it: it is nothing to be set aside"


async def test_a_subscriber_of_another_service_needs_upcasters_of_what_it_hears(
    world: Any, parcels: Any, readers: Any, readers_context: Any, served: Context, record: Any
) -> None:
    class NoteCountries(PublicHearing, Subscriber):
        ceqs_contract = served.contract

        def on_parcel_announced(self, event: Any, ctx: Any) -> Iterator[Any]:
            yield readers.NoteOfferRequest(book_id=event.country)

    with pytest.raises(Misconfigured, match=r"pass upcasters of parcels\.v1 with the method parcel_announced_v1"):
        readers_context(subscribers=[NoteCountries()])
    upcast: Any = served.decoder._upcasters["parcel_announced_v1"]
    context = readers_context(subscribers=[NoteCountries()], upcasters=[upcast.__self__])
    await world.start(context)
    await record(parcels.ParcelAnnounced.V1(parcel_id="a", address="Ada, GB"), "ParcelAnnounced", 1)
    await record(parcels.ParcelAnnounced(parcel_id="b", country="FI"), "ParcelAnnounced", 2)
    world.project(context)

    async def noted() -> bool:
        return len(await world.events("readers")) == 2

    await eventually(noted)
    countries = {readers.OfferNoted.FromString(event.payload).book_id for event in await world.events("readers")}
    assert countries == {"GB", "FI"}
