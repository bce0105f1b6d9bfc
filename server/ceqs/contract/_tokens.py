"""Consistency tokens: opaque text that maps log ids to positions."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping

from google.protobuf.message import DecodeError

from ceqs.errors import Invalid, Violation
from ceqs.v1.answers_pb2 import ConsistencyToken

_URLSAFE = bytes.maketrans(b"+/", b"-_")

NO_TOKEN = Violation("ceqs-at-least", "is not a consistency token")


def encode_token(positions: Mapping[str, int]) -> str:
    """Give the token that says: everything up to these positions. The same positions give the same text."""
    token = ConsistencyToken()
    for log_id, position in positions.items():
        token.positions[log_id] = position
    raw = token.SerializeToString(deterministic=True)
    return binascii.b2a_base64(raw, newline=False).translate(_URLSAFE, b"=").decode()


def decode_token(token: str) -> dict[str, int]:
    """Give the positions that a token holds. Raises Invalid where the text is no token."""
    try:
        raw = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
        positions = dict(ConsistencyToken.FromString(raw).positions)
    except (binascii.Error, DecodeError, ValueError) as error:
        raise Invalid(violations=[NO_TOKEN]) from error
    if token and not positions:
        raise Invalid(violations=[NO_TOKEN])
    return positions


def merge_tokens(*tokens: str) -> str:
    """Give the token that includes all of them: the highest position of each log."""
    merged: dict[str, int] = {}
    for token in filter(None, tokens):
        for log_id, position in decode_token(token).items():
            merged[log_id] = max(position, merged.get(log_id, 0))
    return encode_token(merged) if merged else ""
