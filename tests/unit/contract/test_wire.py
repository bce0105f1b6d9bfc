"""What stands before a field, and numbers, are as protobuf writes them."""

from __future__ import annotations

from google.protobuf.wrappers_pb2 import BytesValue, UInt64Value
from hypothesis import example, given
from hypothesis import strategies as st

from ceqs.contract import Prefixes, prefix, varint


@given(st.integers(1, 2**64 - 1))
@example(0x7F)
@example(0x80)
@example(0x3FFF)
@example(0x4000)
@example(2**64 - 1)
def test_a_number_is_written_as_in_a_message(number: int) -> None:
    assert b"\x08" + varint(number) == UInt64Value(value=number).SerializeToString()


def test_zero_is_one_byte() -> None:
    assert varint(0) == b"\0"


@given(st.binary(min_size=1, max_size=300))
def test_the_length_of_a_field_is_written_as_in_a_message(raw: bytes) -> None:
    message = BytesValue(value=raw).SerializeToString()
    assert prefix(1, len(raw)) + raw == message
    assert Prefixes(1)[len(raw)] + raw == message
