"""Tags and partition buckets."""

from __future__ import annotations

from typing import Any

import pytest

from ceqs.contract import BUCKETS, MAX_TAG_VALUE, bucket_of, tag_fields, tags_of
from ceqs.errors import Invalid


def test_tags_stand_in_the_order_of_the_fields_each_once(library: Any) -> None:
    request = library.LendBookRequest(book_id="b1", member_ids=["m2", "m1", "m2"])
    assert tags_of(request, tag_fields(request.DESCRIPTOR)) == ("book:b1", "member:m2", "member:m1")


def test_unset_and_empty_fields_give_no_tag(library: Any) -> None:
    request = library.LendBookRequest(member_ids=["", "m1"])
    assert tags_of(request, tag_fields(request.DESCRIPTOR)) == ("member:m1",)


def test_numbers_are_tags_in_decimal_and_a_listed_zero_counts(library: Any) -> None:
    closed = library.LibraryClosed(branch_numbers=[0, 12, -3])
    assert tags_of(closed, tag_fields(closed.DESCRIPTOR)) == ("branch:0", "branch:12", "branch:-3")


@pytest.mark.parametrize("value", ["*", ">", "a.b", "a b", "käse:1", "'; drop table events"])
def test_text_that_means_something_elsewhere_is_a_plain_value(library: Any, value: str) -> None:
    event = library.BookAcquired(book_id=value)
    assert tags_of(event, tag_fields(event.DESCRIPTOR)) == (f"book:{value}",)


@pytest.mark.parametrize("value", ["a\0b", "a\nb", "\x7f", "\t"])
def test_control_characters_are_refused_by_field(library: Any, value: str) -> None:
    event = library.BookAcquired(book_id=value)
    with pytest.raises(Invalid, match="book_id: must not contain control characters") as refused:
        tags_of(event, tag_fields(event.DESCRIPTOR))
    assert [violation.field for violation in refused.value.violations] == ["book_id"]


def test_a_value_is_limited_in_utf8_bytes(library: Any) -> None:
    fields = tag_fields(library.BookAcquired.DESCRIPTOR)
    longest = "ä" * (MAX_TAG_VALUE // 2)
    assert tags_of(library.BookAcquired(book_id=longest), fields) == (f"book:{longest}",)
    with pytest.raises(Invalid, match=f"book_id: must be at most {MAX_TAG_VALUE} bytes long"):
        tags_of(library.BookAcquired(book_id=longest + "a"), fields)


def test_a_bucket_follows_the_partition_key_only(library: Any) -> None:
    lent = library.contract.events["library.v1.BookLent"]
    buckets = {bucket_of(lent, [f"book:{book}", "member:m1"]) for book in range(50)}
    assert len(buckets) == 1
    spread = {bucket_of(lent, ["book:b1", f"member:{member}"]) for member in range(2000)}
    assert spread <= set(range(BUCKETS))
    assert len(spread) > BUCKETS * 0.9


def test_buckets_never_change() -> None:
    """They are frozen in the logs of the world: this pins the hash."""
    from google.protobuf.empty_pb2 import Empty

    from ceqs.contract import EventType

    event = EventType("E", "p.E", Empty, "on_e", public=False, version=1, tags=(), partition_by="order")
    assert [bucket_of(event, [f"order:{number}"]) for number in (536365, 536366, "C536379")] == [158, 36, 206]


def test_an_event_without_its_partition_key_is_in_bucket_zero(library: Any) -> None:
    lent = library.contract.events["library.v1.BookLent"]
    assert bucket_of(lent, ["book:b1"]) == 0
