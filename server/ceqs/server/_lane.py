"""Commands that wait for each other: whatever has arrived is worked on together, batch by batch."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, Generic, Protocol, TypeVar

from ceqs.log import MAX_BATCH_ENTRIES, linger

FEW = 3
"""Commands of one batch that are not yet a load."""


class Answer(Protocol):
    """Where an answer goes: a future, or what is like one."""

    def done(self) -> bool:
        """Whether it is there, or nobody waits for it any more."""
        ...

    def set_result(self, result: Any, /) -> None:
        """Answer."""

    def set_exception(self, error: Exception, /) -> None:
        """Answer with an error."""


class Waiting(Protocol):
    """What waits for an answer."""

    @property
    def answer(self) -> Answer:
        """Where it goes."""
        ...


W = TypeVar("W", bound=Waiting)


class Lane(Generic[W]):
    """Works on batches, one at a time, for as long as anything waits.

    `work` answers each of a batch, or gives it back to be worked on again, before all others; what it raises is the
    answer to those that it has not answered.
    """

    def __init__(self, work: Callable[[Sequence[W]], Awaitable[Sequence[W]]], *, company: float = 0.0) -> None:
        """Under load, batches wait up to `company` seconds for more."""
        self._work, self._company = work, company
        self.waiting: deque[W] = deque()
        """What waits for a batch. To be added to by `add` alone."""
        self._task: asyncio.Task[None] | None = None
        self._before = 0
        """How many the last batch had."""
        self._hurry = False

    def add(self, waiting: W, *, hurry: bool = False) -> None:
        """Queue one more. Where one is in a `hurry`, those that wait with it do not wait for others."""
        self.waiting.append(waiting)
        self._hurry = self._hurry or hurry
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run())

    async def _linger(self) -> None:
        """Under load, wait for as long as every tick brings several more, so that they share a transaction."""
        if self._company and self._before > FEW:
            await linger(self.waiting.__len__, lambda: self._hurry, longest=self._company)
        self._hurry = len(self.waiting) > MAX_BATCH_ENTRIES

    async def _run(self) -> None:
        try:
            while self.waiting:
                await self._linger()
                batch = [self.waiting.popleft() for _ in range(min(len(self.waiting), MAX_BATCH_ENTRIES))]
                # Whoever has gone before the work began is not worked for.
                batch = [waiting for waiting in batch if not waiting.answer.done()]
                self._before = len(batch)
                try:
                    self.waiting.extendleft(reversed(await self._work(batch)))
                except Exception as error:  # noqa: BLE001  # it is theirs who wait, who raise it
                    _fail(batch, error)
        finally:
            self._task = None


def _fail(batch: Iterable[Waiting], error: Exception) -> None:
    for waiting in batch:
        if not waiting.answer.done():
            waiting.answer.set_exception(error)
