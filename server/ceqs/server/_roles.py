"""What a server serves of its contexts: commands, queries, events, or all of them."""

from __future__ import annotations

import enum


class Role(enum.StrEnum):
    """A part of a context that can be served by processes of its own. Only commands need to write the log."""

    COMMANDS = "commands"
    """Command services, streams of commands, and what the context's own processes append (AdminService)."""
    QUERIES = "queries"
    """Query services."""
    EVENTS = "events"
    """EventsService."""


EVERY_ROLE = frozenset(Role)
