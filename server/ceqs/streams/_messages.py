"""Recorded events as JetStream messages, and back.

A message is a CloudEvent 1.0 in binary mode: every attribute is a header `ce-<attribute>`, percent-encoded as the HTTP
protocol binding has it (https://github.com/cloudevents/spec, section 3.1.3.2), and the body is the event's protobuf
bytes. A consumer in any language needs nothing of ours:

    ce-specversion      1.0
    ce-id               the event's id
    ce-source           /ceqs/<log>/<log id>: positions compare within one source
    ce-type             the full name of the event's message type
    ce-time             when it was recorded
    ce-datacontenttype  application/protobuf
    ce-position         its position; equal to the stream sequence in the log stream
    ce-publicposition   its public position, where it has one; equal to the stream sequence in the public stream
    ce-tags             its tags, separated by commas; commas and percent signs in them are percent-encoded
    ce-commandid  ce-causationid  ce-correlationid  ce-causationdepth  ce-actor  ce-traceparent  ce-schemaversion

Headers without a value are left out.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple
from urllib.parse import quote_from_bytes, unquote

from ceqs.errors import Misconfigured
from ceqs.streams._names import subject
from ceqs.v1.events_pb2 import RecordedEvent

PROTOBUF = "application/protobuf"

_TEXTS = {
    "ce-id": "id",
    "ce-type": "type",
    "ce-commandid": "command_id",
    "ce-causationid": "causation_id",
    "ce-correlationid": "correlation_id",
    "ce-actor": "actor",
    "ce-traceparent": "traceparent",
    "ce-keyref": "key_ref",
}
_NUMBERS = {
    "ce-position": "position",
    "ce-publicposition": "public_position",
    "ce-causationdepth": "causation_depth",
    "ce-schemaversion": "schema_version",
    "ce-codec": "codec",
}
_PLAIN = re.compile(r"[!#$&-~]*")
_ESCAPED = re.compile(rb"[^!#$&-~]+")


class ForeignMessage(Misconfigured):
    """A message in a stream is not an event of the log."""


class StreamMessage(NamedTuple):
    """A message as a NATS client publishes it."""

    subject: str
    headers: dict[str, str]
    data: bytes


def to_message(
    event: RecordedEvent, tags: Iterable[str] = (), *, log: str, log_id: str, public: bool = False
) -> StreamMessage:
    """Give the message that carries a recorded event in a log's stream, or with `public` in its public stream."""
    headers = {"ce-specversion": "1.0", "ce-source": f"/ceqs/{log}/{log_id}", "ce-datacontenttype": PROTOBUF}
    for header, field in _TEXTS.items():
        if text := getattr(event, field):
            headers[header] = _encode(text)
    for header, field in _NUMBERS.items():
        if number := getattr(event, field):
            headers[header] = str(number)
    if event.HasField("recorded_at"):
        headers["ce-time"] = event.recorded_at.ToJsonString()
    if listed := ",".join(tag.replace("%", "%25").replace(",", "%2C") for tag in tags):
        headers["ce-tags"] = _encode(listed)
    return StreamMessage(subject(log, event.type, event.bucket, public=public), headers, event.payload)


def from_message(subject: str, headers: Mapping[str, str] | None, data: bytes, sequence: int) -> RecordedEvent:
    """Give the recorded event that a message carries; `sequence` is the message's stream sequence.

    Raises ForeignMessage where it carries none, or where the event's position is not the stream sequence.
    """
    headers = headers or {}
    event = RecordedEvent(payload=data)
    try:
        if headers["ce-specversion"] != "1.0" or headers["ce-datacontenttype"] != PROTOBUF:
            raise ValueError(f"CloudEvents {headers['ce-specversion']} with {headers['ce-datacontenttype']}")
        for header, field in _TEXTS.items():
            setattr(event, field, unquote(headers.get(header, ""), errors="strict"))
        for header, field in _NUMBERS.items():
            setattr(event, field, int(headers.get(header, 0)))
        if time := headers.get("ce-time"):
            # A quarter of what FromJsonString takes, which reads nanoseconds; logs keep microseconds.
            event.recorded_at.FromDatetime(dt.datetime.fromisoformat(time))
        event.bucket = int(subject.rpartition(".")[2])
        position = event.public_position if subject.split(".")[2:3] == ["public"] else event.position
        if position != sequence:
            raise ValueError(f"its position is {position}")
    except (KeyError, ValueError) as error:
        raise ForeignMessage(
            f"the message {sequence} on {subject} is no event of the log ({error}): delete the stream, the relay "
            "fills it again"
        ) from error
    return event


def decode_tags(headers: Mapping[str, str] | None) -> tuple[str, ...]:
    """Give the tags that a message's headers hold."""
    listed = unquote((headers or {}).get("ce-tags", ""), errors="strict")
    return tuple(unquote(tag) for tag in listed.split(",")) if listed else ()


def _encode(text: str) -> str:
    if _PLAIN.fullmatch(text):
        return text
    return _ESCAPED.sub(lambda found: quote_from_bytes(found[0], safe="").encode(), text.encode()).decode()
