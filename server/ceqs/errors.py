"""The one error tree of ceqs and its gRPC status table.

    CeqsError
    ├── Rejected          FAILED_PRECONDITION   ErrorInfo(reason, domain=context)
    ├── Invalid           INVALID_ARGUMENT      BadRequest
    ├── Conflict          ABORTED               RetryInfo
    ├── DuplicateCommand  ALREADY_EXISTS        ErrorInfo
    ├── NotFound          NOT_FOUND             ErrorInfo
    ├── OutOfRange        OUT_OF_RANGE          ErrorInfo
    ├── Expired           DEADLINE_EXCEEDED     ErrorInfo
    ├── Unavailable       UNAVAILABLE           RetryInfo
    │   ├── LogUnavailable
    │   │   └── LogReplaced
    │   ├── Unreadable
    │   └── Behind
    ├── Overloaded        RESOURCE_EXHAUSTED    RetryInfo
    │   └── TooLarge                            never RetryInfo
    ├── Unauthenticated   UNAUTHENTICATED       ErrorInfo
    ├── Denied            PERMISSION_DENIED     ErrorInfo
    ├── Unimplemented     UNIMPLEMENTED         ErrorInfo
    ├── Internal          INTERNAL              ErrorInfo: the id that stands in the process log
    └── Misconfigured     never sent: start-up and command-line errors (exit code 2)

Details follow AIP-193 (https://google.aip.dev/193).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from google.protobuf import any_pb2, duration_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2

__all__ = [
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


class CeqsError(Exception):
    """Something went wrong in ceqs. The message says what, and how to mend it."""

    code: ClassVar[int] = code_pb2.INTERNAL
    reason: str
    retry_after: float | None = None
    """Seconds after which trying again makes sense; None where it does not."""

    def __init__(self, message: str = "", *, metadata: Mapping[str, str] | None = None) -> None:
        self.message = message or (type(self).__doc__ or "").partition("\n")[0]
        self.metadata = dict(metadata or {})
        if not hasattr(self, "reason"):
            self.reason = _upper_snake(type(self).__name__)
        super().__init__(self.message)


class Rejected(CeqsError):
    """A business rule refuses the command. Nothing was appended."""

    code = code_pb2.FAILED_PRECONDITION

    def __init__(self, reason: str, message: str = "", *, metadata: Mapping[str, str] | None = None) -> None:
        self.reason = reason
        super().__init__(message or reason, metadata=metadata)


@dataclass(frozen=True, slots=True)
class Violation:
    """One thing that is wrong with a request: where, and what."""

    field: str
    description: str


class Invalid(CeqsError):
    """The request is malformed."""

    code = code_pb2.INVALID_ARGUMENT

    def __init__(self, message: str = "", violations: Sequence[Violation] = ()) -> None:
        self.violations = tuple(violations)
        super().__init__(message or "; ".join(f"{v.field}: {v.description}" for v in self.violations))


class Conflict(CeqsError):
    """The boundary moved while the command was decided. Try again."""

    code = code_pb2.ABORTED
    retry_after = 0.01


class DuplicateCommand(CeqsError):
    """The command id was used before with other content. Use a new id for a new command."""

    code = code_pb2.ALREADY_EXISTS


class NotFound(CeqsError):
    """There is nothing of that name."""

    code = code_pb2.NOT_FOUND


class OutOfRange(CeqsError):
    """The position or time lies beyond what is recorded."""

    code = code_pb2.OUT_OF_RANGE


class Expired(CeqsError):
    """The deadline passed before anything was appended."""

    code = code_pb2.DEADLINE_EXCEEDED


class Unavailable(CeqsError):
    """The service cannot answer now. Try again."""

    code = code_pb2.UNAVAILABLE
    retry_after = 0.25


class Behind(Unavailable):
    """The model has not reached the position that the query asks for. Try again."""

    retry_after = 0.05


class LogUnavailable(Unavailable):
    """The event log cannot be reached. Try again."""


class LogReplaced(LogUnavailable):
    """The log is another one than before: it was restored from a backup, or renewed. Positions in it start anew."""


class Unreadable(Unavailable):
    """The log holds an event that this build cannot read. Deploy the one that can; what waits goes on by itself."""


class Overloaded(CeqsError):
    """Too many commands are waiting. Try again later."""

    code = code_pb2.RESOURCE_EXHAUSTED
    retry_after: float | None = 0.5


class TooLarge(Overloaded):
    """Answering takes more than the server's limits allow."""

    retry_after = None


