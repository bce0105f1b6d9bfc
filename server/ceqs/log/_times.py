"""Times as the log stores them."""

from __future__ import annotations

import datetime as dt

_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


def to_micros(time: dt.datetime) -> int:
    """Give an aware time as microseconds since 1970."""
    return (time - _EPOCH) // dt.timedelta(microseconds=1)


def from_micros(micros: int) -> dt.datetime:
    """Give microseconds since 1970 as a time in UTC."""
    return _EPOCH + dt.timedelta(microseconds=micros)
