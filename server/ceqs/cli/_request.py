"""Requests from the command line: `key=value` words or JSON, typed by the message's descriptor."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable, Sequence
from typing import Any

from google.protobuf import json_format
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from google.protobuf.message import Message

from ceqs.errors import Misconfigured

_STEP = re.compile(r"(\w+)(?:\[(\d+)\])?")
_JSON_TEXT = ("google.protobuf.Timestamp", "google.protobuf.Duration", "google.protobuf.FieldMask")
"""Messages that JSON writes as text."""
_SCALARS: dict[int, Callable[[str], Any]] = {
    FieldDescriptor.CPPTYPE_STRING: str,
    FieldDescriptor.CPPTYPE_BOOL: {"true": True, "false": False}.__getitem__,
    FieldDescriptor.CPPTYPE_FLOAT: float,
    FieldDescriptor.CPPTYPE_DOUBLE: float,
}
"""How the words for scalars are read; the others are whole numbers."""


def fill_request(request: Message, words: Sequence[str]) -> None:
    """Fill a request from `key=value` words, of which one may be a JSON object.

    `a.b=1` sets a field of a message, `tags=x tags=y` repeats, `lines[0].product=x` reaches into a repeated message.
    Raises Misconfigured, naming the word.
    """
    value: dict[str, Any] = {}
    descriptor: Any = request.DESCRIPTOR  # the stubs know two types of descriptors
    for word in words:
        if word.lstrip().startswith("{"):
            value.update(_json(word, "the request"))
            continue
        path, equals, text = word.partition("=")
        if not equals:
            raise Misconfigured(f"{word!r} is neither key=value nor a JSON object")
        _set(value, descriptor, path.split("."), text, path)
    try:
        json_format.ParseDict(value, request, descriptor_pool=descriptor.file.pool)
    except json_format.ParseError as error:
        raise Misconfigured(f"{descriptor.name}: {error}") from None


def _set(into: dict[str, Any], descriptor: Descriptor, path: Sequence[str], text: str, whole: str) -> None:
    step = _STEP.fullmatch(path[0])
    field = _field(descriptor, step[1] if step else path[0], whole)
    index = int(step[2]) if step and step[2] else None
    name, rest = field.name, path[1:]
    if _is_map(field) and rest:
        assert field.message_type is not None
        into.setdefault(name, {})[".".join(rest)] = _value(field.message_type.fields_by_name["value"], text, whole)
    elif rest and field.message_type is None:
        raise Misconfigured(f"{whole}: {name} is {_kind(field)} and has no fields")
    elif field.is_repeated and index is not None:
        items: list[Any] = into.setdefault(name, [])
        if index > len(items):
            raise Misconfigured(f"{whole}: {name}[{len(items)}] comes before {name}[{index}]")
        if index == len(items):
            items.append({} if rest else None)
        if rest:
            assert field.message_type is not None
            _set(items[index], field.message_type, rest, text, whole)
        else:
            items[index] = _value(field, text, whole)
    elif rest and field.is_repeated:
        raise Misconfigured(f"{whole}: {name} is repeated; write {name}[0].{'.'.join(rest)}")
    elif rest:
        assert field.message_type is not None
        _set(into.setdefault(name, {}), field.message_type, rest, text, whole)
    elif field.is_repeated and not _is_map(field):
        given = _json(text, whole) if text.lstrip().startswith("[") else [_value(field, text, whole)]
        into.setdefault(name, []).extend(given)
    elif name in into:
        raise Misconfigured(f"{whole} is given twice, and {name} is not repeated")
    else:
        into[name] = _value(field, text, whole)


def _field(descriptor: Descriptor, name: str, whole: str) -> FieldDescriptor:
    field = descriptor.fields_by_name.get(name) or descriptor.fields_by_camelcase_name.get(name)
    if field is None:
        names = list(descriptor.fields_by_name)
        near = difflib.get_close_matches(name, names, 1)
        hint = f"did you mean {near[0]}?" if near else f"it has {', '.join(names) or 'none'}"
        raise Misconfigured(f"{whole}: {descriptor.name} has no field {name!r}; {hint}")
    return field


def _value(field: FieldDescriptor, text: str, whole: str) -> Any:
    if field.message_type is not None:
        return _message(field, text, whole)
    if field.enum_type is not None:
        return _enum(field.enum_type, text, whole)
    read = _SCALARS.get(field.cpp_type, int)
    try:
        return read(text)
    except (ValueError, KeyError):
        raise Misconfigured(f"{whole}: {text!r} is not {_kind(field)}") from None


def _message(field: FieldDescriptor, text: str, whole: str) -> Any:
    assert field.message_type is not None
    if field.message_type.full_name in _JSON_TEXT:
        return text
    if not text.lstrip().startswith(("{", "[")):
        raise Misconfigured(f"{whole}: {field.name} is {_kind(field)}; give its fields or a JSON object")
    return _json(text, whole)


def _enum(enum: EnumDescriptor, text: str, whole: str) -> int:
    """Find a value by its name, by its name without the enum's prefix, or by its number."""
    for value in enum.values:
        if text.upper() == value.name or value.name.endswith(f"_{text.upper()}") or text == str(value.number):
            return int(value.number)
    raise Misconfigured(f"{whole}: {text!r} is not one of {', '.join(value.name for value in enum.values)}")


def _json(text: str, whole: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise Misconfigured(f"{whole}: not JSON: {error}") from None


def _is_map(field: FieldDescriptor) -> bool:
    return field.message_type is not None and field.message_type.GetOptions().map_entry


def _kind(field: FieldDescriptor) -> str:
    if field.message_type is not None:
        return f"a {field.message_type.name}"
    names = {FieldDescriptor.CPPTYPE_STRING: "text", FieldDescriptor.CPPTYPE_BOOL: "true or false"}
    floats = (FieldDescriptor.CPPTYPE_FLOAT, FieldDescriptor.CPPTYPE_DOUBLE)
    return names.get(field.cpp_type, "a number" if field.cpp_type in floats else "a whole number")
