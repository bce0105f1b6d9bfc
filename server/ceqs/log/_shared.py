"""Sharing reads: whoever asks while one is under way is served, with all others who did, by the next."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from ceqs.log._types import MAX_BATCH_ENTRIES

LINGER = 0.002
"""Seconds: who comes so soon after the last read is not alone, and waits as long for company."""

Q = TypeVar("Q")
A = TypeVar("A")


class Shared(Generic[Q, A]):
    """Asks `fetch` for many at once. A question is never served by a read that began before it was asked.

    `linger`: how long, in seconds, who is not alone waits for company.
    """

    def __init__(self, fetch: Callable[[Sequence[Q]], Awaitable[Sequence[A]]], *, linger: float = LINGER) -> None:
        self._fetch, self._linger = fetch, linger
        self._waiting: deque[tuple[Q, asyncio.Future[A]]] = deque()
        self._task: asyncio.Task[None] | None = None
        self._served = 0.0

    async def ask(self, question: Q) -> A:
        """Give the answer. Raises what the fetch raises."""
        future: asyncio.Future[A] = asyncio.get_running_loop().create_future()
        self._waiting.append((question, future))
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run())
        return await future

    async def close(self) -> None:
        """Wait until everybody has been served."""
        if self._task is not None:
            await asyncio.wait([self._task])

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting:
            if loop.time() - self._served < self._linger:
                await asyncio.sleep(self._linger)
            asked = [self._waiting.popleft() for _ in range(min(len(self._waiting), MAX_BATCH_ENTRIES))]
            try:
                answers = await self._fetch([question for question, _ in asked])
            except Exception as error:  # noqa: BLE001  # it is the askers', who raise it
                for _, future in asked:
                    if not future.done():
                        future.set_exception(error)
                continue
            for (_, future), answer in zip(asked, answers, strict=True):
                if not future.done():
                    future.set_result(answer)
            self._served = loop.time()
