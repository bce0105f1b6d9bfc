"""The event log: append-only storage of recorded events."""

from ceqs.log._types import (
    ALL,
    MAX_BATCH_ENTRIES,
    MAX_EVENT_BYTES,
    MAX_EVENT_TAGS,
    MAX_TAG_BYTES,
    Appended,
    Condition,
    Entry,
    Head,
    Log,
    LogReader,
    NewEvent,
    Query,
    QueryItem,
    Slice,
    StoredEvent,
)

__all__ = [
    "ALL",
    "MAX_BATCH_ENTRIES",
    "MAX_EVENT_BYTES",
    "MAX_EVENT_TAGS",
    "MAX_TAG_BYTES",
    "Appended",
    "Condition",
    "Entry",
    "Head",
    "Log",
    "LogReader",
    "NewEvent",
    "Query",
    "QueryItem",
    "Slice",
    "StoredEvent",
]
