"""The event log: append-only storage of recorded events."""

from ceqs.log._open import open_log, open_reader
from ceqs.log._types import (
    MAX_BATCH_ENTRIES,
    MAX_COMMAND_ID_BYTES,
    MAX_EVENT_BYTES,
    MAX_EVENT_TAGS,
    MAX_SLICE_BYTES,
    MAX_TAG_BYTES,
    MAX_WAITING_ENTRIES,
    Appended,
    Condition,
    Entry,
    Head,
    Log,
    LogReader,
    NewEvent,
    Slice,
    StoredEvent,
    Wanted,
)
from ceqs.model import ALL, Query, QueryItem

__all__ = [
    "ALL",
    "MAX_BATCH_ENTRIES",
    "MAX_COMMAND_ID_BYTES",
    "MAX_EVENT_BYTES",
    "MAX_EVENT_TAGS",
    "MAX_SLICE_BYTES",
    "MAX_TAG_BYTES",
    "MAX_WAITING_ENTRIES",
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
    "Wanted",
    "open_log",
    "open_reader",
]
