"""Consistency tokens: opaque text that maps log ids to positions.

Of another context only public events are known. A token says that by `public_of` its log's id: the public events of a
log are counted as if they were a log of their own.
"""

from __future__ import annotations

import base64
import binascii
import datetime as dt
from collections.abc import Mapping
from functools import lru_cache
from typing import TypeAlias

from google.protobuf.message import DecodeError
from google.protobuf.timestamp_pb2 import Timestamp

from ceqs.contract._wire import prefix, varint
from ceqs.errors import Invalid, Violation
from ceqs.v1.answers_pb2 import ConsistencyToken

_URLSAFE = bytes.maketrans(b"+/", b"-_")
_POSITION = varint(2 << 3)
"""Before the value of a map's entry that is a number."""

Moment: TypeAlias = Mapping[str, int] | dt.datetime
"""A moment of the past: positions by log id, or an aware time."""


def public_of(log_id: str) -> str:
    """Give the name under which a token holds a public position of a log."""
    return f"{log_id}:public"


def encode_token(positions: Mapping[str, int]) -> str:
    """Give the token that says: everything up to these positions. The same positions give the same text."""
    numbers = ((log_id, varint(position)) for log_id, position in sorted(positions.items()))
    return _text(b"".join(_before(log_id, len(number)) + number for log_id, number in numbers)).decode()


def token_of(log_id: str, position: bytes) -> bytes:
    """Give the token of one position of a log, as ASCII. The position is a varint already."""
    return _text(_before(log_id, len(position)) + position)


@lru_cache(maxsize=1024)
def _before(log_id: str, length: int) -> bytes:
    """Give what stands before a position of `length` bytes.

    Put together by hand: every receipt and every answer has one, and a message with a map takes many times as long.
    """
    log = log_id.encode()
    entry = prefix(1, len(log)) + log + _POSITION
    return prefix(ConsistencyToken.POSITIONS_FIELD_NUMBER, len(entry) + length) + entry


def _text(raw: bytes) -> bytes:
    return binascii.b2a_base64(raw, newline=False).translate(_URLSAFE, b"=")


def decode_token(token: str, field: str = "ceqs-at-least") -> dict[str, int]:
    """Give the positions that a token holds. Raises Invalid, naming the field, where the text is no token."""
    try:
        raw = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
        positions = dict(ConsistencyToken.FromString(raw).positions)
    except (binascii.Error, DecodeError, ValueError) as error:
        raise _no_token(field) from error
    if token and not positions:
        raise _no_token(field)
    return positions


def encode_moment(moment: str | dt.datetime) -> str:
    """Give a moment as the text that `ceqs-as-of` takes. Raises Invalid for a time without a zone."""
    if isinstance(moment, str):
        return moment
    if moment.tzinfo is None:
        raise Invalid(violations=[Violation("as_of", "must have a time zone")])
    return moment.astimezone(dt.UTC).isoformat().replace("+00:00", "Z")


def decode_moment(text: str) -> Moment:
    """Give the moment that a text stands for: a consistency token, or a time as RFC 3339 has it. Raises Invalid."""
    # No token begins with a digit: its first six bits are those of a field's number and type.
    if not text[:1].isdigit():
        return decode_token(text, "ceqs-as-of")
    time = Timestamp()
    try:
        time.FromJsonString(text)
        return time.ToDatetime(dt.UTC)
    except (ValueError, OverflowError) as error:
        violation = Violation("ceqs-as-of", "is neither a consistency token nor a time such as 2010-12-02T00:00:00Z")
        raise Invalid(violations=[violation]) from error


def merge_tokens(*tokens: str) -> str:
    """Give the token that includes all of them: the highest position of each log."""
    merged: dict[str, int] = {}
    for token in filter(None, tokens):
        for log_id, position in decode_token(token).items():
            merged[log_id] = max(position, merged.get(log_id, 0))
    return encode_token(merged) if merged else ""


def _no_token(field: str) -> Invalid:
    return Invalid(violations=[Violation(field, "is not a consistency token")])
