"""UUIDv7 (RFC 9562, section 5.7), monotonic within one source (section 6.2, method 2)."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable

_RANDOM_BITS = 74


class Uuid7:
    """Gives new ids, each greater than the one before: 48 bits of milliseconds, then 74 random or counted bits."""

    def __init__(self, clock: Callable[[], int] = time.time_ns) -> None:
        self._clock = clock
        self._milliseconds = 0
        self._random = 0

    def __call__(self) -> str:
        """Give a new id: lower case with hyphens."""
        now = self._clock() // 1_000_000
        if now > self._milliseconds:
            # The top bit stays clear, so that counting within a millisecond has room.
            self._milliseconds, self._random = now, secrets.randbits(_RANDOM_BITS - 1)
        else:
            self._random += 1 + secrets.randbits(32)
            if self._random >> _RANDOM_BITS:
                self._milliseconds, self._random = self._milliseconds + 1, secrets.randbits(_RANDOM_BITS - 1)
        high, low = self._random >> 62, self._random & ((1 << 62) - 1)
        digits = f"{self._milliseconds << 80 | 7 << 76 | high << 64 | 2 << 62 | low:032x}"
        return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


new_id: Callable[[], str] = Uuid7()
"""Gives a new UUIDv7, lower case with hyphens."""
