"""Reading keyed models: their columns, and which lists of them need no code."""

from __future__ import annotations

from collections.abc import Mapping

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message_factory import GetMessageClass

from ceqs.contract._fields import AnyDescriptor, own_fields
from ceqs.contract._types import Column, ColumnKind, EventType, KeyedModel
from ceqs.errors import Misconfigured
from ceqs.v1 import options_pb2

TIMESTAMP = "google.protobuf.Timestamp"
PAGING: Mapping[str, int] = {
    "page_size": FieldDescriptor.TYPE_INT32,
    "page_token": FieldDescriptor.TYPE_STRING,
    "order_by": FieldDescriptor.TYPE_STRING,
}
"""The fields of a request by which the platform pages and orders a list (https://google.aip.dev/132, 158)."""
NEXT = "next_page_token"
_KINDS: Mapping[int, ColumnKind] = {
    FieldDescriptor.TYPE_STRING: ColumnKind.TEXT,
    FieldDescriptor.TYPE_BOOL: ColumnKind.BOOLEAN,
    FieldDescriptor.TYPE_UINT64: ColumnKind.NATURAL,
    FieldDescriptor.TYPE_FIXED64: ColumnKind.NATURAL,
    **dict.fromkeys(
        (
            FieldDescriptor.TYPE_ENUM,
            FieldDescriptor.TYPE_INT32,
            FieldDescriptor.TYPE_SINT32,
            FieldDescriptor.TYPE_UINT32,
            FieldDescriptor.TYPE_FIXED32,
            FieldDescriptor.TYPE_SFIXED32,
            FieldDescriptor.TYPE_INT64,
            FieldDescriptor.TYPE_SINT64,
            FieldDescriptor.TYPE_SFIXED64,
        ),
        ColumnKind.INTEGER,
    ),
}


def column_kind(field: FieldDescriptor) -> ColumnKind | None:
    """Give as what the values of a field are kept in a column; None for a type that is kept in none."""
    if field.message_type is not None:
        return ColumnKind.TIME if field.message_type.full_name == TIMESTAMP else None
    return _KINDS.get(field.type)


def is_indexed(field: FieldDescriptor) -> bool:
    """Whether a field of a keyed model is one by which its rows are found and ordered."""
    return field.GetOptions().Extensions[options_pb2.field].index


def key_fields(descriptor: AnyDescriptor, key: str) -> list[FieldDescriptor]:
    """Give the fields of a message that carry the tag key of a model."""
    return [field for field in descriptor.fields if field.GetOptions().Extensions[options_pb2.field].tag == key]


def same_type(one: FieldDescriptor, other: FieldDescriptor) -> bool:
    """Whether the values of two fields are of one type, be they single or repeated."""
    mine, theirs = (f.enum_type or f.message_type for f in (one, other))
    return one.type == other.type and (mine and mine.full_name) == (theirs and theirs.full_name)


def read_model(descriptor: AnyDescriptor, events: Mapping[str, EventType]) -> KeyedModel:
    """Read a keyed model. Raises Misconfigured where it cannot be read."""
    options = descriptor.GetOptions().Extensions[options_pb2.model]
    keys = key_fields(descriptor, options.key)
    if len(keys) != 1:
        raise Misconfigured(
            f"{descriptor.full_name} is kept by {options.key!r}, and not one of its fields has that tag"
        )
    if missing := [name for name in options.folds if name not in events]:
        raise Misconfigured(f"{descriptor.full_name} folds {missing[0]}, which is no event that is known here")
    fields = [*keys, *(f for f in descriptor.fields if is_indexed(f) and f is not keys[0])]
    columns = [Column(f.name, kind) for f in fields if (kind := column_kind(f)) is not None]
    folds = tuple(events[name] for name in options.folds)
    return KeyedModel(
        name=descriptor.name,
        full_name=descriptor.full_name,
        message=GetMessageClass(descriptor),
        key=options.key,
        columns=tuple(columns),
        folds=folds,
        source=folds[0].message.DESCRIPTOR.file.package if folds else descriptor.file.package,
        partitioned=all(_of_one_key(event, options.key) for event in folds),
    )


def list_field(request: AnyDescriptor, response: AnyDescriptor, model: KeyedModel) -> str:
    """Give the field of a response that lists a model's rows, where nothing but the platform is needed to fill it.

    That is a page (https://google.aip.dev/158) of rows, and a request that says which by the model's columns alone.
    """
    own = {field.name: field for field in own_fields(response)}
    rows = [name for name, field in own.items() if field.is_repeated and _holds(field, model)]
    paged = {"page_size", "page_token"}.issubset(request.fields_by_name)
    if len(rows) != 1 or own.keys() != {rows[0], NEXT} or not paged:
        return ""
    columns = {column.field for column in model.columns}
    ours: AnyDescriptor = model.message.DESCRIPTOR.fields_by_name
    for field in request.fields:
        if field.name in PAGING:
            continue
        if field.name not in columns or not same_type(field, ours[field.name]):
            return ""
    return rows[0]


def row_field(response: AnyDescriptor, full_name: str) -> str:
    """Give the response's only own field, where it is a single message of that type; empty where it is not."""
    own = own_fields(response)
    if len(own) != 1 or own[0].is_repeated or own[0].message_type is None:
        return ""
    return own[0].name if own[0].message_type.full_name == full_name else ""


def _holds(field: FieldDescriptor, model: KeyedModel) -> bool:
    return field.message_type is not None and field.message_type.full_name == model.full_name


def _of_one_key(event: EventType, key: str) -> bool:
    """Whether an event is about one value of a key, by which the log keeps it in order."""
    tags = [tag for tag in event.tags if tag.key == key]
    return event.partition_by == key and len(tags) == 1 and not tags[0].repeated
