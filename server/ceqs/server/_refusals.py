"""What goes wrong in a call, as a gRPC status with its details."""

from __future__ import annotations

import uuid
from typing import Any, NoReturn

import grpc
import structlog
from google.rpc import status_pb2

from ceqs.errors import CeqsError, Internal, Invalid, Misconfigured, to_status

DETAILS = "grpc-status-details-bin"
MAX_VIOLATIONS = 8
MAX_MESSAGE_BYTES = 1024
MAX_DETAILS_BYTES = 2048
"""gRPC clients drop a call whose trailers exceed 8 KiB, message and details in their encodings together."""

_log = structlog.get_logger("ceqs.server")
_CODES = {code.value[0]: code for code in grpc.StatusCode}


async def refuse(context: Any, error: Exception, *, domain: str, rpc: str) -> NoReturn:
    """End a call with the status of an error."""
    status = status_of(error, domain=domain, rpc=rpc)
    details = ((DETAILS, status.SerializeToString()),)
    await context.abort(_CODES[status.code], status.message, details)
    raise AssertionError("abort raises")


def status_of(error: BaseException, *, domain: str, rpc: str) -> status_pb2.Status:
    """Give the status of an error.

    An error outside the tree, or one that tells of a broken service, stands in the process log under an id, and the
    caller is told the id only.
    """
    if not isinstance(error, CeqsError) or isinstance(error, Internal | Misconfigured):
        error = _internal(error, rpc)
    if isinstance(error, Invalid):
        error.violations = error.violations[:MAX_VIOLATIONS]
    return bounded(to_status(error, domain))


def bounded(status: status_pb2.Status) -> status_pb2.Status:
    """Give the status cut to what trailers can carry."""
    message = status.message.encode()
    if len(message) > MAX_MESSAGE_BYTES:
        status.message = message[: MAX_MESSAGE_BYTES - 3].decode(errors="ignore") + "..."
    while status.details and sum(len(detail.value) for detail in status.details) > MAX_DETAILS_BYTES:
        del status.details[max(range(len(status.details)), key=lambda i: len(status.details[i].value))]
    return status


def _internal(error: BaseException, rpc: str) -> Internal:
    error_id = uuid.uuid4().hex
    _log.error("call failed", error_id=error_id, rpc=rpc, exc_info=error)
    return Internal(
        f"The server failed. Its process log says more under the error id {error_id}.", metadata={"error_id": error_id}
    )
