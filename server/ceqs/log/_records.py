"""Receipts and recorded events as bytes, put together from parts: what many have in common is made once.

Byte for byte it is what the messages serialise to, which takes four times as long to fill and serialise.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from functools import lru_cache

from google.protobuf.timestamp_pb2 import Timestamp

from ceqs.contract import prefix, varint
from ceqs.log._times import to_micros
from ceqs.log._types import Entry, NewEvent
from ceqs.v1.events_pb2 import RecordedEvent

# The numbers of fields are written out below: what they are called in the protos is what the tests go by.
_POSITION, _PUBLIC_POSITION = varint(2 << 3), varint(3 << 3)
_RECEIPT_POSITION, _RECEIPT_PUBLIC_POSITION = varint(3 << 3), varint(7 << 3)


class Stamp:
    """A time as it stands in receipts and in events."""

    def __init__(self, time: dt.datetime | None) -> None:
        """None stands nowhere."""
        self.in_receipt = self.in_event = b""
        if time is not None:
            seconds, micros = divmod(to_micros(time), 1_000_000)
            stamp = Timestamp(seconds=seconds, nanos=micros * 1000).SerializeToString()
            self.in_receipt = prefix(5, len(stamp)) + stamp
            self.in_event = prefix(6, len(stamp)) + stamp


def origin(entry: Entry, stamp: Stamp) -> bytes:
    """Give what all events of an entry have in common: when they are recorded, and what they follow from."""
    command_id = entry.command_id.encode()
    parts = [stamp.in_event, prefix(7, len(command_id)), command_id]
    if entry.causation_id:
        parts += _text(8, entry.causation_id)
    if entry.correlation_id:
        parts += _text(9, entry.correlation_id)
    if entry.actor:
        parts += _text(10, entry.actor)
    if entry.traceparent:
        parts += _text(11, entry.traceparent)
    return b"".join(parts)


def envelope(event: NewEvent, number: bytes, public_position: int | None, since: bytes, depth: int) -> bytes:
    """Give an event as a ceqs.v1.RecordedEvent.

    `number` is its position as a varint, `since` what its entry gives to all of its events; see `origin`.
    """
    event_id, payload = event.id.encode(), event.payload
    return b"".join(
        (
            prefix(1, len(event_id)) if event_id else b"",
            event_id,
            _POSITION,
            number,
            _PUBLIC_POSITION + varint(public_position) if public_position else b"",
            _type(event.type),
            prefix(5, len(payload)) if payload else b"",
            payload,
            since,
            _rest(event.version, event.bucket, depth),
        )
    )


def receipt(
    entry: Entry, log_id: str, position: int, number: bytes, public_position: int, stamp: Stamp, token: bytes
) -> bytes:
    """Give a ceqs.v1.Receipt. `number` is the position as a varint; a public position of 0 is none."""
    command_id = entry.command_id.encode()
    parts = [prefix(1, len(command_id)), command_id, _log(log_id)]
    if position:
        parts += _RECEIPT_POSITION, number
    for event in entry.events:
        event_id = event.id.encode()
        parts += prefix(4, len(event_id)), event_id
    parts += stamp.in_receipt, prefix(6, len(token)), token
    if public_position:
        parts += _RECEIPT_PUBLIC_POSITION, varint(public_position)
    return b"".join(parts)


def _text(field: int, text: str) -> Iterable[bytes]:
    raw = text.encode()
    return prefix(field, len(raw)), raw


@lru_cache(maxsize=1024)
def _type(event_type: str) -> bytes:
    return b"".join(_text(4, event_type)) if event_type else b""


@lru_cache(maxsize=64)
def _log(log_id: str) -> bytes:
    return b"".join(_text(2, log_id))


@lru_cache(maxsize=4096)
def _rest(version: int, bucket: int, depth: int) -> bytes:
    return RecordedEvent(schema_version=version, bucket=bucket, causation_depth=depth).SerializeToString()
