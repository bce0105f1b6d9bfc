"""Forgetting commands that the log no longer promises to remember, now and then, while the server serves."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable

import structlog

from ceqs.errors import LogUnavailable
from ceqs.log import Log

SHARE = 20
"""A pass rests so many times as long as each of its steps took: it never has more than a twentieth of the writer."""
SHORTEST_REST = 0.01

_process_log = structlog.get_logger("ceqs.server")


async def forget_lapsed(log: Log, every: float, *, rest: Callable[[float], Awaitable[object]] = asyncio.sleep) -> None:
    """Forget what has lapsed once in `every` so many seconds, until cancelled; see Log.purge.

    Does nothing to a log that promises to remember for ever, as all do that were not told otherwise.
    """
    # Not all at once where several processes were started together, nor never where they are often started.
    await rest(random.uniform(0, every))  # noqa: S311  # no secret
    while True:
        try:
            if await log.remembers() is not None:
                await _pass(log, rest)
        except LogUnavailable as error:
            # Whoever sends a command is told; what has lapsed may wait.
            _process_log.warning("forgetting commands failed", context=log.name, why=error.message)
        await rest(every)


async def _pass(log: Log, rest: Callable[[float], Awaitable[object]]) -> None:
    examined = forgotten = 0
    after = ""
    while True:
        began = time.monotonic()
        done = await log.purge(after)
        examined, forgotten, after = examined + done.examined, forgotten + done.forgotten, done.next
        if not after:
            break
        await rest(max(SHORTEST_REST, SHARE * (time.monotonic() - began)))
    if forgotten:
        _process_log.info("forgot commands", context=log.name, forgotten=forgotten, examined=examined)
