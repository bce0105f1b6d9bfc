"""Recorded events are read as the newest version; what cannot be read is never guessed."""

from __future__ import annotations

import types
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import text_format

from ceqs.errors import Misconfigured, Unreadable
from ceqs.model import EventDecoder, boundary_of
from ceqs.testing import given
from ceqs.v1.events_pb2 import RecordedEvent

PAYLOADS = Path(__file__).parent.parent / "parcels/payloads"
"""What earlier builds recorded, byte for byte: `<type>.v<version>`."""


def recorded(file: str, **changes: Any) -> RecordedEvent:
    """Give an event as the log holds it."""
    name, version = file.partition("-")[0].split(".v")
    payload = (PAYLOADS / f"{file}.binpb").read_bytes()
    event = RecordedEvent(type=f"parcels.v1.{name}", schema_version=int(version), payload=payload, position=7)
    for field, value in changes.items():
        setattr(event, field, value)
    return event


@pytest.fixture
def decoder(parcels: Any) -> EventDecoder:
    found: EventDecoder = parcels.make_context().decoder
    return found


@pytest.mark.parametrize(
    ("file", "today"),
    [
        ("ParcelWeighed.v1", 'ParcelWeighed parcel_id: "p" milligrams: 1134000'),
        ("ParcelWeighed.v2", 'ParcelWeighed parcel_id: "p" milligrams: 1134000'),
        ("ParcelWeighed.v3", 'ParcelWeighed parcel_id: "p" milligrams: 1134500'),
        ("ParcelDispatched.v1", 'ParcelSent parcel_id: "p" receiver { name: "Ada" country: "GB" }'),
        ("ParcelSent.v1-before-carriers", 'ParcelSent parcel_id: "p" receiver { name: "Ada" country: "GB" }'),
        ("ParcelSent.v1", 'ParcelSent parcel_id: "p" receiver { name: "Ada" country: "GB" } carrier: "boat"'),
        ("ParcelAnnounced.v1", 'ParcelAnnounced parcel_id: "p" country: "GB"'),
        ("ParcelAnnounced.v2", 'ParcelAnnounced parcel_id: "p" country: "GB"'),
    ],
)
def test_a_recorded_payload_is_read_as_what_it_means_today(
    parcels: Any, decoder: EventDecoder, file: str, today: str
) -> None:
    name, _, text = today.partition(" ")
    assert decoder.decode(recorded(file)) == text_format.Parse(text, getattr(parcels, name)())


def test_every_earlier_form_has_a_recorded_payload(decoder: EventDecoder) -> None:
    forms = {f"{form.type_name}.v{form.version}" for e in decoder.contract.events.values() for form in e.earlier}
    assert forms <= {f"parcels.v1.{file.stem.partition('-')[0]}" for file in PAYLOADS.iterdir()}


def test_a_renewed_event_is_todays_and_keeps_its_envelope(decoder: EventDecoder) -> None:
    event = recorded("ParcelDispatched.v1", id="an id", actor="Ada", bucket=3)
    renewed = decoder.renewed(event)
    assert (renewed.type, renewed.schema_version) == ("parcels.v1.ParcelSent", 1)
    assert decoder.decode(renewed) == decoder.decode(event)
    for one in (renewed, event):
        for field in ("type", "payload", "schema_version"):
            one.ClearField(field)
    assert renewed == event
    for unchanged in (recorded("ParcelSent.v1"), recorded("ParcelWeighed.v3", schema_version=4)):
        assert decoder.renewed(unchanged) is unchanged


@pytest.mark.parametrize(
    ("event", "why"),
    [
        (recorded("ParcelWeighed.v3", schema_version=4), "position 7 is of version 4, which this build does not know"),
        (recorded("ParcelDispatched.v1", schema_version=2), "is of version 2, which this build does not know"),
        (recorded("ParcelWeighed.v3", type="parcels.v1.ParcelLost"), "ParcelLost at position 7 is no event of this"),
        (recorded("ParcelWeighed.v1", codec=1), "encoded in a way unknown to this build"),
        (recorded("ParcelWeighed.v3", key_ref="k"), "encoded in a way unknown to this build"),
        (recorded("ParcelWeighed.v1", payload=b"\x0a\xff"), "cannot be decoded"),
        (recorded("ParcelWeighed.v3", payload=b"\x0a\xff"), "cannot be decoded"),
    ],
)
def test_what_this_build_cannot_read_is_refused_by_type_and_position(
    decoder: EventDecoder, event: RecordedEvent, why: str
) -> None:
    with pytest.raises(Unreadable, match=why):
        decoder.decode(event)


def test_an_earlier_form_without_an_upcaster_is_not_read_as_if_it_were_todays(decoder: EventDecoder) -> None:
    bare = EventDecoder(decoder.contract)
    with pytest.raises(Unreadable, match=r"recorded as version 1, and no upcaster says.* add parcel_weighed_v1 to"):
        bare.decode(recorded("ParcelWeighed.v1"))
    assert bare.decode(recorded("ParcelWeighed.v3"))


