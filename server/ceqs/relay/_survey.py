"""What has become of a stream, compared with its log."""

from __future__ import annotations

import asyncio
import enum
from dataclasses import dataclass
from typing import cast

from nats.js import JetStreamContext
from nats.js.errors import NotFoundError

from ceqs.errors import Unavailable
from ceqs.log import Head, LogReader, StoredEvent
from ceqs.streams import ForeignMessage, Stream, find_stream, from_message, stream_name
from ceqs.v1.events_pb2 import RecordedEvent

GRACE = 2.0
"""Seconds that the log has to show the stream's tail: a reader may be a moment behind the one that published it."""


class Condition(enum.StrEnum):
    """How a stream and its log compare, from what mends itself to what has to be mended."""

    EQUAL = "equal"
    BEHIND = "behind"
    """Events are missing at its end: the relay publishes them, once more if they were lost."""
    MISSING = "missing"
    """There is no stream: the relay makes it and fills it."""
    EARLIER = "earlier epoch"
    """There are streams of an earlier epoch only: the relay makes new ones."""
    BROKEN = "broken"
    """Messages are missing in its middle. Consumers read them from the log; a new epoch has none missing."""
    FORKED = "forked"
    """It holds what the log does not, as when the log was restored from a backup. Nothing is published any more."""


ALARMING = frozenset({Condition.BROKEN, Condition.FORKED})
"""Only somebody who looks after it can mend these, with one command."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """A stream, compared with its log."""

    name: str
    """What the stream of the log's epoch is called."""
    public: bool
    epoch: int
    """The log's."""
    head: int
    """The log's last position (public position)."""
    stream: Stream | None = None
    """The newest stream that bears the log's name, of whichever epoch and log; None where there is none."""
    condition: Condition
    reason: str = ""
    """What is wrong, in a sentence."""
    same_log: bool = True
    """Whether the stream claims to be of this log: events of it that the log lacks are a fork of the log itself."""


async def survey(js: JetStreamContext, reader: LogReader, *, public: bool) -> Survey:
    """Compare a log's stream with the log. Raises LogReplaced, and what the client raises."""
    head = await reader.head()
    stream = await _newest(js, reader.name, head, public=public)
    position = head.public_position if public else head.position
    condition, reason = await _compare(js, reader, head, stream, position, public=public)
    return Survey(
        name=stream_name(reader.name, head.epoch, public=public),
        public=public,
        epoch=head.epoch,
        head=position,
        stream=stream,
        condition=condition,
        reason=reason,
        same_log=stream is None or stream.log_id == reader.log_id,
    )


async def _newest(js: JetStreamContext, log: str, head: Head, *, public: bool) -> Stream | None:
    """Give the stream that hears the log's subjects; mostly that of the log's epoch, which is asked for first."""
    try:
        stream = Stream.of(await js.stream_info(stream_name(log, head.epoch, public=public)))
    except NotFoundError:
        return await find_stream(js, log, public=public)
    if stream.retired:
        return await find_stream(js, log, public=public) or stream
    return stream


async def _compare(
    js: JetStreamContext, reader: LogReader, head: Head, stream: Stream | None, position: int, *, public: bool
) -> tuple[Condition, str]:
    if stream is None:
        return Condition.MISSING, "there is no stream"
    if stream.epoch < head.epoch:
        return Condition.EARLIER, _epochs(stream, head)
    fork = _is_not_ours(stream, head, reader.log_id)
    if not fork and stream.last:
        fork = await _fork(js, reader, stream, public=public)
    if fork:
        return Condition.FORKED, fork
    if stream.deleted:
        lost = f"{stream.deleted:,} messages" if stream.deleted > 1 else "a message"
        return Condition.BROKEN, f"{stream.name} lacks {lost} in its middle"
    behind = stream.last < position
    return Condition.BEHIND if behind else Condition.EQUAL, f"{position - stream.last} events follow" if behind else ""


def _is_not_ours(stream: Stream, head: Head, log_id: str) -> str:
    if stream.epoch > head.epoch:
        return _epochs(stream, head)
    if stream.retired:
        return f"{stream.name} was retired, and the epoch that followed is gone"
    if stream.log_id != log_id:
        return f"{stream.name} belongs to the log {stream.log_id or 'of nobody'}, not to {log_id}"
    return ""


def _epochs(stream: Stream, head: Head) -> str:
    return f"{stream.name} is of epoch {stream.epoch}, the log is of epoch {head.epoch}"


async def _fork(js: JetStreamContext, reader: LogReader, stream: Stream, *, public: bool) -> str:
    """Say what the tail of the stream has that the log does not."""
    ours = await _event_at(reader, stream.last, public=public)
    if ours is None:
        return f"{stream.name} ends at {stream.last}, which is beyond the head of the log"
    try:
        message = await js.get_msg(stream.name, stream.last)
        headers = cast("dict[str, str] | None", message.headers)  # pyright: ignore[reportUnknownMemberType]
        theirs = from_message(message.subject or "", headers, message.data or b"", stream.last)
    except NotFoundError:
        return ""  # purged or expired: the stream keeps less than the log
    except ForeignMessage as error:
        return f"{stream.name} ends with a stranger: {error}"
    if theirs.id != ours.id:
        return f"{stream.name} has the event {theirs.id} at {stream.last}, where the log has {ours.id}"
    return ""


async def _event_at(reader: LogReader, position: int, *, public: bool) -> RecordedEvent | None:
    clock, seen = asyncio.get_running_loop().time, 0
    deadline = clock() + GRACE
    while not (found := await read_on(reader, after=position - 1, limit=1, public=public)):
        if (left := deadline - clock()) <= 0:
            return None
        seen = await reader.wait(seen, left, public=public)
    return RecordedEvent.FromString(found[0].envelope)


async def read_on(reader: LogReader, *, after: int, limit: int, public: bool) -> list[StoredEvent]:
    """Read the events that come next in a stream. Raises Unavailable where the log skips one."""
    events = list((await reader.read(after=after, limit=limit, public=public)).events)
    for number, event in enumerate(events, start=after + 1):
        if (event.public_position if public else event.position) != number:
            raise Unavailable(f"the log {reader.name} does not give the event {number} after {after}")
    return events
