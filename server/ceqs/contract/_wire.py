"""Putting messages together from parts that are serialised already (see https://protobuf.dev/programming-guides/encoding)."""

from __future__ import annotations

from functools import lru_cache

_LENGTH_DELIMITED = 2
_MOST = 1024
_LAST = [bytes([bits]) for bits in range(0x80)]
_MORE = [bytes([bits | 0x80]) for bits in range(0x80)]
"""Seven bits of a number as they stand: before no others, or before more."""


@lru_cache(maxsize=4096)
def prefix(field: int, length: int) -> bytes:
    """Give what stands before the bytes of a message in a field: the field's number, and the length."""
    return varint(field << 3 | _LENGTH_DELIMITED) + varint(length)


class Prefixes(dict[int, bytes]):
    """Gives `prefix` for a field, by the length: `Prefixes(1)[5]`."""

    def __init__(self, field: int) -> None:
        """Have none at hand yet."""
        super().__init__()
        self._field = field

    def __missing__(self, length: int) -> bytes:
        """Make what stands before a length, and keep it where those are few."""
        made = prefix(self._field, length)
        if len(self) < _MOST:
            self[length] = made
        return made


def varint(value: int) -> bytes:
    """Give a number that is not negative in its encoding."""
    return _MORE[value & 0x7F] + _rest(value >> 7) if value > 0x7F else _LAST[value]


# Of the positions of a log, most begin as the one before ended.
_rest = lru_cache(maxsize=1024)(varint)
