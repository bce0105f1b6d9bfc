"""Waiting for company, so that many share a transaction or a look at a database."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

TICK, LONGEST = 0.001, 0.005
"""Seconds between two looks at whether more have come, and that one waits at most."""


async def linger(
    size: Callable[[], int], hurry: Callable[[], bool] = lambda: False, *, longest: float = LONGEST
) -> None:
    """Wait for as long as every tick brings several more to the `size` of what waits, and nobody is in a `hurry`."""
    end, more = time.monotonic() + longest, True
    while more and not hurry() and time.monotonic() < end:
        before = size()
        await asyncio.sleep(TICK)
        # One more in a tick is no crowd: who comes steadily and alone would be kept waiting for good.
        more = size() > before + 1
