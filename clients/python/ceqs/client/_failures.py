"""What a failed call means: which error it is, whether trying again can help, and when."""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import dataclass, field

import grpc
import grpc.aio
from google.rpc import status_pb2

from ceqs.errors import CeqsError, Conflict, Expired, Invalid, Unavailable, from_status

FIRST_DELAY = 0.05
LONGEST_DELAY = 2.0
"""Seconds between attempts, before jitter."""


def error_of(failure: grpc.aio.AioRpcError) -> CeqsError:
    """Give the error that a failed call stands for."""
    code, message = failure.code(), failure.details() or ""
    for key, value in failure.trailing_metadata() or ():
        if key == "grpc-status-details-bin" and isinstance(value, bytes):
            return from_status(status_pb2.Status.FromString(value))
    if code is grpc.StatusCode.CANCELLED:
        # Not by us: a server that stops cancels the calls that outlast its grace.
        return Unavailable(f"the server ended the call: {message}")
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED and "larger than max" in message:
        return Invalid(f"the message is too large: {message}")
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return Expired("no answer came in time; what was asked for may still be done")
    number: int = code.value[0]
    return from_status(status_pb2.Status(code=number, message=message))


def can_retry(error: CeqsError) -> bool:
    """Say whether the same call may succeed later: the server said so, or it never answered."""
    return error.retry_after is not None or isinstance(error, (Unavailable, Conflict, Expired))


@dataclass(slots=True)
class Patience:
    """How long a logical call may take, over all of its attempts. `timeout` is in seconds; None waits forever."""

    timeout: float | None
    _started: float = field(default_factory=time.monotonic)
    _failures: int = 0
    _told: CeqsError | None = None

    def left(self) -> float:
        """Give the seconds that are left."""
        return float("inf") if self.timeout is None else self.timeout - (time.monotonic() - self._started)

    async def after(self, error: CeqsError) -> None:
        """Wait before the next attempt, with jitter. Raises the error where trying again cannot help in time."""
        ceiling = min(LONGEST_DELAY, FIRST_DELAY * 2**self._failures)
        delay = max(error.retry_after or 0.0, random.uniform(0, ceiling))  # noqa: S311  # jitter, no secret
        self._failures = min(self._failures + 1, 10)
        if not isinstance(error, Expired):
            self._told = error
        if not can_retry(error) or delay >= self.left():
            # That the last attempt had no time left tells less than what the one before it was told.
            raise (self._told or error) from None
        await asyncio.sleep(delay)
