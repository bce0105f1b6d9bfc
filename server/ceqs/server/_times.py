"""Times that are none: the well-known types take any number of nanoseconds, their formatters raise on most of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cache
from typing import Any, TypeAlias

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from ceqs.errors import Violation

# The ranges are those of timestamp.proto and duration.proto.
_FIRST, _LAST = -62_135_596_800, 253_402_300_799
_LONGEST = 315_576_000_000
_SECOND = 1_000_000_000
AnyDescriptor: TypeAlias = Any
"""A Descriptor; the type stubs of protobuf know two classes of them."""


def has_times(descriptor: AnyDescriptor) -> bool:
    """Whether the messages of a type, or those inside them, have any."""
    return bool(_fields_with_times(descriptor))


def malformed_times(message: Message, path: str = "") -> Iterator[Violation]:
    """Give the fields of a message, inner ones too, that hold no valid Timestamp or Duration."""
    for field in _fields_with_times(message.DESCRIPTOR):
        for name, inner in _values(message, field):
            if isinstance(inner, Timestamp):
                if not (_FIRST <= inner.seconds <= _LAST and 0 <= inner.nanos < _SECOND):
                    yield Violation(path + name, "is no time between the years 1 and 9999")
            elif isinstance(inner, Duration):
                if not (abs(inner.seconds) <= _LONGEST and abs(inner.nanos) < _SECOND and _agree(inner)):
                    yield Violation(path + name, "is no duration of at most 10,000 years")
            else:
                yield from malformed_times(inner, f"{path}{name}.")


def _agree(duration: Duration) -> bool:
    return duration.seconds == 0 or duration.nanos == 0 or (duration.seconds > 0) == (duration.nanos > 0)


def _values(message: Message, field: FieldDescriptor) -> Iterable[tuple[str, Message]]:
    value: Any = getattr(message, field.name)
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        return ((f"{field.name}[{key}]", inner) for key, inner in value.items())
    if field.is_repeated:
        return ((f"{field.name}[{index}]", inner) for index, inner in enumerate(value))
    return ((field.name, value),) if message.HasField(field.name) else ()


@cache
def _fields_with_times(descriptor: AnyDescriptor) -> tuple[FieldDescriptor, ...]:
    return tuple(field for field in descriptor.fields if _leads_to_time(field, frozenset()))


def _leads_to_time(field: FieldDescriptor, above: frozenset[str]) -> bool:
    inner = field.message_type
    if inner is None or inner.full_name in above:
        return False
    if inner.full_name in (Timestamp.DESCRIPTOR.full_name, Duration.DESCRIPTOR.full_name):
        return True
    return any(_leads_to_time(one, above | {inner.full_name}) for one in inner.fields)
