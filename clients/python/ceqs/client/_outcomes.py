"""What streamed commands come to."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any, Generic, TypeAlias, TypeVar

from google.protobuf.message import Message

from ceqs.contract import RECEIPT, field_of_type
from ceqs.errors import CeqsError
from ceqs.v1.answers_pb2 import Receipt

R = TypeVar("R", bound=Message)
AnyDescriptor: TypeAlias = Any


@dataclass(frozen=True, slots=True)
class Outcome(Generic[R]):
    """What a command of a stream came to: `receipt` and `response` where it was accepted, else `error`."""

    request: Message
    command_id: str
    receipt: Receipt | None = None
    response: R | None = None
    error: CeqsError | None = None

    def result(self) -> R:
        """Give the response. Raises the error where the command was not accepted."""
        if self.response is None:
            raise self.error or AssertionError("an outcome is a response or an error")
        return self.response


def response_of(response_type: type[R], receipt: Receipt, own_fields: bytes) -> R:
    """Put a response together: its receipt, and its own fields where it has any."""
    response = response_type.FromString(own_fields) if own_fields else response_type()
    if name := _receipt_field(response.DESCRIPTOR):
        getattr(response, name).CopyFrom(receipt)
    return response


@cache
def _receipt_field(response: AnyDescriptor) -> str:
    return field_of_type(response, RECEIPT)
