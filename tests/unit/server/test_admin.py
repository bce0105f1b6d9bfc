"""AdminService over a real socket."""

from __future__ import annotations

from typing import Any

import pytest

from ceqs.contract import bucket_of
from ceqs.errors import Invalid
from ceqs.v1.admin_pb2 import AppendPublicRequest, AppendPublicResponse, PublicEvent
from ceqs.v1.events_pb2 import RecordedEvent

IDS = ("01a20683-d39b-7081-aff0-7069e5d45daf", "01a20683-d39b-7081-aff0-7069e5d45db0")


def announced(served: Any, event_id: str = IDS[0], account_id: str = "a", **fields: Any) -> PublicEvent:
    payload = served.AccountAnnounced(account_id=account_id).SerializeToString()
    return PublicEvent(**{"id": event_id, "type": "bank.v1.AccountAnnounced", "payload": payload, **fields})


async def append(served: Any, *events: PublicEvent, **fields: Any) -> AppendPublicResponse:
    request = AppendPublicRequest(**{"append_id": "ceqs:bank/announce:1:0", "events": events, **fields})
    raw = await served.raw("/ceqs.v1.AdminService/AppendPublic", request.SerializeToString(), ceqs_key=served.key)
    return AppendPublicResponse.FromString(raw)


async def test_public_events_are_recorded_with_what_they_were_derived_from(served: Any) -> None:
    response = await append(
        served,
        announced(served),
        announced(served, IDS[1], "b"),
        causation_id="cause",
        correlation_id="c",
        causation_depth=2,
    )
    assert list(response.receipt.event_ids) == list(IDS)
    assert response.receipt.public_position == 2
    stored = [RecordedEvent.FromString(e.envelope) for e in (await served.log.read(public=True)).events]
    assert [(e.id, e.public_position, e.type) for e in stored] == [
        (IDS[0], 1, "bank.v1.AccountAnnounced"),
        (IDS[1], 2, "bank.v1.AccountAnnounced"),
    ]
    assert {(e.causation_id, e.correlation_id, e.causation_depth) for e in stored} == {("cause", "c", 2)}
    kind = served.context.contract.events["bank.v1.AccountAnnounced"]
    assert [e.bucket for e in stored] == [bucket_of(kind, ["account:a"]), bucket_of(kind, ["account:b"])]


async def test_the_same_append_id_always_gets_the_same_receipt(served: Any) -> None:
    first = await append(served, announced(served))
    assert await append(served, announced(served)) == first
    # The id is derived, so the first receipt wins whatever the content.
    assert await append(served, announced(served, IDS[1], "b")) == first
    assert (await served.log.head()).position == 1


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"type": "bank.v1.AccountOpened"}, "events[1].type"),
        ({"type": "bank.v1.Nothing"}, "events[1].type"),
        ({"type": ""}, "events[1].type"),
        ({"payload": b"\x0a\xff"}, "events[1].payload"),
        ({"payload": b""}, "events[1].payload.account_id"),
        ({"event_id": "1"}, "events[1].id"),
        ({"event_id": IDS[0].upper()}, "events[1].id"),
    ],
)
async def test_what_is_no_public_event_is_refused_with_all_that_came_with_it(
    served: Any, refused: Any, change: dict[str, Any], field: str
) -> None:
    with refused(Invalid) as found:
        await append(served, announced(served), announced(served, **{"event_id": IDS[1], **change}))
    assert [v.field for v in found[0].violations] == [field]
    assert (await served.log.head()).position == 0


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"append_id": "mine"}, "append_id"),
        ({"append_id": ""}, "append_id"),
        ({"append_id": "ceqs:" + "x" * 200}, "append_id"),
        ({"causation_id": "a\x00"}, "causation_id"),
        ({"events": []}, "events"),
    ],
)
async def test_an_append_that_is_malformed_is_refused(
    served: Any, refused: Any, fields: dict[str, Any], field: str
) -> None:
    with refused(Invalid) as found:
        await append(served, *([] if "events" in fields else [announced(served)]), **fields)
    assert [v.field for v in found[0].violations] == [field]
    assert (await served.log.head()).position == 0
