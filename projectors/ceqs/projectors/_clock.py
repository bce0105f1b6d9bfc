"""What time it is, and waiting for a time."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
from typing import Protocol

LOOK = 10.0
"""Seconds that nobody waits longer for a time: clocks are set, and machines sleep."""


class Clock(Protocol):
    """A clock; tests turn the hands of theirs."""

    def now(self) -> dt.datetime:
        """Give the time: UTC, aware."""
        ...

    async def wait(self, changed: asyncio.Event, until: dt.datetime | None) -> None:
        """Wait until the event is set, or the time has come. May return early."""
        ...


class SystemClock:
    """The clock of the machine."""

    def now(self) -> dt.datetime:
        """Give the time: UTC, aware."""
        return dt.datetime.now(dt.UTC)

    async def wait(self, changed: asyncio.Event, until: dt.datetime | None) -> None:
        """Wait until the event is set, or the time has come. May return early."""
        left = LOOK if until is None else min(LOOK, max(0.0, (until - self.now()).total_seconds()))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(left):
                await changed.wait()
