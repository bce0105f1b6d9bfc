"""UUIDv7 (RFC 9562, section 5.7), monotonic within one source (section 6.2, method 2)."""

from __future__ import annotations

import secrets
import struct
import time
from collections.abc import Callable, Iterator

_RANDOM_BITS = 74
_LOW_BITS = 62
_LOW = (1 << _LOW_BITS) - 1
_VARIANT = 2 << _LOW_BITS
_DRAWS = struct.Struct("256I")


class Uuid7:
    """Gives new ids, each greater than the one before: 48 bits of milliseconds, then 74 random or counted bits."""

    def __init__(self, clock: Callable[[], int] = time.time_ns) -> None:
        self._clock = clock
        self._milliseconds = 0
        self._random = 0
        self._prefix = ""
        self._draws = _draws()

    def __call__(self) -> str:
        """Give a new id: lower case with hyphens."""
        now = self._clock() // 1_000_000
        if now > self._milliseconds:
            self._begin(now)
        else:
            self._random += 1 + next(self._draws)
            if self._random >> _RANDOM_BITS:
                self._begin(self._milliseconds + 1)
        low = f"{_VARIANT | self._random & _LOW:016x}"
        return f"{self._prefix}{self._random >> _LOW_BITS:03x}-{low[:4]}-{low[4:]}"

    def _begin(self, milliseconds: int) -> None:
        """Begin a millisecond: its digits are the same for all of its ids."""
        # The top bit stays clear, so that counting within a millisecond has room.
        drawn = next(self._draws) << 64 | next(self._draws) << 32 | next(self._draws)
        self._milliseconds, self._random = milliseconds, drawn >> 96 - _RANDOM_BITS + 1
        digits = f"{milliseconds:012x}"
        self._prefix = f"{digits[:8]}-{digits[8:]}-7"


def _draws() -> Iterator[int]:
    """Give random numbers of 32 bits, many for one call to the system, which costs more than all the rest of an id."""
    while True:
        yield from _DRAWS.unpack(secrets.token_bytes(_DRAWS.size))


new_id: Callable[[], str] = Uuid7()
"""Gives a new UUIDv7, lower case with hyphens."""
