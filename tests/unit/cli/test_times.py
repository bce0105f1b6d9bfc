"""Moments as people write them."""

from __future__ import annotations

import datetime as dt

import pytest

from ceqs.cli._times import moment_of, time_of
from ceqs.contract import encode_token
from ceqs.errors import Misconfigured

NOW = dt.datetime(2010, 12, 2, 8, 26, tzinfo=dt.UTC)


@pytest.mark.parametrize(
    ("text", "ago"), [("90s", {"seconds": 90}), ("15m", {"minutes": 15}), ("2h", {"hours": 2}), ("7d", {"days": 7})]
)
def test_a_time_may_be_so_long_ago(text: str, ago: dict[str, int]) -> None:
    assert time_of("--since", text, NOW) == NOW - dt.timedelta(**ago)


def test_a_time_is_in_utc_unless_it_says_otherwise() -> None:
    assert time_of("--as-of", "2010-12-02", NOW) == dt.datetime(2010, 12, 2, tzinfo=dt.UTC)
    assert time_of("--as-of", "2010-12-02T08:26", NOW) == NOW
    assert time_of("--as-of", "2010-12-02T09:26+01:00", NOW) == NOW


def test_what_is_no_time_is_refused_by_the_options_name() -> None:
    with pytest.raises(Misconfigured, match="--as-of 2010-13-02: no such time; write 2010-12-02"):
        time_of("--as-of", "2010-13-02", NOW)


def test_a_moment_is_a_time_or_a_token() -> None:
    token = encode_token({"log": 7})
    assert moment_of("--as-of", token, NOW) == token
    assert moment_of("--as-of", "1h", NOW) == NOW - dt.timedelta(hours=1)
