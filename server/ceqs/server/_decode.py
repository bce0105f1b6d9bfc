"""From the bytes of a call to a request that holds nothing but what its contract allows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from typing import Any, TypeAlias, cast

import protovalidate
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import DecodeError, EncodeError, Message
from google.protobuf.unknown_fields import UnknownFieldSet

from ceqs.errors import Invalid, Misconfigured, Violation
from ceqs.server._many import parse_all
from ceqs.server._rules import has_rules
from ceqs.server._times import has_times, malformed_times

Decoded: TypeAlias = tuple[Message, bytes]
"""A request, and the bytes by which it is compared with others, whoever wrote them: see `canonical`."""

_VALIDATOR = protovalidate.Validator()


class Decoder:
    """Decodes and validates the requests of one rpc.

    A `strict` decoder refuses fields and enum values that this build does not know: a command that is not understood
    whole must not be executed in part. Otherwise they are ignored.
    """

    def __init__(self, request: type[Message], *, strict: bool) -> None:
        self._request = request
        self._strict = strict
        self._enums = strict and _has_enums(cast("Descriptor", request.DESCRIPTOR))
        try:
            _VALIDATOR.collect_violations(request())
        except protovalidate.CompilationError as error:
            raise Misconfigured(f"{request.DESCRIPTOR.full_name} has a rule that does not compile: {error}") from error

    def __call__(self, raw: bytes) -> Message:
        """Give a request. Raises Invalid, with a violation per field, where it is malformed."""
        try:
            request = self._request.FromString(raw)
        except DecodeError as error:
            raise Invalid(f"the request is no {self._request.DESCRIPTOR.full_name}: {error}") from error
        if self._strict and drop_unknown(request, raw):
            raise Invalid(violations=list(_unknown_fields(self._request.FromString(raw), "")))
        if self._enums and (unknown := list(_unknown_enums(request, ""))):
            raise Invalid(violations=unknown)
        violations = violations_of(request)
        if violations:
            raise Invalid(violations=violations)
        return request

    def all(self, raws: Sequence[bytes]) -> Sequence[Decoded | Exception]:
        """Give requests, or what is wrong with them."""
        return (self._plain(raws) if len(raws) > 1 else ()) or list(map(self._decoded, raws))

    def _plain(self, raws: Sequence[bytes]) -> Sequence[Decoded]:
        """Give requests if it is plain, at one look at them all, that they are well-formed; else none."""
        try:
            found, raw = parse_all(self._request, raws)
            found.DiscardUnknownFields()
            # Bytes that are written anew as they came had nothing unknown in them.
            plain = canonical(found) == raw and not (self._enums and any(_unknown_enums(found, "")))
        except (DecodeError, EncodeError):
            return ()
        return list(zip(found.all, raws, strict=True)) if plain and _is_fit(found) else ()

    def _decoded(self, raw: bytes) -> Decoded | Exception:
        try:
            request = self(raw)
        except Exception as error:  # noqa: BLE001  # the caller's answer
            return error
        return request, canonical(request)


def canonical(message: Message) -> bytes:
    """Give the bytes by which a message is compared with others, whoever wrote them."""
    return message.SerializeToString(deterministic=True)


def drop_unknown(message: Message, raw: bytes) -> bool:
    """Drop the fields that this build does not know of a message, inner ones too; say whether there were any."""
    message.DiscardUnknownFields()
    # What still serialises to the bytes that came has lost nothing. Others may write the same message differently: then
    # sizes are compared, which spares it a walk through its messages.
    return message.SerializeToString() != raw and message.ByteSize() != type(message).FromString(raw).ByteSize()


def violations_of(message: Message) -> Sequence[Violation]:
    """Give what breaks the message's own rules (see https://protovalidate.com), and times that are none."""
    kind: Any = type(message)
    ruled, timed = _checks(kind)
    broken = _VALIDATOR.collect_violations(message) if ruled else ()
    if not broken and not timed:
        return ()
    found = [Violation(_path(one.proto.field), one.proto.message or one.proto.rule_id) for one in broken]
    return [*found, *malformed_times(message)]


def keep_rules(written: Iterable[tuple[type[Message], bytes]]) -> bool:
    """Whether it is plain, at one look at all of a type, that messages break nothing: see violations_of."""
    by_kind: dict[Any, list[bytes]] = {}
    for kind, raw in written:
        by_kind.setdefault(kind, []).append(raw)
    return all(_is_fit(parse_all(kind, raws)[0]) for kind, raws in by_kind.items() if any(_checks(kind)))


def _is_fit(message: Message) -> bool:
    try:
        return not violations_of(message)
    except Exception:  # noqa: BLE001  # which of them it is, a look at each tells
        return False


@cache
def _checks(kind: Any) -> tuple[bool, bool]:
    """Say of a message type whether it has rules, and whether it has times."""
    return has_rules(kind.DESCRIPTOR), has_times(kind.DESCRIPTOR)


def _path(field: Any) -> str:
    """`lines[2].product`; `request` where a rule is about the whole message."""
    path = ""
    for element in field.elements if field is not None else ():
        path += f".{element.field_name}"
        if element.subscript is not None:
            path += f"[{element.subscript.value}]"
    return path.removeprefix(".") or "request"


def _unknown_fields(message: Message, path: str) -> Iterator[Violation]:
    for field in cast("Iterable[Any]", UnknownFieldSet(message)):
        yield Violation(path.rstrip(".") or "request", f"has an unknown field, number {field.field_number}")
    for name, inner in _inner_messages(message):
        yield from _unknown_fields(inner, f"{path}{name}.")


def _unknown_enums(message: Message, path: str) -> Iterator[Violation]:
    for field, value in message.ListFields():
        enum = field.enum_type
        if enum is not None and not field.is_extension:
            for number in value if field.is_repeated else (value,):
                if number not in enum.values_by_number:
                    yield Violation(f"{path}{field.name}", f"has the unknown value {number}")
        elif _is_map(field) and (enum := _map_value(field).enum_type) is not None:
            for key, number in value.items():
                if number not in enum.values_by_number:
                    yield Violation(f"{path}{field.name}[{key}]", f"has the unknown value {number}")
    for name, inner in _inner_messages(message):
        yield from _unknown_enums(inner, f"{path}{name}.")


def _inner_messages(message: Message) -> Iterator[tuple[str, Message]]:
    for field, value in message.ListFields():
        if field.message_type is None:
            continue
        if _is_map(field):
            if _map_value(field).message_type is not None:
                yield from ((f"{field.name}[{key}]", inner) for key, inner in value.items())
        elif field.is_repeated:
            yield from ((f"{field.name}[{i}]", inner) for i, inner in enumerate(value))
        else:
            yield field.name, value


def _is_map(field: FieldDescriptor) -> bool:
    return field.message_type is not None and field.message_type.GetOptions().map_entry


def _map_value(field: FieldDescriptor) -> FieldDescriptor:
    return cast("Descriptor", field.message_type).fields_by_name["value"]


def _has_enums(top: Descriptor) -> bool:
    seen, waiting = {top.full_name}, [top]
    while waiting:
        for field in waiting.pop().fields:
            if field.enum_type is not None:
                return True
            if field.message_type is not None and field.message_type.full_name not in seen:
                seen.add(field.message_type.full_name)
                waiting.append(field.message_type)
    return False
