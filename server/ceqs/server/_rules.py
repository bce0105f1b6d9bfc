"""Whether a message has rules at all: asking a validator about one that has none costs as much as any other."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, cast

from google.protobuf.message import Message
from google.protobuf.unknown_fields import UnknownFieldSet

RULES = 1159
"""The number of protovalidate's extensions of message, field and oneof options (buf/validate/validate.proto)."""


def has_rules(descriptor: Any) -> bool:
    """Whether the messages of a type, or those inside them, have any rule of protovalidate's."""
    return any(_is_ruled(options) for options in _options(descriptor, set()))


def _options(descriptor: Any, seen: set[str]) -> Iterator[Message]:
    """Give the options of a message type, its fields and oneofs, and those of the types inside it."""
    seen.add(descriptor.full_name)
    yield descriptor.GetOptions()
    for oneof in descriptor.oneofs:
        yield oneof.GetOptions()
    for field in descriptor.fields:
        yield field.GetOptions()
        if field.message_type is not None and field.message_type.full_name not in seen:
            yield from _options(field.message_type, seen)


def _is_ruled(options: Message) -> bool:
    # Where nobody has imported the extension, it is a field unknown to the options.
    unknown = cast("Iterable[Any]", UnknownFieldSet(options))
    return any(field.number == RULES for field, _ in options.ListFields()) or any(
        field.field_number == RULES for field in unknown
    )
