"""Putting messages together from parts that are serialised already (see https://protobuf.dev/programming-guides/encoding)."""

from __future__ import annotations

from functools import lru_cache

_LENGTH_DELIMITED = 2


@lru_cache(maxsize=4096)
def prefix(field: int, length: int) -> bytes:
    """Give what stands before the bytes of a message in a field: the field's number, and the length."""
    return varint(field << 3 | _LENGTH_DELIMITED) + varint(length)


def varint(value: int) -> bytes:
    """Give a number that is not negative in its encoding."""
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
