"""Putting messages together from parts that are serialised already (see https://protobuf.dev/programming-guides/encoding)."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial

_LENGTH_DELIMITED = 2
_LAST = [bytes([bits]) for bits in range(0x80)]
_MORE = [bytes([bits | 0x80]) for bits in range(0x80)]
"""Seven bits of a number as they stand: before no others, or before more."""


@lru_cache(maxsize=4096)
def prefix(field: int, length: int) -> bytes:
    """Give what stands before the bytes of a message in a field: the field's number, and the length."""
    return varint(field << 3 | _LENGTH_DELIMITED) + varint(length)


def prefixes(field: int) -> Callable[[int], bytes]:
    """Give the function that gives `prefix` for a field."""
    return lru_cache(maxsize=1024)(partial(prefix, field))


def varint(value: int) -> bytes:
    """Give a number that is not negative in its encoding."""
    return _MORE[value & 0x7F] + _rest(value >> 7) if value > 0x7F else _LAST[value]


# Of the positions of a log, most begin as the one before ended.
_rest = lru_cache(maxsize=1024)(varint)
