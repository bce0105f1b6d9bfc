"""What a client is given: answers with their age, and recorded events."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from google.protobuf.message import Message

from ceqs.contract import AGE, RECEIPT, field_of_type, version_of
from ceqs.v1.answers_pb2 import Age, Receipt
from ceqs.v1.events_pb2 import RecordedEvent

R = TypeVar("R", bound=Message)


@dataclass(frozen=True, slots=True)
class Answer(Generic[R]):
    """The answer to a query, and how old it is."""

    message: R
    age: Age
    """What the answer includes and how far the model was behind the log."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """A recorded event."""

    message: Message | None
    """The decoded event; None where this client does not know its type, its version or how it is encoded."""
    id: str
    """UUIDv7, lower case with hyphens."""
    type: str
    """The full name of the event's message type."""
    position: int
    """1-based, gapless, commit-ordered within one log."""
    public_position: int
    """1-based and gapless over the log's public events; 0 for a private event."""
    version: int = 1
    """The version of the event's schema."""
    recorded_at: dt.datetime
    """UTC, aware."""
    command_id: str = ""
    causation_id: str = ""
    correlation_id: str = ""
    actor: str = ""
    payload: bytes = field(default=b"", repr=False)
    """The event's protobuf bytes."""


def event_of(recorded: RecordedEvent, types: Mapping[str, type[Message]]) -> Event:
    """Decode a recorded event with the message types that the client knows, by full name."""
    known, version = types.get(recorded.type), recorded.schema_version or 1
    if known and (recorded.codec or version_of(known.DESCRIPTOR) != version):
        known = None
    return Event(
        message=known.FromString(recorded.payload) if known else None,
        id=recorded.id,
        type=recorded.type,
        position=recorded.position,
        public_position=recorded.public_position,
        version=version,
        recorded_at=recorded.recorded_at.ToDatetime(dt.UTC),
        command_id=recorded.command_id,
        causation_id=recorded.causation_id,
        correlation_id=recorded.correlation_id,
        actor=recorded.actor,
        payload=recorded.payload,
    )


def age_of(response: Message, trailers: Mapping[str, str]) -> Age:
    """Give the age of an answer: from its field of that type, else from the call's trailers."""
    name = field_of_type(response.DESCRIPTOR, AGE)
    if name and response.HasField(name):
        found: Age = getattr(response, name)
        return found
    age = Age(
        token=trailers.get("ceqs-token", ""),
        lag_events=int(trailers.get("ceqs-lag", 0)),
        lag_seconds=float(trailers.get("ceqs-lag-seconds", 0)),
        parked=int(trailers.get("ceqs-parked", 0)),
        behind=trailers.get("ceqs-behind", ""),
    )
    if recorded_at := trailers.get("ceqs-recorded-at"):
        age.recorded_at.FromJsonString(recorded_at)
    return age


def same_answer(one: Message, other: Message) -> bool:
    """Say whether two answers to one query differ by their age at most."""
    name = field_of_type(one.DESCRIPTOR, AGE)
    bare = [type(one)(), type(one)()]
    for copy, message in zip(bare, (one, other), strict=True):
        copy.CopyFrom(message)
        if name:
            copy.ClearField(name)
    return bare[0] == bare[1]


def token_of(response: Message, trailers: Mapping[str, str]) -> str:
    """Give the token of a command's outcome: from the response's receipt, else from the call's trailers."""
    name = field_of_type(response.DESCRIPTOR, RECEIPT)
    receipt: Receipt | None = getattr(response, name) if name else None
    return (receipt.token if receipt else "") or trailers.get("ceqs-token", "")
