"""Stored events as messages, with the tags that the contract derives from their payloads."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ceqs.contract import tags_of
from ceqs.log import LogReader, StoredEvent
from ceqs.model import EventDecoder
from ceqs.streams import StreamMessage, to_message
from ceqs.v1.events_pb2 import RecordedEvent


def to_messages(
    events: Iterable[StoredEvent], reader: LogReader, decoder: EventDecoder, *, public: bool
) -> Iterator[StreamMessage]:
    """Give the messages of stored events, as they were recorded.

    Raises Unreadable where this build does not know one of them: published without its tags, the event would lack them
    for ever, so it is better to wait for the build that does.
    """
    for stored in events:
        event = RecordedEvent.FromString(stored.envelope)
        message = decoder.decode(event)
        tags = tags_of(message, decoder.contract.event(message).tags)
        yield to_message(event, tags, log=reader.name, log_id=reader.log_id, public=public)
