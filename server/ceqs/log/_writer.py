"""Group commit: appends that arrive while a transaction commits go together into the next one."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence

from ceqs.errors import LogUnavailable, Overloaded
from ceqs.log._judge import Outcome
from ceqs.log._prepare import Prepared, prepare
from ceqs.log._types import MAX_BATCH_ENTRIES, MAX_WAITING_ENTRIES, Appended, Entry

LINGER = 0.002
"""Seconds that the writer waits for company under load: a batch costs much, an entry more in it little."""


class Writer:
    """The one writer of a log in this process.

    `commit` stores a batch in one transaction and gives an outcome for each of its entries; what it raises fails the
    batch.
    """

    def __init__(
        self,
        commit: Callable[[Sequence[Prepared]], Awaitable[Sequence[Outcome]]],
        *,
        max_waiting: int = MAX_WAITING_ENTRIES,
    ) -> None:
        self._commit = commit
        self._max_waiting = max_waiting
        self._queue: deque[tuple[Prepared, asyncio.Future[Outcome | Exception]]] = deque()
        self._arrived = asyncio.Event()
        self._closing = False
        self._linger = 0.0
        self._task = asyncio.create_task(self._run())

    async def append(self, entry: Entry) -> Appended:
        """Queue an entry and give its outcome. A caller that is cancelled withdraws its ear, not its entry."""
        if self._closing:
            raise LogUnavailable("the log is closed")
        prepared = prepare(entry)
        if len(self._queue) >= self._max_waiting:
            raise Overloaded
        future: asyncio.Future[Outcome | Exception] = asyncio.get_running_loop().create_future()
        self._queue.append((prepared, future))
        self._arrived.set()
        outcome = await future
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    async def close(self) -> None:
        """Take no more entries, store those that wait, and end."""
        self._closing = True
        self._arrived.set()
        await self._task

    async def _run(self) -> None:
        while True:
            while not self._queue:
                if self._closing:
                    return
                self._arrived.clear()
                await self._arrived.wait()
            if self._linger:
                await asyncio.sleep(self._linger)
            batch = [self._queue.popleft() for _ in range(min(len(self._queue), MAX_BATCH_ENTRIES))]
            outcomes: Sequence[Outcome | Exception]
            try:
                outcomes = await self._commit([prepared for prepared, _ in batch])
            except Exception as error:  # noqa: BLE001  # it is the callers', who raise it
                outcomes = [error] * len(batch)
            for (_, future), outcome in zip(batch, outcomes, strict=True):
                if not future.done():
                    future.set_result(outcome)
            # Whoever is alone never waits. Where entries arrive while others are stored, the next will not be alone.
            self._linger = LINGER if self._queue or len(batch) > 1 else 0.0
