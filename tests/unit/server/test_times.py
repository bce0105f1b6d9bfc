"""Times that are none are refused, wherever a message holds them."""

from __future__ import annotations

import pytest
from google.protobuf.api_pb2 import Api
from google.protobuf.duration_pb2 import Duration
from google.protobuf.struct_pb2 import Struct
from google.protobuf.timestamp_pb2 import Timestamp

from ceqs.errors import Invalid
from ceqs.server import Decoder
from ceqs.server._times import malformed_times
from ceqs.v1.answers_pb2 import Age, Receipt
from ceqs.v1.events_pb2 import GetHeadResponse, ReadResponse, RecordedEvent

LAST = 253_402_300_799


@pytest.mark.parametrize(
    "time",
    [Timestamp(), Timestamp(seconds=-62_135_596_800), Timestamp(seconds=LAST, nanos=999_999_999)],
)
def test_a_time_of_the_calendar_is_none_of_them(time: Timestamp) -> None:
    assert list(malformed_times(Receipt(recorded_at=time))) == []


@pytest.mark.parametrize(
    "time",
    [
        Timestamp(seconds=-62_135_596_801),
        Timestamp(seconds=LAST + 1),
        Timestamp(nanos=-1),
        Timestamp(nanos=1_000_000_000),
    ],
)
def test_a_time_outside_the_calendar_is_named(time: Timestamp) -> None:
    assert [found.field for found in malformed_times(Age(recorded_at=time))] == ["recorded_at"]


def test_a_request_with_such_a_time_is_refused() -> None:
    request = Age(recorded_at=Timestamp(nanos=-1))
    with pytest.raises(Invalid, match="recorded_at: is no time between the years 1 and 9999"):
        Decoder(Age, strict=True)(request.SerializeToString())


def test_a_time_deep_inside_a_message_is_named_by_its_path() -> None:
    bad = Timestamp(nanos=-1)
    response = GetHeadResponse()
    response.head.recorded_at.CopyFrom(bad)
    assert [found.field for found in malformed_times(response)] == ["head.recorded_at"]
    batch = ReadResponse(events=[RecordedEvent(), RecordedEvent(recorded_at=bad)])
    assert [found.field for found in malformed_times(batch)] == ["events[1].recorded_at"]


def test_a_message_without_times_or_with_itself_inside_is_no_trouble() -> None:
    nested = Struct()
    nested.update({"a": {"b": {"c": [1, 2]}}})
    assert list(malformed_times(nested)) == []
    assert list(malformed_times(Api(name="x"))) == []


def test_a_duration_is_checked_as_well() -> None:
    from google.rpc.error_details_pb2 import RetryInfo

    good = [Duration(seconds=-3, nanos=-5), Duration(nanos=-5), Duration(seconds=315_576_000_000)]
    bad = [Duration(seconds=1, nanos=-1), Duration(seconds=315_576_000_001), Duration(nanos=1_000_000_000)]
    assert [list(malformed_times(RetryInfo(retry_delay=delay))) for delay in good] == [[], [], []]
    assert [len(list(malformed_times(RetryInfo(retry_delay=delay)))) for delay in bad] == [1, 1, 1]
