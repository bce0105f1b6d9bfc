"""UUIDv7 (RFC 9562, section 5.7), monotonic within one source (section 6.2, method 2)."""

from __future__ import annotations

import secrets
import struct
import time
from collections.abc import Callable, Iterator

_RANDOM_BITS = 74
_DRAWS = struct.Struct("256I")


class Uuid7:
    """Gives new ids, each greater than the one before: 48 bits of milliseconds, then 74 random or counted bits."""

    def __init__(self, clock: Callable[[], int] = time.time_ns) -> None:
        self._clock = clock
        self._milliseconds = 0
        self._random = 0
        self._draws = _draws()

    def __call__(self) -> str:
        """Give a new id: lower case with hyphens."""
        now = self._clock() // 1_000_000
        if now > self._milliseconds:
            # The top bit stays clear, so that counting within a millisecond has room.
            self._milliseconds, self._random = now, secrets.randbits(_RANDOM_BITS - 1)
        else:
            self._random += 1 + next(self._draws)
            if self._random >> _RANDOM_BITS:
                self._milliseconds, self._random = self._milliseconds + 1, secrets.randbits(_RANDOM_BITS - 1)
        high, low = self._random >> 62, self._random & ((1 << 62) - 1)
        digits = f"{self._milliseconds << 80 | 7 << 76 | high << 64 | 2 << 62 | low:032x}"
        return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def _draws() -> Iterator[int]:
    """Give random numbers of 32 bits, many for one call to the system, which costs more than all the rest of an id."""
    while True:
        yield from _DRAWS.unpack(secrets.token_bytes(_DRAWS.size))


new_id: Callable[[], str] = Uuid7()
"""Gives a new UUIDv7, lower case with hyphens."""
