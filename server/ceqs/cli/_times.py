"""Moments as people write them."""

from __future__ import annotations

import datetime as dt
import re

from ceqs.errors import Misconfigured

_UNITS = {
    "s": dt.timedelta(seconds=1),
    "m": dt.timedelta(minutes=1),
    "h": dt.timedelta(hours=1),
    "d": dt.timedelta(days=1),
}


def time_of(option: str, text: str, now: dt.datetime) -> dt.datetime:
    """Read a time: `2010-12-02`, `2010-12-02T08:26`, in UTC unless it says otherwise, or `90s`, `15m`, `2h`, `7d` ago.

    Raises Misconfigured, naming the option.
    """
    if ago := re.fullmatch(r"(\d{1,5})([smhd])", text):
        return now - int(ago[1]) * _UNITS[ago[2]]
    try:
        time = dt.datetime.fromisoformat(text)
    except ValueError:
        raise Misconfigured(f"{option} {text}: no such time; write 2010-12-02, 2010-12-02T08:26 or 15m") from None
    return time if time.tzinfo else time.replace(tzinfo=dt.UTC)


def moment_of(option: str, text: str, now: dt.datetime) -> str | dt.datetime:
    """Read a moment: a time as above, or a consistency token, which never begins with a digit."""
    return time_of(option, text, now) if text[:1].isdigit() else text
