"""The error tree and its status table."""

from __future__ import annotations

import json
import re

import pytest
from google.protobuf import any_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2

from ceqs import errors
from ceqs.errors import (
    Behind,
    CeqsError,
    Conflict,
    Denied,
    DuplicateCommand,
    Expired,
    Internal,
    Invalid,
    LogReplaced,
    LogUnavailable,
    Misconfigured,
    NotFound,
    OutOfRange,
    Overloaded,
    Rejected,
    TooLarge,
    Unauthenticated,
    Unavailable,
    Unimplemented,
    Unreadable,
    Violation,
    as_json,
    from_status,
    to_status,
)

TABLE: dict[type[CeqsError], str] = {
    Rejected: "FAILED_PRECONDITION",
    Invalid: "INVALID_ARGUMENT",
    Conflict: "ABORTED",
    DuplicateCommand: "ALREADY_EXISTS",
    NotFound: "NOT_FOUND",
    OutOfRange: "OUT_OF_RANGE",
    Expired: "DEADLINE_EXCEEDED",
    Unavailable: "UNAVAILABLE",
    Behind: "UNAVAILABLE",
    LogReplaced: "UNAVAILABLE",
    LogUnavailable: "UNAVAILABLE",
    Unreadable: "UNAVAILABLE",
    Overloaded: "RESOURCE_EXHAUSTED",
    TooLarge: "RESOURCE_EXHAUSTED",
    Unauthenticated: "UNAUTHENTICATED",
    Denied: "PERMISSION_DENIED",
    Unimplemented: "UNIMPLEMENTED",
    Internal: "INTERNAL",
}
RETRIED = {Conflict, Unavailable, Behind, LogReplaced, LogUnavailable, Unreadable, Overloaded}
SENT = sorted(TABLE, key=lambda cls: cls.__name__)


def a(cls: type[CeqsError]) -> CeqsError:
    if issubclass(cls, Rejected):
        return cls("ORDER_EXISTS", "order 1 was placed before", metadata={"order": "1"})
    if issubclass(cls, Invalid):
        return cls(
            violations=[Violation("lines[0].quantity", "must be positive"), Violation("order_id", "is required")]
        )
    return cls("what, and how to mend it", metadata={"error_id": "e1"})


def everyone(cls: type[CeqsError] = CeqsError) -> set[type[CeqsError]]:
    return {cls}.union(*(everyone(below) for below in cls.__subclasses__() if below.__module__ == errors.__name__))


def test_the_table_is_complete() -> None:
    assert everyone() == {*TABLE, CeqsError, Misconfigured}
    assert {cls: code_pb2.Code.Name(cls.code) for cls in TABLE} == TABLE


def test_the_tree_of_the_docstring_is_the_tree_of_the_classes() -> None:
    drawn: dict[str, tuple[str, str]] = {}
    parents: list[str] = ["CeqsError"]
    for line in (errors.__doc__ or "").splitlines():
        found = re.match(r"^    ((?:│   )*)[├└]── (\w+) *([A-Z_]{5,})?", line)
        if found:
            depth = len(found[1]) // 4
            parents[depth + 1 :] = [found[2]]
            drawn[found[2]] = (parents[depth], found[3] or "")
    assert drawn.keys() == {cls.__name__ for cls in everyone() - {CeqsError}}
    for name, (parent, code) in drawn.items():
        cls = getattr(errors, name)
        assert cls.__bases__[0].__name__ == parent
        if cls in TABLE and code:
            assert TABLE[cls] == code


def test_all_is_pinned() -> None:
    assert sorted(errors.__all__) == [
        "Behind",
        "CeqsError",
        "Conflict",
        "Denied",
        "DuplicateCommand",
        "Expired",
        "Internal",
        "Invalid",
        "LogReplaced",
        "LogUnavailable",
        "Misconfigured",
        "NotFound",
        "OutOfRange",
        "Overloaded",
        "Rejected",
        "TooLarge",
        "Unauthenticated",
        "Unavailable",
        "Unimplemented",
        "Unreadable",
        "Violation",
        "as_json",
        "from_status",
        "to_status",
    ]


