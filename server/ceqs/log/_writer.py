"""Group commit: appends that arrive while a transaction commits go together into the next one."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from ceqs.errors import CeqsError, Conflict, LogUnavailable, Overloaded
from ceqs.log._judge import Outcome
from ceqs.log._prepare import Prepared, prepare
from ceqs.log._types import MAX_BATCH_ENTRIES, MAX_WAITING_ENTRIES, Appended, Entry, Progress

Judged: TypeAlias = Callable[[Sequence[Outcome]], None]
"""Is told the outcomes of a batch before it is recorded."""


class Commit(Protocol):
    """Stores a batch in one transaction."""

    def __call__(
        self, batch: Sequence[Prepared], judged: Judged, /, *, ahead: bool
    ) -> Awaitable[Sequence[Outcome] | None]:
        """Give an outcome for each of the batch's entries.

        `ahead`: it was decided upon the batch that is being stored, and is to be judged before that is on the disk.
        None where that has to be waited for; nothing has been stored then.
        """
        ...


@dataclass(slots=True, eq=False)
class _Group:
    """Entries that were given together."""

    prepared: Prepared
    progress: Progress
    future: asyncio.Future[Sequence[Outcome] | Exception]
    stands: bool = False
    """Whether they are on their way to the disk as they were first judged, so that they get what was told then."""

    def is_upon(self, groups: Iterable[_Group]) -> bool:
        """Whether they were decided upon any of these that stands."""
        return any(group.progress is self.progress.upon and group.stands for group in groups)

    def is_void(self, storing: Iterable[_Group]) -> bool:
        """Whether they were decided upon something that is neither recorded so nor on its way, being one of these."""
        upon = self.progress.upon
        return upon is not None and not upon.recorded and not self.is_upon(storing)

    def end(self, outcomes: Sequence[Outcome] | Exception) -> None:
        """Tell who waits."""
        self.progress.upon, self.stands = None, False
        if not self.future.done():
            self.future.set_result(outcomes)


class Writer:
    """The one writer of a log in this process.

    What `commit` raises fails the batch. Where it can go `ahead`, entries that were decided upon what is being stored
    are given to it at once, unless others wait: so whatever stores them has the next batch at hand.
    """

    def __init__(
        self,
        commit: Commit,
        *,
        max_waiting: int = MAX_WAITING_ENTRIES,
        ahead: bool = False,
    ) -> None:
        self._commit = commit
        self._ahead = ahead
        self._max_waiting = max_waiting
        self._queue: deque[_Group] = deque()
        self._waiting = 0
        self._storing: _Storing | None = None
        self._following: _Storing | None = None
        """What goes ahead of its end."""
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
        """Have entries stored that were decided in sequence, in one transaction; give their outcomes."""
        if len(entries) > MAX_BATCH_ENTRIES:
            raise ValueError(f"{len(entries)} entries do not fit into one transaction; it takes {MAX_BATCH_ENTRIES}")
        if self._closing:
            raise LogUnavailable("the log is closed")
        if self._waiting + len(entries) > self._max_waiting:
            raise Overloaded
        future: asyncio.Future[Sequence[Outcome] | Exception] = asyncio.get_running_loop().create_future()
        group = _Group(prepare(entries), progress or Progress(), future)
        if not self._goes_ahead(group):
            self._queue.append(group)
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

    def _goes_ahead(self, group: _Group) -> bool:
        """Give a group to the store at once where it was decided upon what is being stored; say whether.

        One at a time goes ahead, and none while others wait.
        """
        before = self._storing
        if not self._ahead or not before or self._following or self._queue or not group.is_upon(before.groups):
            return False
        self._following = following = _Storing([group])
        following.task = asyncio.create_task(self._store(following.groups, before))
        return True

    async def _run(self) -> None:
        while True:
            while not self._queue and not self._following:
                if self._closing:
                    return
                self._arrived.clear()
                await self._arrived.wait()
            self._storing, self._following = self._following or _Storing(self._next()), None
            try:
                await (self._storing.task or self._store(self._storing.groups, None))
            except BaseException:
                # Who comes later must not wait for what has died, and what goes ahead must not go on.
                self._closing = True
                self._storing.over.cancel()
                raise
            if not self._storing.over.done():
                self._storing.over.set_result(None)
            self._storing = None

    async def _store(self, groups: Sequence[_Group], before: _Storing | None) -> None:
        """Store groups, ahead of the end of what is stored `before`."""
        told: list[Sequence[Outcome]] = []

        def judged(outcomes: Sequence[Outcome]) -> None:
            # Where recording is tried again, it is judged again: whoever was told has gone on by the first time.
            for group, its in _parted(groups, outcomes):
                group.stands = not told
                if not told:
                    group.progress.outcomes = its
                    group.progress.judged.set()
            told.append(outcomes)

        try:
            outcomes: Sequence[Outcome] | None = None
            if before and (groups := _standing(groups, before.groups)):
                outcomes = await self._commit(_prepared(groups), judged, ahead=True)
            if outcomes is None:
                for group in groups:
                    group.stands = False
                if before:
                    await before.over
                groups = _standing(groups, ())
                outcomes = await self._commit(_prepared(groups), judged, ahead=False) if groups else ()
            assert outcomes is not None, "what does not go ahead has nothing to wait for"
        except Exception as error:  # noqa: BLE001  # it is the callers', who raise it
            for group in groups:
                group.end(error)
            return
        for group, its in _parted(groups, outcomes):
            group.progress.recorded = bool(told) and told[0] is outcomes
            group.end(its)

    def _next(self) -> list[_Group]:
        """Take as many groups as one transaction takes."""
        groups: list[_Group] = []
        size = 0
        while self._queue and size + len(self._queue[0].prepared) <= MAX_BATCH_ENTRIES:
            group = self._queue.popleft()
            size += len(group.prepared)
            groups.append(group)
        self._waiting -= size
        return groups


class _Storing:
    """Groups that are being stored."""

    def __init__(self, groups: Sequence[_Group]) -> None:
        self.groups = groups
        self.task: asyncio.Task[None] | None = None
        """Of what goes ahead."""
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Is done when they are stored, or have failed."""


def _prepared(groups: Iterable[_Group]) -> Sequence[Prepared]:
    return [group.prepared for group in groups]


def _standing(groups: Iterable[_Group], storing: Iterable[_Group]) -> Sequence[_Group]:
    """Give those of groups that are not void; the others end. `storing`: what may still be on its way."""
    standing: list[_Group] = []
    for group in groups:
        if group.is_void(storing):
            group.end([Conflict()] * len(group.prepared))
        else:
            standing.append(group)
    return standing


def _parted(groups: Sequence[_Group], outcomes: Sequence[Outcome]) -> Iterator[tuple[_Group, Sequence[Outcome]]]:
    start = 0
    for group in groups:
        end = start + len(group.prepared)
        yield group, outcomes[start:end]
        start = end
