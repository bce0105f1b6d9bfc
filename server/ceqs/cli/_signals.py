"""Running until SIGINT or SIGTERM, or until the first of several fails."""

from __future__ import annotations

import asyncio
import gc
import signal
import sys
from collections.abc import Coroutine, Iterable
from typing import Any

if sys.platform == "win32":  # pragma: no cover
    new_loop = asyncio.new_event_loop
else:
    from uvloop import new_event_loop as new_loop


def favour_batches() -> None:
    """Set the interpreter up for work that lasts and is done in batches."""
    # Batches make many objects that all go with them: looking through them every 700 costs a fifth of the time. Those
    # that stay are looked through 5,000 at a time, which takes a millisecond or two; all that were ever made, hardly.
    gc.set_threshold(5_000, 200, 100)
    # The thread that records a batch waits so long for a busy loop, several times for each: the usual 5 ms are more
    # than the disk takes.
    sys.setswitchinterval(0.0001)


def run(work: Coroutine[Any, Any, None], *, fast: bool = False) -> None:
    """Run a command's work; SIGINT and SIGTERM cancel it, and it ends in order. `fast` is for work that lasts."""
    if fast:
        favour_batches()

    async def until_signalled() -> None:
        task = asyncio.ensure_future(work)
        signalled = False

        def cancel() -> None:
            nonlocal signalled
            signalled = True
            task.cancel()

        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, cancel)
        try:
            await task
        except asyncio.CancelledError:
            if not signalled:
                raise

    with asyncio.Runner(loop_factory=new_loop if fast else None) as runner:
        runner.run(until_signalled())


async def together(work: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Run until all are done, the first fails or the caller is cancelled; raise what the first raised, not a group."""
    tasks = [asyncio.ensure_future(one) for one in work]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
    finally:
        for task in tasks:
            task.cancel()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    for outcome in outcomes:
        if isinstance(outcome, Exception):
            raise outcome
