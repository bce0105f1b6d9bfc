"""Where logs stand, as far as that can be read from here."""

from __future__ import annotations

from ceqs.cli._settings import Settings
from ceqs.errors import LogUnavailable
from ceqs.log import open_reader


async def head_of(settings: Settings, context: str, *, public: bool) -> int | None:
    """Give the last position (public position) of a context's log; None where that cannot be read from here."""
    try:
        reader = await open_reader(settings.log_url(context), context)
    except LogUnavailable:
        return None
    try:
        head = await reader.head()
    finally:
        await reader.close()
    return head.public_position if public else head.position
