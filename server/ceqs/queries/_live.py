"""Live queries: evaluated once per change, however many ask the same."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Generator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from ceqs.queries._stop import Stop


class Placed(Protocol):
    """An answer that says as of which position it is."""

    @property
    def position(self) -> int:
        """The position."""
        ...


A = TypeVar("A", bound=Placed)


@dataclass(frozen=True, slots=True)
class Source(Generic[A]):
    """What a live query is evaluated by: `moved` waits until its model may have changed after a position."""

    evaluate: Callable[[], Awaitable[A]]
    moved: Callable[[int], Awaitable[None]]


class Live(Generic[A]):
    """One live query, for all who ask it."""

    def __init__(self, source: Source[A], stop: Stop) -> None:
        self._source = source
        self._stop = stop
        self._newest: A | None = None
        self._waiting: set[asyncio.Future[None]] = set()
        self._task: asyncio.Task[None] | None = None

    async def beyond(self, position: int) -> A | None:
        """Give the newest answer beyond a position as soon as there is one, None once the stop is asked for.

        Raises what the evaluation raises.
        """
        while not self._stop.asked:
            if self._newest is not None and self._newest.position > position:
                return self._newest
            if self._task is None or self._task.done():
                self._task = asyncio.create_task(self._follow())
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.add(future)
            try:
                await future
            finally:
                self._waiting.discard(future)
        return None

    def close(self) -> None:
        """Stop following: nobody asks any more."""
        if self._task is not None:
            self._task.cancel()

    async def _follow(self) -> None:
        try:
            # The first evaluation is for those whose own answers are of different positions.
            while not self._stop.asked:
                self._newest = await self._source.evaluate()
                self._wake()
                await self._stop.or_result(self._source.moved(self._newest.position))
            self._wake()
        except Exception as error:  # noqa: BLE001  # it is theirs who wait, who raise it
            self._wake(error)

    def _wake(self, error: Exception | None = None) -> None:
        for future in self._waiting:
            if future.done():
                continue
            if error is None:
                future.set_result(None)
            else:
                future.set_exception(error)


@dataclass(slots=True)
class _Shared(Generic[A]):
    live: Live[A]
    source: AbstractContextManager[Source[A]]
    readers: int = 0


@dataclass(frozen=True, slots=True)
class LiveQueries(Generic[A]):
    """The live queries that are asked at the moment, by what they ask."""

    stop: Stop
    _asked: dict[tuple[str, bytes], _Shared[A]] = field(default_factory=dict[tuple[str, bytes], _Shared[A]])

    @contextmanager
    def joined(
        self, key: tuple[str, bytes], open_source: Callable[[], AbstractContextManager[Source[A]]]
    ) -> Generator[Live[A]]:
        """Give a query to follow; the first who asks opens its source, the last who leaves closes it."""
        shared = self._asked.get(key)
        if shared is None:
            source = open_source()
            shared = self._asked[key] = _Shared(Live(source.__enter__(), self.stop), source)
        shared.readers += 1
        try:
            yield shared.live
        finally:
            shared.readers -= 1
            if not shared.readers:
                del self._asked[key]
                shared.live.close()
                shared.source.__exit__(None, None, None)
