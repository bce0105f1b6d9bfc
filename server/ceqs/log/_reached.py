"""A position that only grows, and those who wait for it to."""

from __future__ import annotations

import asyncio


class Reached:
    """Wakes those who wait for a position, however many they are."""

    def __init__(self, position: int = 0) -> None:
        self.position = position
        self._waiting: dict[asyncio.Future[None], int] = {}

    @property
    def awaited(self) -> bool:
        """Whether anybody waits."""
        return bool(self._waiting)

    async def beyond(self, after: int, timeout: float | None = None) -> bool:  # noqa: ASYNC109  # a bound, not a cancellation
        """Wait until it is beyond `after`, at most `timeout` seconds; say whether it is. Raises what it failed with."""
        if self.position > after:
            return True
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[future] = after
        try:
            done, _ = await asyncio.wait([future], timeout=timeout)
            if done:
                future.result()
            return bool(done)
        finally:
            del self._waiting[future]

    def advance(self, position: int) -> None:
        """Say that it is there."""
        self.position = max(position, self.position)
        for future, after in self._waiting.items():
            if self.position > after and not future.done():
                future.set_result(None)

    def fail(self, error: Exception) -> None:
        """Have those who wait now raise an error."""
        for future in self._waiting:
            if not future.done():
                future.set_exception(error)
