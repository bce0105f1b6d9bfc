"""Comparing the streams with the log, message for message."""

from __future__ import annotations

from collections.abc import AsyncIterator

from nats.aio.msg import Msg
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy

from ceqs.log import LogReader
from ceqs.model import EventDecoder
from ceqs.relay._messages import to_messages
from ceqs.streams import Stream, connected, find_stream, subjects
from ceqs.streams._streams import LOG_ID

_BATCH = 500


async def differences(reader: LogReader, decoder: EventDecoder, nats_url: str, *, limit: int = 10) -> list[str]:
    """Compare both streams with the log to its present head; give the first differences, none where they are equal.

    Subject, headers (but those of JetStream) and body of every message are compared, at every position.
    """
    found: list[str] = []
    async with connected(nats_url) as client:
        for public in (False, True):
            async for difference in _compare(JetStreamContext(client), reader, decoder, public=public):
                found.append(difference)
                if len(found) == limit:
                    return found
    return found


async def _compare(
    js: JetStreamContext, reader: LogReader, decoder: EventDecoder, *, public: bool
) -> AsyncIterator[str]:
    head = await reader.head()
    end = head.public_position if public else head.position
    stream = await find_stream(js, reader.name, public=public)
    if stream is None:
        yield f"there is no {'public' if public else 'log'} stream of {reader.name}"
        return
    if stream.log_id != reader.log_id:
        yield f"{stream.name}: {LOG_ID} is {stream.log_id}, not {reader.log_id}"
    if stream.last < end:
        yield f"{stream.name}: it ends at {stream.last}, the log at {end}"
    messages = _messages(js, reader.name, stream, public=public)
    position, end = max(stream.first, 1) - 1, min(end, stream.last)
    while position < end:
        events = (await reader.read(after=position, limit=_BATCH, public=public, until=end)).events
        for expected in to_messages(events, reader, decoder, public=public):
            position += 1
            message = await anext(messages)
            headers = {k: v for k, v in (message.headers or {}).items() if not k.startswith("Nats-")}
            if (sequence := message.metadata.sequence.stream) != position:
                yield f"{stream.name}: after {position - 1} comes {sequence}"
                return
            if (message.subject, headers, message.data) != expected:
                yield f"{stream.name}: {position} is {message.subject} {headers}, not {expected[0]} {expected[1]}"


async def _messages(js: JetStreamContext, log: str, stream: Stream, *, public: bool) -> AsyncIterator[Msg]:
    config = ConsumerConfig(ack_policy=AckPolicy.NONE, deliver_policy=DeliverPolicy.ALL, inactive_threshold=30)
    subscription = await js.pull_subscribe(subjects(log, public=public), stream=stream.name, config=config)
    while True:
        for message in await subscription.fetch(_BATCH, timeout=5):
            yield message
