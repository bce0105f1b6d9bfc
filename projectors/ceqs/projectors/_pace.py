"""How fast a place is filled beside one that answers: those who send commands are not to notice."""

from __future__ import annotations

import time
from collections.abc import Callable

REST, MOST_REST = 1.0, 4.0
"""How long a rest is, times the work before it: while nothing is recorded, and while a lot is."""
A_LOT = 1000.0
"""Events per second."""
FASTER = 1.5
"""Than the log grows, a place is filled: so it catches up."""
WINDOW = 0.5
"""Seconds over which the growth of the log is taken."""


class Pace:
    """Says how long to rest after each batch."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._since: tuple[float, int] | None = None
        self._growth = 0.0

    def rest(self, worked: float, events: int, head: int) -> float:
        """Give the seconds to rest for, after so many seconds of work on so many events, the log's head being there."""
        now = self._clock()
        if self._since is None:
            self._since = now, head
        elif (passed := now - self._since[0]) >= WINDOW:
            self._growth = max(0, head - self._since[1]) / passed
            self._since = now, head
        share = min(1.0, self._growth / A_LOT)
        rest = worked * (REST + (MOST_REST - REST) * share)
        return max(0.0, min(rest, events / (FASTER * self._growth) - worked)) if self._growth else rest
