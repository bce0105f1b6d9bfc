"""Commands that wait for each other: whatever has arrived is worked on together, batch by batch."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, Generic, Protocol, TypeVar

from ceqs.log import MAX_BATCH_ENTRIES, Progress, linger

FEW = 3
"""Commands of one batch that are not yet a load."""
LONGEST_WAIT = 1.0
"""How long, in seconds, more than fill a batch may wait, before one that comes later is better told at once."""


class Waiting(Protocol):
    """What waits for an answer: a future, or what is like one."""

    since: float
    """When it was added, on the clock of time.monotonic()."""

    def done(self) -> bool:
        """Whether it is answered, or nobody waits for the answer any more."""
        ...

    def set_exception(self, error: Exception, /) -> None:
        """Answer with an error."""


W = TypeVar("W", bound=Waiting)
W_co = TypeVar("W_co", bound=Waiting, covariant=True)


class Decided(Protocol[W_co]):
    """A batch that is decided."""

    @property
    def rest(self) -> Sequence[W_co]:
        """What there was no time for."""
        ...

    @property
    def progress(self) -> Progress:
        """How far the log is with it."""
        ...


D = TypeVar("D", bound=Decided[Any])


class Lane(Generic[W, D]):
    """Works on batches in two steps, for as long as anything waits: decides them, and has them recorded.

    While one is being recorded, the next is decided upon it, if so many wait that they fill a batch anyway.
    """

    def __init__(
        self,
        decide: Callable[[Sequence[W], D | None], Awaitable[D | None]],
        record: Callable[[D], Awaitable[Sequence[W]]],
        *,
        company: float = 0.0,
    ) -> None:
        """Under load, batches wait up to `company` seconds for more.

        `decide` is given a batch and the one before, where that is judged but not recorded yet; it gives None where
        that has to be recorded first. `record` answers each of a batch, or gives it back to be worked on again, before
        all others. What they raise is the answer to those that they have not answered.
        """
        self._decide, self._record, self._company = decide, record, company
        self.waiting: deque[W] = deque()
        """What waits for a batch. To be added to by `add` alone."""
        self._task: asyncio.Task[None] | None = None
        self._before = 0
        """How many the last batch had."""
        self._hurry = False
        self._stir = asyncio.Event()
        """That a batch has been recorded, or that so many wait that they fill one."""

    @property
    def is_late(self) -> bool:
        """Whether more wait than fill a batch, and the first has for so long that one more would wait as long.

        By a number alone, a queue is no longer than callers' patience only where what it waits for is quick.
        """
        waiting = self.waiting
        return len(waiting) > MAX_BATCH_ENTRIES and time.monotonic() - waiting[0].since > LONGEST_WAIT

    def add(self, waiting: W, *, hurry: bool = False) -> None:
        """Queue one more. Where one is in a `hurry`, those that wait with it do not wait for others."""
        waiting.since = time.monotonic()
        self.waiting.append(waiting)
        if hurry:
            self._hurry = True
        if len(self.waiting) == MAX_BATCH_ENTRIES:
            self._stir.set()
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run())

    async def _linger(self) -> None:
        """Under load, wait for as long as every tick brings several more, so that they share a transaction."""
        if self._company and self._before > FEW:
            await linger(self.waiting.__len__, lambda: self._hurry, longest=self._company)
        self._hurry = len(self.waiting) > MAX_BATCH_ENTRIES

    async def _run(self) -> None:
        recording: tuple[D, asyncio.Task[Sequence[W]]] | None = None
        try:
            while self.waiting or recording:
                recording = await self._work(recording)
        finally:
            self._task = None

    async def _work(
        self, before: tuple[D, asyncio.Task[Sequence[W]]] | None
    ) -> tuple[D, asyncio.Task[Sequence[W]]] | None:
        """Work on one batch, or on the one before; give the one that is being recorded."""
        upon, task = before or (None, None)
        if task and not await self._is_filled(task):
            self._give_back(await task)
            return None
        await self._linger()
        batch = self._take()
        try:
            decided = await self._decide(batch, upon)
        except Exception as error:  # noqa: BLE001  # it is theirs who wait, who raise it
            _fail(batch, error)
            return before
        if decided is None:
            self._give_back(batch)
            self._give_back(await task if task else ())
            return None
        self._give_back(decided.rest)
        if task is None and len(self.waiting) < MAX_BATCH_ENTRIES:
            self._give_back(await self._recorded(batch, decided))
            return None
        recording = asyncio.create_task(self._recorded(batch, decided))
        recording.add_done_callback(lambda _: self._stir.set())
        if task and (again := await task):
            self._give_back(await recording)
            self._give_back(again)
            return None
        await decided.progress.judged.wait()
        return decided, recording

    async def _is_filled(self, before: asyncio.Task[Sequence[W]]) -> bool:
        """Say whether so many wait that they fill a batch, at the latest when the one before is recorded."""
        while len(self.waiting) < MAX_BATCH_ENTRIES and not before.done():
            self._stir.clear()
            await self._stir.wait()
        return len(self.waiting) >= MAX_BATCH_ENTRIES

    def _take(self) -> Sequence[W]:
        batch = [self.waiting.popleft() for _ in range(min(len(self.waiting), MAX_BATCH_ENTRIES))]
        # Whoever has gone before the work began is not worked for.
        batch = [waiting for waiting in batch if not waiting.done()]
        self._before = len(batch)
        return batch

    def _give_back(self, batch: Sequence[W]) -> None:
        self.waiting.extendleft(reversed(batch))

    async def _recorded(self, batch: Sequence[W], decided: D) -> Sequence[W]:
        try:
            return await self._record(decided)
        except Exception as error:  # noqa: BLE001  # it is theirs who wait, who raise it
            _fail(batch, error)
            return ()
        finally:
            decided.progress.judged.set()


def _fail(batch: Iterable[Waiting], error: Exception) -> None:
    for waiting in batch:
        if not waiting.done():
            waiting.set_exception(error)
