"""Tags: what a message is about, as `key:value`."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable

from google.protobuf.message import Message

from ceqs.contract._types import EventType, TagField
from ceqs.errors import Invalid, Violation

MAX_TAG_VALUE = 512
"""The longest value of a tag, in UTF-8 bytes."""
BUCKETS = 256
"""The fixed count of partition buckets."""
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def tags_of(message: Message, fields: Iterable[TagField]) -> tuple[str, ...]:
    """Give the tags of a message in the order of its fields, each once; unset fields give none.

    Raises Invalid, naming the field, where a value is too long or has control characters.
    """
    tags: list[str] = []
    for field, key, repeated in fields:
        value = getattr(message, field)
        for one in value if repeated else (value,) if value else ():
            if one != "":
                tags.append(f"{key}:{checked_value(field, str(one))}")
    return tuple(tags if len(tags) < 2 else dict.fromkeys(tags))


def bucket_of(event: EventType, tags: Iterable[str]) -> int:
    """Give the partition bucket of an event: 0 to 255, by the value of its partition key."""
    prefix = event.partition_by + ":"
    for tag in tags if event.partition_by else ():
        if tag.startswith(prefix):
            return zlib.crc32(tag.encode()) % BUCKETS
    return 0


def checked_value(field: str, value: str) -> str:
    """Give the value of a tag. Raises Invalid, naming the field, where it is too long or has control characters."""
    if len(value) <= MAX_TAG_VALUE and value.isascii() and value.isprintable():
        return value
    if len(value.encode()) > MAX_TAG_VALUE:
        raise Invalid(violations=[Violation(field, f"must be at most {MAX_TAG_VALUE} bytes long")])
    if _CONTROL.search(value):
        raise Invalid(violations=[Violation(field, "must not contain control characters")])
    return value
