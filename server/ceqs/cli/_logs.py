"""Where logs stand, as far as that can be read from here."""

from __future__ import annotations

from ceqs.cli._events import said_head
from ceqs.cli._settings import Settings
from ceqs.errors import CeqsError, LogUnavailable
from ceqs.log import Head, open_reader
from ceqs.projectors import Checkpoint, HandlerStatus

PATIENCE = 2.0
"""Seconds that a server has to say where its log stands."""


async def head_of(settings: Settings, context: str) -> Head | None:
    """Say where a context's log stands: where the log is not here, its server is asked. None where nobody says."""
    try:
        reader = await open_reader(settings.log_url(context), context)
    except LogUnavailable:
        try:
            said = await said_head(settings, context, PATIENCE)
        except CeqsError:
            return None
        return Head(said.log_id, said.position, said.public_position)
    try:
        return await reader.head()
    finally:
        await reader.close()


def behind(head: Head | None, at: Checkpoint | HandlerStatus, *, public: bool) -> str:
    """Say how far from the head of its log something stands: `3 behind`."""
    if head is None:
        return "head unknown"
    lag = lag_of(head, at, public=public)
    return "of another log" if lag is None else f"{lag:,} behind"


def lag_of(head: Head | None, at: Checkpoint | HandlerStatus, *, public: bool) -> int | None:
    """Give how many events something is behind its log; None where that is unknown, or was replaced since."""
    if head is None or at.log_id not in ("", head.log_id):
        return None
    return max(0, number_of(head, public=public) - at.position)


def number_of(head: Head, *, public: bool) -> int:
    """Give the head as a reader counts."""
    return head.public_position if public else head.position
