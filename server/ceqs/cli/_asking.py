"""What `ceqs parked` and `ceqs outbox` share: requests for projectors, left at places, and waited for."""

from __future__ import annotations

import asyncio
import getpass
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from typing import TypeVar

from ceqs.cli._handlers import Handler, handlers_called, places_of_handler
from ceqs.cli._settings import Settings
from ceqs.errors import Misconfigured, Unavailable
from ceqs.projectors import Place

T = TypeVar("T")

LOOK = 0.2
"""Seconds between two looks at what has become of a request."""


async def places_called(settings: Settings, names: Iterable[str]) -> AsyncGenerator[tuple[Handler, Place]]:
    """Give the places of handlers by name, or of all. Raises Misconfigured for a name that nothing has.

    Raises Unavailable in the end where some cannot be reached.
    """
    unreached = list[str]()
    for handler in handlers_called(settings, names):
        try:
            places = await places_of_handler(settings, handler)
        except (Unavailable, OSError) as error:
            unreached.append(str(error))
            continue
        for place in places:
            yield handler, place
    if unreached:
        raise Unavailable("; ".join(unreached))


def decider(why: str, actor: str | None) -> str:
    """Give who decides to go on without something: the user, where no other is named. Raises Misconfigured."""
    if not why.strip():
        raise Misconfigured("--why: say why, for those who will ask")
    return actor or getpass.getuser()


async def seen_to(place: Place, look: Callable[[], Awaitable[T | None]], until: float) -> T:
    """Look until something has become of a request, and give that. Raises Unavailable where nobody sees to it."""
    while (found := await look()) is None:
        if time.monotonic() > until:
            raise Unavailable(
                f"no projector has seen to it yet; the request waits at {place} until one runs (ceqs project)"
            )
        await asyncio.sleep(LOOK)
    return found
