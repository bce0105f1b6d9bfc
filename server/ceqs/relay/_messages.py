"""Stored events as messages, with the tags that the contract derives from their payloads."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from google.protobuf.message import DecodeError

from ceqs.contract import Contract, tags_of
from ceqs.errors import Unavailable
from ceqs.log import LogReader, StoredEvent
from ceqs.streams import StreamMessage, to_message
from ceqs.v1.events_pb2 import RecordedEvent


def to_messages(
    events: Iterable[StoredEvent], reader: LogReader, contract: Contract, *, public: bool
) -> Iterator[StreamMessage]:
    """Give the messages of stored events. Raises Unavailable where this build cannot read one of them."""
    for stored in events:
        event = RecordedEvent.FromString(stored.envelope)
        tags = _tags(event, contract)
        yield to_message(event, tags, log=reader.name, log_id=reader.log_id, public=public)


def _tags(event: RecordedEvent, contract: Contract) -> tuple[str, ...]:
    declared = contract.events.get(event.type)
    if declared is None:
        # Published without its tags, the event would lack them for ever: better to wait for the build that knows it.
        raise Unavailable(
            f"the event {event.position} is a {event.type}, which the contract of this build does not declare: "
            "deploy the relay with the contract that the server has"
        )
    try:
        return tags_of(declared.message.FromString(event.payload), declared.tags)
    except DecodeError as error:
        raise Unavailable(f"the payload of the event {event.position} is no {event.type}: {error}") from error
