"""What answering needs of a projection's place."""

from __future__ import annotations

import datetime as dt
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession


class Checkpoint(Protocol):
    """Up to where a model has folded a log."""

    @property
    def log_id(self) -> str:
        """The log; empty where nothing has been folded."""
        ...

    @property
    def position(self) -> int:
        """Everything up to here has been folded, or parked."""
        ...

    @property
    def recorded_at(self) -> dt.datetime | None:
        """When the event of that position was recorded; None at the start."""
        ...

    @property
    def parked(self) -> int:
        """How many events up to the position are parked."""
        ...


class ModelReader(Protocol):
    """Reads one query model."""

    def session(self) -> AbstractAsyncContextManager[tuple[AsyncSession, Checkpoint]]:
        """Give a read-only session on the model's tables, and the checkpoint of the same snapshot."""
        ...

    async def wait(self, position: int, timeout: float) -> bool:  # noqa: ASYNC109  # a bound, not a cancellation
        """Wait until the model has reached a position, at most `timeout` seconds; say whether it has."""
        ...


class PastReader(Protocol):
    """Reads one query model as it was."""

    def session(self, position: int, timeout: float) -> AbstractAsyncContextManager[tuple[AsyncSession, Checkpoint]]:
        """Give a read-only session on the model as of a position that the log has reached.

        The model is replayed up to there, unless it is at hand. Raises Behind where that takes longer than `timeout`
        seconds (it goes on, for who asks again), TooLarge where it is beyond the limits.
        """
        ...
