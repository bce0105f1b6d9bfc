"""Batches of stored events, put together on the wire without parsing them."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

from google.protobuf.timestamp_pb2 import Timestamp

from ceqs.log import StoredEvent

_EVENTS_FIELD = b"\x0a"
"""The tag of field 1, length-delimited: `events` in every response that carries any."""


def batch(events: Iterable[StoredEvent]) -> bytes:
    """Give the bytes of a response with these events in its field 1."""
    parts: list[bytes] = []
    for event in events:
        parts += _prefix(len(event.envelope)), event.envelope
    return b"".join(parts)


def now() -> Timestamp:
    """Give the time."""
    time = Timestamp()
    time.GetCurrentTime()
    return time


@lru_cache(maxsize=4096)
def _prefix(length: int) -> bytes:
    encoded = bytearray(_EVENTS_FIELD)
    while length > 0x7F:
        encoded.append(length & 0x7F | 0x80)
        length >>= 7
    encoded.append(length)
    return bytes(encoded)
