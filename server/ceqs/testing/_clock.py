"""A clock whose hands a test turns."""

from __future__ import annotations

import asyncio
import datetime as dt


class FakeClock:
    """Stands still until it is told to go on: `ProjectorSettings(clock=FakeClock(...))`."""

    def __init__(self, now: dt.datetime) -> None:
        """`now` has a time zone."""
        self._now = now.astimezone(dt.UTC)
        self._waiting: set[asyncio.Event] = set()

    def now(self) -> dt.datetime:
        """Give the time: UTC, aware."""
        return self._now

    def advance(self, by: dt.timedelta) -> None:
        """Let time pass. Whoever waits for what is then past goes on."""
        self._now += by
        for changed in self._waiting:
            changed.set()

    async def wait(self, changed: asyncio.Event, until: dt.datetime | None) -> None:
        """Wait until the event is set, or the time has come. May return early."""
        if until is not None and until <= self._now:
            return
        self._waiting.add(changed)
        try:
            await changed.wait()
        finally:
            self._waiting.discard(changed)
