"""Consistency tokens."""

from __future__ import annotations

import contextlib
import datetime as dt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ceqs.contract import decode_moment, decode_token, encode_moment, encode_token, merge_tokens
from ceqs.errors import Invalid
from ceqs.v1.answers_pb2 import Age

positions = st.dictionaries(st.text(min_size=1, max_size=40), st.integers(0, 2**64 - 1), min_size=1, max_size=5)


@given(positions)
def test_a_token_gives_its_positions_again(value: dict[str, int]) -> None:
    token = encode_token(value)
    assert decode_token(token) == value
    assert token.isascii()
    assert token.isprintable()


def test_the_same_positions_give_the_same_token() -> None:
    assert encode_token({"a": 1, "b": 2}) == encode_token({"b": 2, "a": 1})


@given(positions, positions)
def test_merging_keeps_the_highest_position_of_each_log(one: dict[str, int], other: dict[str, int]) -> None:
    merged = decode_token(merge_tokens(encode_token(one), "", encode_token(other)))
    assert merged == {log: max(one.get(log, 0), other.get(log, 0)) for log in one | other}


def test_merging_nothing_gives_no_token() -> None:
    assert merge_tokens() == ""
    assert merge_tokens("", "") == ""
    assert decode_token("") == {}


@pytest.mark.parametrize(
    "garbage",
    [
        "17",
        "a",
        "not a token",
        "ünïcode",
        "AAAA",
        "====",
        "../../etc",
        "\0",
        encode_token({"log": 7})[:-3],
        encode_token({"log": 7}) + "!",
        "MAA",  # bytes of a message that has no positions
    ],
)
def test_garbage_is_invalid(garbage: str) -> None:
    with pytest.raises(Invalid, match="ceqs-at-least: is not a consistency token"):
        decode_token(garbage)


@given(st.text())
def test_any_text_is_a_token_or_invalid(text: str) -> None:
    with contextlib.suppress(Invalid):
        assert all(isinstance(position, int) for position in decode_token(text).values())


def test_another_message_is_no_token() -> None:
    import base64

    foreign = base64.urlsafe_b64encode(Age(lag_events=3).SerializeToString()).decode()
    with pytest.raises(Invalid):
        decode_token(foreign)


@given(positions)
def test_a_moment_may_be_a_token(value: dict[str, int]) -> None:
    assert decode_moment(encode_moment(encode_token(value))) == value


@given(st.datetimes(timezones=st.just(dt.UTC)))
def test_a_moment_may_be_a_time(time: dt.datetime) -> None:
    assert decode_moment(encode_moment(time)) == time


def test_a_time_says_where_it_counts() -> None:
    assert decode_moment("2010-12-02T09:26:00.25+01:00") == dt.datetime(2010, 12, 2, 8, 26, 0, 250_000, dt.UTC)
    with pytest.raises(Invalid, match="must have a time zone"):
        encode_moment(dt.datetime(2010, 12, 2))  # that is what is refused
