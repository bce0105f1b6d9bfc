"""UUIDv7 (RFC 9562, section 5.7), monotonic within one source (section 6.2, method 2)."""

from __future__ import annotations

import os
import secrets
import struct
import time
from collections.abc import Callable, Iterator
from itertools import chain, repeat
from weakref import WeakSet

_HIGH_BITS, _LOW_BITS = 26, 48
"""Of the 74 bits that are random or counted: those beside the version and the variant, and the last group."""
_MILLISECOND = 1_000_000
_DRAWS = struct.Struct("256I")


class Uuid7:
    """Gives new ids, each greater than the one before: 48 bits of milliseconds, then 74 random or counted bits."""

    def __init__(self, clock: Callable[[], int] = time.time_ns) -> None:
        self._clock = clock
        self._milliseconds = 0
        self._over = _MILLISECOND
        """When, in nanoseconds, that millisecond is over."""
        self._high = self._low = 0
        self._prefix = ""
        self._draws = _draws()
        _sources.add(self)

    def renew(self) -> None:
        """Forget what is drawn already."""
        self._over, self._draws = 0, _draws()

    def __call__(self) -> str:
        """Give a new id: lower case with hyphens."""
        now = self._clock()
        if now >= self._over:
            self._begin(now // _MILLISECOND)
        else:
            self._low += 1 + next(self._draws)
            if self._low >> _LOW_BITS:
                self._carry()
        return self._prefix + self._low.to_bytes(_LOW_BITS // 8).hex()

    def _begin(self, milliseconds: int) -> None:
        self._milliseconds = milliseconds
        self._over = (milliseconds + 1) * _MILLISECOND
        # The top bit stays clear, so that counting within a millisecond has room.
        self._high = next(self._draws) >> 32 - _HIGH_BITS + 1
        self._low = (next(self._draws) << 32 | next(self._draws)) >> 64 - _LOW_BITS
        self._write_prefix()

    def _carry(self) -> None:
        self._low &= (1 << _LOW_BITS) - 1
        self._high += 1
        if self._high >> _HIGH_BITS:
            self._begin(self._milliseconds + 1)
        else:
            self._write_prefix()

    def _write_prefix(self) -> None:
        """Write what many ids in a row have in common."""
        time = f"{self._milliseconds:012x}"
        variant = 0b10 << 14 | self._high & (1 << 14) - 1
        self._prefix = f"{time[:8]}-{time[8:]}-7{self._high >> 14:03x}-{variant:04x}-"


def _draws() -> Iterator[int]:
    """Give random numbers of 32 bits, many for one call to the system, which costs more than all the rest of an id."""
    return chain.from_iterable(_DRAWS.unpack(secrets.token_bytes(_DRAWS.size)) for _ in repeat(None))


_sources = WeakSet[Uuid7]()


def _renew_all() -> None:
    for source in _sources:
        source.renew()


# What was drawn before a fork, each of the two processes would give.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_all)

new_id: Callable[[], str] = Uuid7()
"""Gives a new UUIDv7, lower case with hyphens."""
