"""Waiting for a condition, with a deadline."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from typing import TypeVar, overload

T = TypeVar("T")


@overload
async def eventually(condition: Callable[[], Awaitable[T]], within: float = 30.0) -> T: ...


@overload
async def eventually(condition: Callable[[], T], within: float = 30.0) -> T: ...


async def eventually(condition: Callable[[], object], within: float = 30.0) -> object:
    """Wait until the condition, a plain or async callable, gives something truthy; give that.

    Raises AssertionError, naming the condition and what it gave last, when `within` seconds have passed. What the
    condition itself raises is raised at once.
    """
    __tracebackhide__ = True
    last: object = "nothing"
    pause = 0.005
    deadline = asyncio.timeout(within)
    try:
        async with deadline:
            while True:
                given = condition()
                value: object = await given if inspect.isawaitable(given) else given
                if value:
                    return value
                last = value
                await asyncio.sleep(pause)
                pause = min(pause * 1.5, 0.1)
    except TimeoutError:
        if not deadline.expired():
            raise
    raise AssertionError(f"not within {within:g} s: {_name(condition)}; it gave {last!r} at last")


def _name(condition: Callable[[], object]) -> str:
    name = getattr(condition, "__qualname__", "") or repr(condition)
    if not name.endswith("<lambda>"):
        return name
    try:
        return " ".join(inspect.getsource(condition).split())
    except OSError:
        return name
