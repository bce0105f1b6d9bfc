"""Receipts and recorded events as bytes, put together from parts: what many have in common is made once.

Byte for byte it is what the messages serialise to, which takes four times as long to fill and serialise.
"""

from __future__ import annotations

import datetime as dt
from functools import lru_cache

from google.protobuf.timestamp_pb2 import Timestamp

from ceqs.contract import Prefixes, token_of, varint
from ceqs.log._times import to_micros
from ceqs.log._types import Entry, NewEvent
from ceqs.v1.events_pb2 import RecordedEvent

# The numbers of fields are written out below: what they are called in the protos is what the tests go by.
_ID, _TYPE, _PAYLOAD, _TIME, _COMMAND_ID = map(Prefixes, (1, 4, 5, 6, 7))
_CAUSATION_ID, _CORRELATION_ID, _ACTOR, _TRACEPARENT = map(Prefixes, (8, 9, 10, 11))
_POSITION, _PUBLIC_POSITION = varint(2 << 3), varint(3 << 3)

_RECEIPT_COMMAND_ID, _RECEIPT_LOG_ID, _RECEIPT_EVENT_ID = map(Prefixes, (1, 2, 4))
_RECEIPT_TIME, _RECEIPT_TOKEN = map(Prefixes, (5, 6))
_RECEIPT_POSITION, _RECEIPT_PUBLIC_POSITION = varint(3 << 3), varint(7 << 3)


class Records:
    """Writes what is recorded in a log at a time."""

    def __init__(self, log_id: str, time: dt.datetime | None) -> None:
        """Write no time where it is None."""
        self._log_id = log_id
        self._log = b"".join(_text(_RECEIPT_LOG_ID, log_id))
        self._in_receipt = self._in_event = b""
        if time is not None:
            seconds, micros = divmod(to_micros(time), 1_000_000)
            stamp = Timestamp(seconds=seconds, nanos=micros * 1000).SerializeToString()
            self._in_receipt = _RECEIPT_TIME[len(stamp)] + stamp
            self._in_event = _TIME[len(stamp)] + stamp

    def origin(self, entry: Entry) -> bytes:
        """Give what all events of an entry have in common: when they are recorded, and what they follow from."""
        command_id = entry.command_id.encode()
        parts = [self._in_event, _COMMAND_ID[len(command_id)], command_id]
        if entry.causation_id:
            parts += _text(_CAUSATION_ID, entry.causation_id)
        if entry.correlation_id == entry.command_id:
            parts += _CORRELATION_ID[len(command_id)], command_id
        elif entry.correlation_id:
            parts += _text(_CORRELATION_ID, entry.correlation_id)
        if entry.actor:
            parts += _text(_ACTOR, entry.actor)
        if entry.traceparent:
            parts += _text(_TRACEPARENT, entry.traceparent)
        return b"".join(parts)

    def receipt(self, entry: Entry, position: int, number: bytes, public_position: int) -> bytes:
        """Give a ceqs.v1.Receipt. `number` is the position as a varint; a public position of 0 is none."""
        command_id, token = entry.command_id.encode(), token_of(self._log_id, number)
        parts = [_RECEIPT_COMMAND_ID[len(command_id)], command_id, self._log]
        if position:
            parts += _RECEIPT_POSITION, number
        for event in entry.events:
            event_id = event.id.encode()
            parts += _RECEIPT_EVENT_ID[len(event_id)], event_id
        parts += self._in_receipt, _RECEIPT_TOKEN[len(token)], token
        if public_position:
            parts += _RECEIPT_PUBLIC_POSITION, varint(public_position)
        return b"".join(parts)


def envelope(event: NewEvent, number: bytes, public_position: int | None, origin: bytes, depth: int) -> bytes:
    """Give an event as a ceqs.v1.RecordedEvent.

    `number` is its position as a varint, `origin` what its entry gives to all of its events.
    """
    event_id, payload = event.id.encode(), event.payload
    return b"".join(
        (
            _ID[len(event_id)] if event_id else b"",
            event_id,
            _POSITION,
            number,
            _PUBLIC_POSITION + varint(public_position) if public_position else b"",
            _type(event.type),
            _PAYLOAD[len(payload)] if payload else b"",
            payload,
            origin,
            _rest(event.version, event.bucket, depth),
        )
    )


def _text(before: Prefixes, text: str) -> tuple[bytes, bytes]:
    raw = text.encode()
    return before[len(raw)], raw


@lru_cache(maxsize=1024)
def _type(event_type: str) -> bytes:
    return b"".join(_text(_TYPE, event_type)) if event_type else b""


@lru_cache(maxsize=4096)
def _rest(version: int, bucket: int, depth: int) -> bytes:
    return RecordedEvent(schema_version=version, bucket=bucket, causation_depth=depth).SerializeToString()
