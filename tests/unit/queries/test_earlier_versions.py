"""States of a log that has earlier versions of their events."""

from __future__ import annotations

from collections.abc import AsyncIterator
from itertools import count
from typing import Any

import pytest

from ceqs.contract import tags_of
from ceqs.errors import Unreadable
from ceqs.log import Condition, Entry, Keep, Log, NewEvent, open_log
from ceqs.model import Boundary
from ceqs.queries import Known, States

_ids = count(1)


@pytest.fixture
async def log() -> AsyncIterator[Log]:
    opened = await open_log("memory:", "parcels")
    yield opened
    await opened.close()


def boundary(context: Any, request: Any) -> Boundary:
    found: Boundary = context.boundary(context.contract.command_of(request), request)
    return found


async def record(log: Log, context: Any, message: Any, name: str, version: int, **entry: Any) -> None:
    """Record an event as a build did of which that was the newest form."""
    newest = context.decoder.newest(message) if version < 9 else message
    event = NewEvent(
        id=f"00000000-0000-7000-8000-{next(_ids):012}",
        type=f"parcels.v1.{name}",
        payload=message.SerializeToString(),
        tags=tags_of(newest, context.contract.event(newest).tags),
        version=version,
    )
    await log.append(Entry(command_id=event.id, events=(event,), **entry))


async def test_a_state_is_folded_from_every_version_of_its_events(parcels: Any, log: Log) -> None:
    context = parcels.make_context()
    asked = boundary(context, parcels.SendParcelRequest(parcel_id="p"))
    await record(log, context, parcels.ParcelWeighed.V1(parcel_id="p", pounds=2.5), "ParcelWeighed", 1)
    known = await States(context, log).load(asked)
    assert known.state == parcels.Parcel(parcel_id="p", milligrams=1_134_000)
    await record(log, context, parcels.ParcelWeighed.V2(parcel_id="p", grams=7), "ParcelWeighed", 2)
    await record(log, context, parcels.ParcelDispatched(parcel_id="p", address="Ada, GB"), "ParcelDispatched", 1)
    known = await States(context, log).load(asked)
    receiver = parcels.Receiver(name="Ada", country="GB")
    assert known == Known(parcels.Parcel(parcel_id="p", milligrams=7_000, receiver=receiver), 3, 3)
    await record(log, context, parcels.ParcelWeighed(parcel_id="p", milligrams=1), "ParcelWeighed", 3)
    assert (await States(context, log).load(asked)).state == parcels.Parcel(
        parcel_id="p", milligrams=1, receiver=receiver
    )


async def test_a_newer_version_than_this_build_knows_is_refused_and_not_folded(parcels: Any, log: Log) -> None:
    context = parcels.make_context()
    await record(log, context, parcels.ParcelWeighed(parcel_id="p", milligrams=1), "ParcelWeighed", 9)
    with pytest.raises(Unreadable, match="version 9, which this build does not know"):
        await States(context, log).load(boundary(context, parcels.SendParcelRequest(parcel_id="p")))


async def test_what_was_kept_by_other_upcasters_is_not_loaded(parcels: Any, log: Log) -> None:
    context = parcels.make_context()
    steps = {step.__self__: None for step in context.decoder._upcasters.values()}

    class Doubling(type(next(iter(steps)))):  # type: ignore[misc]
        def parcel_weighed_v2(self, earlier: Any) -> Any:
            return parcels.ParcelWeighed(parcel_id=earlier.parcel_id, milligrams=earlier.grams * 2000)

    asked = boundary(context, parcels.SendParcelRequest(parcel_id="p"))
    kept = parcels.Parcel(parcel_id="p", milligrams=5)
    keep = Keep(
        state="Parcel",
        tag="parcel:p",
        fingerprint=context.folders["Parcel"].fingerprint,
        events=1,
        body=kept.SerializeToString(),
    )
    weighed = parcels.ParcelWeighed.V2(parcel_id="p", grams=7)
    condition = Condition(asked.query, 0)
    await record(log, context, weighed, "ParcelWeighed", 2, keeps=keep, condition=condition)
    assert (await States(context, log).load(asked)).state == kept, "the same upcasters: it is taken as kept"
    others = parcels.make_context(upcasters=[Doubling(), list(steps)[1]])
    known = await States(others, log).load(boundary(others, parcels.SendParcelRequest(parcel_id="p")))
    assert known.state == parcels.Parcel(parcel_id="p", milligrams=14_000)
