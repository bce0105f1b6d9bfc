"""Waiting that ends when the server goes away."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

T = TypeVar("T")


class Stop:
    """Says once, to all streams, that they shall end."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    @property
    def asked(self) -> bool:
        """Whether the streams shall end."""
        return self._event.is_set()

    def ask(self) -> None:
        """Ask all streams to end."""
        self._event.set()

    async def or_result(self, work: Awaitable[T]) -> T | None:
        """Give what the work gives, or None as soon as the stop is asked for; the work is cancelled then."""
        tasks = asyncio.ensure_future(work), asyncio.ensure_future(self._event.wait())
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            return tasks[0].result() if tasks[0].done() else None
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
