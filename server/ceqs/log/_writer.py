"""Group commit: appends that arrive while a transaction commits go together into the next one."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from ceqs.errors import CeqsError, Conflict, LogUnavailable, Overloaded
from ceqs.log._judge import Outcome
from ceqs.log._prepare import Prepared, prepare
from ceqs.log._types import MAX_BATCH_ENTRIES, MAX_WAITING_ENTRIES, Appended, Entry, Progress

Judged: TypeAlias = Callable[[Sequence[Outcome]], None]
"""Is told the outcomes of a batch before it is recorded."""
Commit: TypeAlias = Callable[[Sequence[Prepared], Judged], Awaitable[Sequence[Outcome]]]


@dataclass(slots=True, eq=False)
class _Group:
    """Entries that were given together."""

    prepared: Prepared
    progress: Progress
    future: asyncio.Future[Sequence[Outcome] | Exception]

    def is_void(self) -> bool:
        """Whether they were decided upon something that was not recorded so; it is over by the time of asking."""
        upon, self.progress.upon = self.progress.upon, None
        return upon is not None and not upon.recorded

    def end(self, outcomes: Sequence[Outcome] | Exception) -> None:
        """Tell who waits."""
        if not self.future.done():
            self.future.set_result(outcomes)


class Writer:
    """The one writer of a log in this process.

    `commit` stores a batch in one transaction and gives an outcome for each of its entries; what it raises fails the
    batch.
    """

    def __init__(
        self,
        commit: Commit,
        *,
        max_waiting: int = MAX_WAITING_ENTRIES,
    ) -> None:
        self._commit = commit
        self._max_waiting = max_waiting
        self._queue: deque[_Group] = deque()
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

    async def append_all(self, entries: Sequence[Entry], progress: Progress | None = None) -> Sequence[Outcome]:
        """Queue entries that were decided in sequence, for one transaction; give their outcomes."""
        if len(entries) > MAX_BATCH_ENTRIES:
            raise ValueError(f"{len(entries)} entries do not fit into one transaction; it takes {MAX_BATCH_ENTRIES}")
        if self._closing:
            raise LogUnavailable("the log is closed")
        if self._waiting + len(entries) > self._max_waiting:
            raise Overloaded
        future: asyncio.Future[Sequence[Outcome] | Exception] = asyncio.get_running_loop().create_future()
        self._queue.append(_Group(prepare(entries), progress or Progress(), future))
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
            if groups := self._next():
                await self._store(groups)

    async def _store(self, groups: Sequence[_Group]) -> None:
        told: list[Sequence[Outcome]] = []

        def judged(outcomes: Sequence[Outcome]) -> None:
            # Where recording is tried again, it is judged again: whoever was told has gone on by the first time.
            if not told:
                told.append(outcomes)
                for group, its in _parted(groups, outcomes):
                    group.progress.outcomes = its
                    group.progress.judged.set()

        try:
            outcomes = await self._commit([group.prepared for group in groups], judged)
        except Exception as error:  # noqa: BLE001  # it is the callers', who raise it
            for group in groups:
                group.end(error)
            return
        for group, its in _parted(groups, outcomes):
            group.progress.recorded = bool(told) and told[0] is outcomes
            group.end(its)

    def _next(self) -> list[_Group]:
        """Take as many groups as one transaction takes, less those that are void."""
        groups: list[_Group] = []
        size = 0
        while self._queue and size + len(self._queue[0].prepared) <= MAX_BATCH_ENTRIES:
            group = self._queue.popleft()
            self._waiting -= len(group.prepared)
            if group.is_void():
                group.end([Conflict()] * len(group.prepared))
            else:
                size += len(group.prepared)
                groups.append(group)
        return groups


def _parted(groups: Sequence[_Group], outcomes: Sequence[Outcome]) -> Iterator[tuple[_Group, Sequence[Outcome]]]:
    start = 0
    for group in groups:
        end = start + len(group.prepared)
        yield group, outcomes[start:end]
        start = end
