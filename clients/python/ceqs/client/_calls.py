"""Single gRPC calls: their methods and their metadata."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any, TypeAlias, TypeVar

import grpc.aio
from google.protobuf.message import Message

from ceqs.contract import command_id_field, new_id
from ceqs.errors import Invalid, Violation

R = TypeVar("R", bound=Message)
CallMetadata: TypeAlias = tuple[tuple[str, str], ...]


def metadata_of(values: Mapping[str, str | None]) -> CallMetadata:
    """Give the metadata to send; empty values are left out. Raises Invalid for text that a header cannot carry."""
    for key, value in values.items():
        if value and not (value.isascii() and value.isprintable()):
            raise Invalid(violations=[Violation(key, "must be printable ASCII")])
    return tuple((key, value) for key, value in values.items() if value)


def command_id_of(request: Message, given: str | None) -> str:
    """Give the id to send a command under: the one given, else the request's own, else a new one."""
    field = _command_id_field(request.DESCRIPTOR)
    own: str = getattr(request, field) if field else ""
    return given or own or new_id()


@cache
def _command_id_field(request: Any) -> str:
    return command_id_field(request)


def text_of(metadata: Iterable[tuple[str, str | bytes]]) -> dict[str, str]:
    """Give the textual trailers of a call."""
    return {key: value for key, value in metadata if isinstance(value, str)}


def serialize(message: Message) -> bytes:
    """Give the bytes of a request."""
    return message.SerializeToString()


def unary(channel: grpc.aio.Channel, path: str, response_type: type[R]) -> grpc.aio.UnaryUnaryMultiCallable[Message, R]:
    """Give the method of a unary rpc."""
    return channel.unary_unary(path, request_serializer=serialize, response_deserializer=response_type.FromString)


def open_stream(
    channel: grpc.aio.Channel,
    path: str,
    request: Message,
    response_type: type[R],
    base: CallMetadata,
    values: Mapping[str, str | None] | None = None,
) -> grpc.aio.UnaryStreamCall[Message, R]:
    """Start a call of a streaming rpc. It has no deadline: the caller cancels it."""
    method = channel.unary_stream(path, request_serializer=serialize, response_deserializer=response_type.FromString)
    return method(request, metadata=base + metadata_of(values or {}))