def test_an_upcaster_that_fails_makes_its_events_unreadable(parcels: Any, decoder: EventDecoder) -> None:
    def failing(earlier: Any) -> Any:
        return 1 // 0

    with pytest.raises(Unreadable, match="cannot be upcast: parcel_dispatched raised ZeroDivisionError") as refused:
        EventDecoder(decoder.contract, {"parcel_dispatched": failing}).decode(recorded("ParcelDispatched.v1"))
    assert isinstance(refused.value.__cause__, ZeroDivisionError)
    skipping = EventDecoder(decoder.contract, {"parcel_weighed_v1": lambda earlier: parcels.ParcelWeighed()})
    with pytest.raises(Misconfigured, match=r"returned ParcelWeighed, not parcels\.v1\.ParcelWeighed\.V2"):
        skipping.decode(recorded("ParcelWeighed.v1"))


def test_the_boundary_holds_what_replaced_events_recorded(parcels: Any) -> None:
    context = parcels.make_context()
    request = parcels.SendParcelRequest(parcel_id="p")
    rpc = context.contract.command_of(request)
    boundary = boundary_of(rpc.state, rpc.tags, request)
    sent = {"parcels.v1.ParcelSent", "parcels.v1.ParcelDispatched"}
    (item,) = boundary.query.items
    assert item.types == sent | {"parcels.v1.ParcelWeighed"}
    assert boundary.only(parcels.ParcelSent).query.items[0].types == sent
    assert boundary.without(parcels.ParcelSent).query.items[0].types == item.types - sent


def test_given_earlier_forms_a_command_sees_what_they_mean_today(parcels: Any) -> None:
    weighed, sent = parcels.ParcelWeighed.V1(parcel_id="p", pounds=2.5), parcels.ParcelDispatched(parcel_id="p")
    sent.address = "Ada, GB"
    request = parcels.SendParcelRequest(parcel_id="p", receiver=parcels.Receiver(country="FI"))
    given(parcels.make_context(), weighed).when(request).yields(
        parcels.ParcelSent(parcel_id="p", receiver=request.receiver)
    )
    given(parcels.make_context(), weighed, sent).when(request).rejects("SENT")


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"drop": "Earlier"}, r"ParcelWeighed was recorded in another way as version 1.* method parcel_weighed_v1"),
        ({"drop": "EarlierNews"}, r"ParcelAnnounced was recorded in another way .* the method parcel_announced_v1"),
        ({"parcel_weighed_v7": lambda self, earlier: earlier}, r"parcel_weighed_v7 belongs to no earlier form"),
        ({"twice": True}, "two upcasters parcel_dispatched of"),
    ],
)
def test_a_context_refuses_upcasters_that_do_not_fit_by_name(parcels: Any, changed: dict[str, Any], why: str) -> None:
    earlier = parcels.make_context().decoder
    bases = {type(step.__self__).__name__: type(step.__self__) for step in earlier._upcasters.values()}
    methods = {name: method for name, method in changed.items() if callable(method)}
    chosen = {name: base for name, base in bases.items() if name != changed.get("drop")}
    made = [
        types.new_class(name, (base,), exec_body=lambda body: body.update(methods))() for name, base in chosen.items()
    ]
    with pytest.raises(Misconfigured, match=why):
        parcels.make_context(upcasters=[*made, *(made if "twice" in changed else ())])


def test_an_upcaster_is_pure(parcels: Any) -> None:
    base = next(type(s.__self__) for s in parcels.make_context().decoder._upcasters.values() if "Weighed" not in str(s))

    async def parcel_dispatched(self: Any, earlier: Any) -> Any: ...

    impure = type("Impure", (base,), {"parcel_dispatched": parcel_dispatched, "parcel_announced_v1": parcel_dispatched})
    with pytest.raises(Misconfigured, match="must not be `async def`: it is pure"):
        parcels.make_context(upcasters=[impure()])


def test_upcasters_are_part_of_the_fingerprint_of_the_states_that_they_reach(parcels: Any) -> None:
    context = parcels.make_context()
    (earlier, news) = {s.__self__: None for s in context.decoder._upcasters.values()}

    class Rounded(type(earlier)):  # type: ignore[misc]
        def parcel_weighed_v2(self, earlier: Any) -> Any:
            return parcels.ParcelWeighed(parcel_id=earlier.parcel_id, milligrams=earlier.grams // 10 * 10_000)

    changed = parcels.make_context(upcasters=[Rounded(), news])
    same = parcels.make_context(upcasters=[type(earlier)(), news])
    assert changed.folders["Parcel"].fingerprint != context.folders["Parcel"].fingerprint
    assert changed.folders["Notes"].fingerprint == context.folders["Notes"].fingerprint
    assert same.folders["Parcel"].fingerprint == context.folders["Parcel"].fingerprint
