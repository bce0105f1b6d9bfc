"""Group commit: appends that arrive while a transaction commits go together into the next one."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence

from ceqs.errors import CeqsError, LogUnavailable, Overloaded
from ceqs.log._judge import Outcome
from ceqs.log._prepare import Prepared, prepare
from ceqs.log._types import MAX_BATCH_ENTRIES, MAX_WAITING_ENTRIES, Appended, Entry


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
        self._queue: deque[tuple[Prepared, asyncio.Future[Sequence[Outcome] | Exception]]] = deque()
        self._waiting = 0
        self._arrived = asyncio.Event()
        self._closing = False
        self._task = asyncio.create_task(self._run())

    async def append(self, entry: Entry) -> Appended:
        """Queue an entry and give its outcome. A caller that is cancelled withdraws its ear, not its entry."""
        (outcome,) = await self.append_all([entry])
        if isinstance(outcome, CeqsError):
            raise outcome
        return outcome

    async def append_all(self, entries: Sequence[Entry]) -> Sequence[Outcome]:
        """Queue entries that were decided in sequence, for one transaction; give their outcomes."""
        if len(entries) > MAX_BATCH_ENTRIES:
            raise ValueError(f"{len(entries)} entries do not fit into one transaction; it takes {MAX_BATCH_ENTRIES}")
        if self._closing:
            raise LogUnavailable("the log is closed")
        if self._waiting + len(entries) > self._max_waiting:
            raise Overloaded
        future: asyncio.Future[Sequence[Outcome] | Exception] = asyncio.get_running_loop().create_future()
        self._queue.append((prepare(entries), future))
        self._waiting += len(entries)
        self._arrived.set()
        outcomes = await future
        if isinstance(outcomes, Exception):
            raise outcomes
        return outcomes

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
            groups = [self._queue.popleft()]
            size = len(groups[0][0])
            while self._queue and size + len(self._queue[0][0]) <= MAX_BATCH_ENTRIES:
                size += len(self._queue[0][0])
                groups.append(self._queue.popleft())
            self._waiting -= size
            failure: Exception | None = None
            outcomes: Sequence[Outcome] = ()
            try:
                outcomes = await self._commit([group for group, _ in groups])
            except Exception as error:  # noqa: BLE001  # it is the callers', who raise it
                failure = error
            start = 0
            for group, future in groups:
                end = start + len(group)
                if not future.done():
                    future.set_result(failure or outcomes[start:end])
                start = end
