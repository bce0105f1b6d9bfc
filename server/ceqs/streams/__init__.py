"""Recorded events as JetStream messages: names, subjects, CloudEvents headers, connections."""

from ceqs.streams._client import StreamClient
from ceqs.streams._connect import MINIMUM_SERVER, connect, connected, heed_cancellation
from ceqs.streams._messages import ForeignMessage, StreamMessage, decode_tags, from_message, to_message
from ceqs.streams._names import stream_name, subject, subjects
from ceqs.streams._streams import Stream, find_stream

__all__ = [
    "MINIMUM_SERVER",
    "ForeignMessage",
    "Stream",
    "StreamClient",
    "StreamMessage",
    "connect",
    "connected",
    "decode_tags",
    "find_stream",
    "from_message",
    "heed_cancellation",
    "stream_name",
    "subject",
    "subjects",
    "to_message",
]
