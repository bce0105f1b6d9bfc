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
_LOST = "Internal error from Core"
"""What grpcio says where a write fails after the server has ended the call, instead of what the server said
(https://github.com/grpc/grpc/issues/36066)."""
NO_ANSWER = "no answer came in time; what was asked for may still be done"


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
    if code is grpc.StatusCode.INTERNAL and message == _LOST:
        return Unavailable("the server ended the stream; what it said is lost")
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return Expired(NO_ANSWER)
    number: int = code.value[0]
    return from_status(status_pb2.Status(code=number, message=message))


def can_retry(error: CeqsError) -> bool:
    """Say whether the same call may succeed later: the server said so, or it never answered."""
    return error.retry_after is not None or isinstance(error, (Unavailable, Conflict, Expired))


def leave_open(error: CeqsError, command_id: str) -> None:
    """Say with an error that leaves it open how to find out whether the command was done."""
    if can_retry(error):
        error.add_note(f"It may have been done. Send it again with command_id={command_id!r}: it is done once.")


def _cancellations() -> int:
    """Give how often the running task was told to end."""
    task = asyncio.current_task()
    return task.cancelling() if task else 0


@dataclass(slots=True)
class Patience:
    """How long a logical call may take, over all of its attempts. `timeout` is in seconds; None waits forever."""

    timeout: float | None
    _started: float = field(default_factory=time.monotonic)
    _failures: int = 0
    _told: CeqsError | None = None
    _cancelled: int = field(default_factory=_cancellations)

    def left(self) -> float:
        """Give the seconds that are left."""
        return float("inf") if self.timeout is None else self.timeout - (time.monotonic() - self._started)

    def delay(self, error: CeqsError) -> float:
        """Give the seconds before the next attempt, with jitter. Raises the error where that cannot help in time."""
        ceiling = min(LONGEST_DELAY, FIRST_DELAY * 2**self._failures)
        delay = max(error.retry_after or 0.0, random.uniform(0, ceiling))  # noqa: S311  # jitter, no secret
        self._failures = min(self._failures + 1, 10)
        self.told(error)
        if not can_retry(error) or delay >= self.left():
            # That the last attempt had no time left tells less than what the one before it was told.
            raise (self._told or error) from None
        return delay

    async def after(self, error: CeqsError) -> None:
        """Wait before the next attempt. Raises the error where trying again cannot help in time.

        Raises CancelledError where the attempt was cancelled and did not heed it: grpc.aio swallows a cancellation that
        meets the end of a call (its tasks catch it, and then tell how the call ended).
        """
        if _cancellations() > self._cancelled:
            raise asyncio.CancelledError
        await asyncio.sleep(self.delay(error))

    def told(self, error: CeqsError) -> None:
        """Remember what an attempt was told, for whoever has no time for another."""
        if not isinstance(error, Expired):
            self._told = error

    def spent(self) -> CeqsError:
        """Give the error of a call that has no time left."""
        return self._told or Expired(NO_ANSWER)

    def succeeded(self) -> None:
        """Begin with short delays again: an attempt came through."""
        self._failures = 0
