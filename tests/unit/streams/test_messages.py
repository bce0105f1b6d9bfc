"""Events as messages and back."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import unquote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ceqs.streams import ForeignMessage, decode_tags, from_message, to_message
from ceqs.v1.events_pb2 import RecordedEvent

NASTY = ["", " ", "\x00", "a\r\nb: c", "\t", "* > .", '"quoted"', "100%", "%41", "é", "😀", "\x7f", "\u2028", "a,b"]
texts = st.sampled_from(NASTY) | st.text()
tags = st.lists(texts.filter(bool), max_size=5).map(tuple)
counts = st.integers(min_value=0, max_value=2**32 - 1)
positions = st.integers(min_value=1, max_value=2**64 - 1)


@st.composite
def events(draw: Any) -> RecordedEvent:
    event = RecordedEvent(
        id=draw(texts),
        position=draw(positions),
        public_position=draw(positions),
        type=draw(st.sampled_from(["shop.orders.v1.OrderPlaced", "Bare", "a. b", "x.*", "y.>", "a.b\n"]) | texts),
        payload=draw(st.binary()),
        command_id=draw(texts),
        causation_id=draw(texts),
        correlation_id=draw(texts),
        actor=draw(texts),
        traceparent=draw(texts),
        schema_version=draw(counts),
        bucket=draw(counts),
        codec=draw(counts),
        key_ref=draw(texts),
        causation_depth=draw(counts),
    )
    if draw(st.booleans()):
        event.recorded_at.seconds = draw(st.integers(min_value=-62135596800, max_value=253402300799))
        event.recorded_at.nanos = 1_000 * draw(st.integers(min_value=0, max_value=999_999))  # as logs keep times
    return event


@given(events(), tags, st.booleans())
@example(RecordedEvent(id="1", position=1, type="a.B", actor="* > .\x00 é"), ("k:* > .", "k:a,b", "k:100%2C"), False)
def test_an_event_survives_the_journey(event: RecordedEvent, tags: tuple[str, ...], public: bool) -> None:
    message = to_message(event, tags, log="orders", log_id="l", public=public)
    sequence = event.public_position if public else event.position
    assert from_message(message.subject, message.headers, message.data, sequence) == event
    assert decode_tags(message.headers) == tags


@given(events(), tags)
def test_subjects_and_headers_are_safe_on_the_wire(event: RecordedEvent, tags: tuple[str, ...]) -> None:
    message = to_message(event, tags, log="orders", log_id="l")
    assert re.fullmatch(r"ceqs\.orders\.log\.[A-Za-z0-9_~%-]+\.\d+", message.subject)
    for header, value in message.headers.items():
        assert re.fullmatch(r"ce-[a-z0-9]{1,20}", header)
        assert re.fullmatch(r"[!-~]+", value)


def test_headers_are_a_cloud_event_in_binary_mode() -> None:
    event = RecordedEvent(
        id="0190-a",
        position=17,
        public_position=4,
        type="shop.orders.v1.OrderAccepted",
        payload=b"\x0a\x011",
        command_id="place 1",
        correlation_id="c",
        causation_id="e",
        causation_depth=2,
        actor="Zoë",
        traceparent="00-aa-bb-01",
        schema_version=3,
        bucket=9,
    )
    event.recorded_at.FromJsonString("2026-11-23T04:05:06.789Z")
    message = to_message(event, ("order:1", "note:a,b"), log="orders", log_id="7f", public=True)
    assert message.subject == "ceqs.orders.public.OrderAccepted.9"
    assert message.data == event.payload
    assert message.headers == {
        "ce-specversion": "1.0",
        "ce-source": "/ceqs/orders/7f",
        "ce-datacontenttype": "application/protobuf",
        "ce-id": "0190-a",
        "ce-type": "shop.orders.v1.OrderAccepted",
        "ce-time": "2026-11-23T04:05:06.789Z",
        "ce-position": "17",
        "ce-publicposition": "4",
        "ce-commandid": "place%201",
        "ce-correlationid": "c",
        "ce-causationid": "e",
        "ce-causationdepth": "2",
        "ce-actor": "Zo%C3%AB",
        "ce-traceparent": "00-aa-bb-01",
        "ce-schemaversion": "3",
        "ce-tags": "order:1,note:a%252Cb",
    }
    assert [unquote(tag) for tag in unquote(message.headers["ce-tags"]).split(",")] == ["order:1", "note:a,b"]


def test_the_longest_tags_fit_the_headers_that_jetstream_takes() -> None:
    worst = ["k:" + "%" * 126] * 64  # 8 KiB that grow most
    headers = to_message(RecordedEvent(type="a.B"), worst, log="orders", log_id="7f").headers
    assert sum(len(k) + len(v) + 4 for k, v in headers.items()) < 60_000


GOOD = to_message(RecordedEvent(id="1", position=5, type="a.B"), log="orders", log_id="7f")


@pytest.mark.parametrize(
    ("subject", "change", "sequence", "why"),
    [
        (GOOD.subject, {"ce-specversion": None}, 5, "ce-specversion"),
        (GOOD.subject, {"ce-specversion": "2.0"}, 5, "CloudEvents 2.0"),
        (GOOD.subject, {"ce-datacontenttype": "text/plain"}, 5, "text/plain"),
        (GOOD.subject, {"ce-position": "five"}, 5, "five"),
        (GOOD.subject, {"ce-position": "-5"}, 5, "range"),
        (GOOD.subject, {"ce-time": "yesterday"}, 5, "yesterday"),
        (GOOD.subject, {"ce-actor": "%FF"}, 5, "utf-8"),
        ("ceqs.orders.log.B.none", {}, 5, "none"),
        (GOOD.subject, {}, 6, "its position is 5"),
        (GOOD.subject.replace("log", "public"), {}, 5, "its position is 0"),
    ],
)
def test_a_message_that_is_no_event_is_refused(
    subject: str, change: dict[str, str | None], sequence: int, why: str
) -> None:
    headers = {k: v for k, v in {**GOOD.headers, **change}.items() if v is not None}
    with pytest.raises(ForeignMessage, match=why):
        from_message(subject, headers, GOOD.data, sequence)


def test_a_message_without_headers_is_refused() -> None:
    with pytest.raises(ForeignMessage):
        from_message(GOOD.subject, None, b"", 5)
    assert decode_tags(None) == ()
