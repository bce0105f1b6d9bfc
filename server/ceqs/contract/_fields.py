"""What the fields of a message are to the platform."""

from __future__ import annotations

from typing import Any, TypeAlias

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from ceqs.contract._types import TagField
from ceqs.v1 import options_pb2

AnyDescriptor: TypeAlias = Any
"""A Descriptor; the type stubs of protobuf know two classes of them."""
RECEIPT = "ceqs.v1.Receipt"
AGE = "ceqs.v1.Age"
PART_AGE = "ceqs.v1.PartAge"


def tag_fields(descriptor: Descriptor) -> tuple[TagField, ...]:
    """Give the fields of a message whose values are tags."""
    return tuple(
        TagField(field.name, key, field.is_repeated)
        for field in descriptor.fields
        if (key := field.GetOptions().Extensions[options_pb2.field].tag)
    )


def own_fields(descriptor: Descriptor) -> list[FieldDescriptor]:
    """Give the fields of a response that the platform does not fill."""
    return [f for f in descriptor.fields if not (f.message_type and f.message_type.full_name in (RECEIPT, AGE))]


def field_of_type(descriptor: AnyDescriptor, full_name: str) -> str:
    """Give the name of the first field of a message type, such as `RECEIPT` or `AGE`; empty where there is none."""
    names = [f.name for f in descriptor.fields if f.message_type and f.message_type.full_name == full_name]
    return names[0] if names else ""


def parts_field(descriptor: AnyDescriptor) -> str:
    """Give the name of a response's field `map<string, ceqs.v1.PartAge>`; empty where it has none."""
    for field in descriptor.fields:
        entry = field.message_type
        if entry and entry.GetOptions().map_entry:
            key, value = entry.fields_by_name["key"], entry.fields_by_name["value"]
            if (
                key.type == FieldDescriptor.TYPE_STRING
                and value.message_type
                and value.message_type.full_name == PART_AGE
            ):
                return str(field.name)
    return ""


def command_id_field(request: AnyDescriptor) -> str:
    """Give the name of the request's field that carries the command id; empty where none is annotated."""
    names = [f.name for f in request.fields if f.GetOptions().Extensions[options_pb2.field].command_id]
    return names[0] if names else ""