class Unauthenticated(CeqsError):
    """The call carries no key. Send the context's key as metadata `ceqs-key` (CEQS_KEY)."""

    code = code_pb2.UNAUTHENTICATED


class Denied(CeqsError):
    """The call's key is not the context's. Send the context's key as metadata `ceqs-key` (CEQS_KEY)."""

    code = code_pb2.PERMISSION_DENIED


class Unimplemented(CeqsError):
    """The server does not serve this."""

    code = code_pb2.UNIMPLEMENTED


class Internal(CeqsError):
    """The server failed. Its process log says more under the same error id."""


class Misconfigured(CeqsError):
    """The configuration, the contract or the handlers do not fit together."""


_BY_CODE: dict[int, type[CeqsError]] = {
    cls.code: cls
    for cls in (
        Conflict,
        DuplicateCommand,
        NotFound,
        OutOfRange,
        Expired,
        Unavailable,
        Overloaded,
        Unauthenticated,
        Denied,
        Unimplemented,
        Internal,
    )
}
_BY_REASON: dict[str, type[CeqsError]] = {
    "BEHIND": Behind,
    "LOG_UNAVAILABLE": LogUnavailable,
    "TOO_LARGE": TooLarge,
    "LOG_REPLACED": LogReplaced,
    "UNREADABLE": Unreadable,
}


def to_status(error: CeqsError, domain: str) -> status_pb2.Status:
    """Give the error as a google.rpc.Status; `domain` is the context's name."""
    status = status_pb2.Status(code=error.code, message=error.message)
    info = error_details_pb2.ErrorInfo(reason=error.reason, domain=domain, metadata=error.metadata)
    _pack(status, info)
    if isinstance(error, Invalid):
        bad = error_details_pb2.BadRequest()
        for violation in error.violations:
            bad.field_violations.add(field=violation.field, description=violation.description)
        _pack(status, bad)
    if error.retry_after is not None:
        delay = duration_pb2.Duration()
        delay.FromMilliseconds(round(error.retry_after * 1000))
        _pack(status, error_details_pb2.RetryInfo(retry_delay=delay))
    return status


def from_status(status: status_pb2.Status) -> CeqsError:
    """Give the error that a google.rpc.Status stands for, as `to_status` made it or any other server did.

    Its `retry_after` is what the server said: None where the status has no RetryInfo, whatever the class's default.
    """
    info, bad, retry = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest(), error_details_pb2.RetryInfo()
    retry_after: float | None = None
    for detail in status.details:
        if detail.Unpack(retry):
            retry_after = retry.retry_delay.ToMilliseconds() / 1000
        else:
            _ = detail.Unpack(info) or detail.Unpack(bad)
    error: CeqsError
    if status.code == code_pb2.FAILED_PRECONDITION:
        error = Rejected(info.reason or "FAILED_PRECONDITION", status.message, metadata=info.metadata)
    elif status.code == code_pb2.INVALID_ARGUMENT:
        error = Invalid(status.message, [Violation(v.field, v.description) for v in bad.field_violations])
    else:
        error = _BY_REASON.get(info.reason, _BY_CODE.get(status.code, Internal))(status.message, metadata=info.metadata)
    error.reason = info.reason or error.reason
    error.retry_after = retry_after
    return error


def _pack(
    status: status_pb2.Status,
    detail: error_details_pb2.ErrorInfo | error_details_pb2.BadRequest | error_details_pb2.RetryInfo,
) -> None:
    packed = any_pb2.Any()
    packed.Pack(detail)
    status.details.append(packed)


def _upper_snake(name: str) -> str:
    return "".join(f"_{c}" if c.isupper() and i else c for i, c in enumerate(name)).upper()


def as_json(error: CeqsError) -> str:
    """Give the error as one line of JSON, for `--output json`."""
    return json.dumps({"error": error.reason, "message": error.message, **error.metadata})