@pytest.mark.parametrize("cls", SENT)
def test_an_error_survives_the_wire(cls: type[CeqsError]) -> None:
    sent = a(cls)
    received = from_status(status_pb2.Status.FromString(to_status(sent, "orders").SerializeToString()))
    assert type(received) is cls
    assert (received.message, received.reason) == (sent.message, sent.reason)
    assert received.retry_after == sent.retry_after
    assert (received.retry_after is not None) == (cls in RETRIED)
    if isinstance(sent, Invalid):
        assert isinstance(received, Invalid)
        assert received.violations == sent.violations
    else:
        assert received.metadata == sent.metadata


@pytest.mark.parametrize("cls", SENT)
def test_details_follow_aip_193(cls: type[CeqsError]) -> None:
    status = to_status(a(cls), "orders")
    details = {detail.type_url.removeprefix("type.googleapis.com/google.rpc."): detail for detail in status.details}
    info = error_details_pb2.ErrorInfo()
    assert details["ErrorInfo"].Unpack(info)
    assert info.domain == "orders"
    assert re.fullmatch(r"[A-Z][A-Z0-9_]+[A-Z0-9]", info.reason)
    assert ("RetryInfo" in details) == (cls in RETRIED)
    assert ("BadRequest" in details) == (cls is Invalid)
    assert status.message


@pytest.mark.parametrize("cls", SENT)
def test_a_status_without_details_becomes_the_nearest_error(cls: type[CeqsError]) -> None:
    received = from_status(status_pb2.Status(code=cls.code, message="plain"))
    assert isinstance(received, CeqsError)
    assert issubclass(cls, type(received))
    assert received.message == "plain"
    assert received.retry_after is None, "the server did not say when to try again"


@pytest.mark.parametrize("code", [code_pb2.UNKNOWN, code_pb2.DATA_LOSS, 4711])
def test_a_status_that_is_not_in_the_table_is_internal(code: int) -> None:
    assert type(from_status(status_pb2.Status(code=code, message="?"))) is Internal


def test_details_of_others_are_skipped() -> None:
    status = to_status(Rejected("NOT_PAID"), "orders")
    foreign = any_pb2.Any()
    foreign.Pack(error_details_pb2.Help())
    status.details.insert(0, foreign)
    status.details.append(any_pb2.Any(type_url="type.googleapis.com/acme.Unknown", value=b"\xff"))
    assert from_status(status).reason == "NOT_PAID"


def test_a_delay_of_the_sender_wins_over_the_default() -> None:
    sent = Overloaded()
    sent.retry_after = 7.25
    assert from_status(to_status(sent, "orders")).retry_after == 7.25


def test_the_docstring_is_the_default_message() -> None:
    assert Denied().message == (Denied.__doc__ or "").partition("\n")[0]
    assert str(Denied()) == Denied().message
    assert Rejected("NOT_PAID").message == "NOT_PAID"
    assert str(Invalid(violations=[Violation("a", "is wrong"), Violation("b", "too")])) == "a: is wrong; b: too"
    assert Invalid().message == "The request is malformed."


def test_a_reason_is_the_name_of_the_class() -> None:
    assert DuplicateCommand().reason == "DUPLICATE_COMMAND"
    assert LogUnavailable().reason == "LOG_UNAVAILABLE"


def test_an_error_is_one_line_of_json() -> None:
    line = as_json(Rejected("NOT_PAID", "two\nlines", metadata={"order": "1"}))
    assert "\n" not in line
    assert json.loads(line) == {"error": "NOT_PAID", "message": "two\nlines", "order": "1"}


def test_a_reason_of_the_senders_own_is_kept() -> None:
    status = to_status(NotFound("no such shelf"), "library")
    status.details[0].Pack(error_details_pb2.ErrorInfo(reason="NO_SUCH_SHELF", domain="library"))
    assert from_status(status).reason == "NO_SUCH_SHELF"
