"""One stream of a log, kept equal to it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import cast

import structlog
from nats.js import JetStreamContext
from nats.js.api import RetentionPolicy, StorageType, StreamConfig, StreamInfo
from nats.js.errors import NotFoundError

from ceqs.contract import Contract
from ceqs.errors import Misconfigured, Unavailable
from ceqs.log import MAX_EVENT_BYTES, Head, LogReader, StoredEvent
from ceqs.relay._batch import MAX_MESSAGES, Overtaken, in_batches, publish_batch
from ceqs.relay._messages import to_messages
from ceqs.streams import (
    ForeignMessage,
    Stream,
    StreamClient,
    StreamMessage,
    connected,
    find_stream,
    from_message,
    heed_cancellation,
    stream_name,
    subjects,
)
from ceqs.streams._streams import EPOCH, LOG_ID
from ceqs.v1.events_pb2 import RecordedEvent

FIRST_DELAY, LONGEST_DELAY = 0.25, 5.0
"""Seconds between an error and the next attempt: 50 batches abandoned in a hurry would block a stream for 10 s."""
HEARTBEAT = 2.0
"""Seconds without a new event after which the stream is looked at again."""
ANSWER_WITHIN = 5.0
"""Seconds that a server has to answer; after that, the outcome is found out on a new connection."""
GRACE = 2.0
"""Seconds that the log has to show the stream's tail: a reader may be a moment behind the one that published it."""
MINIMUM_PAYLOAD = MAX_EVENT_BYTES + 64 * 1024
"""The longest event and the most headers that JetStream takes."""

_process_log = structlog.get_logger("ceqs.relay")


class Fork(Misconfigured):
    """The stream holds what the log does not: they have come apart, as when the log was restored from a backup."""


@dataclass(slots=True)
class StreamStatus:
    """How far a stream follows its log."""

    stream: str = ""
    """Its name; empty until the log has been read."""
    public: bool = False
    position: int = 0
    """The stream's last sequence, which is the position (public position) of the last event in it."""
    head: int = 0
    """The log's last position (public position), as far as it is known."""
    last_error: str = ""
    """Why the stream is not followed now; empty while it is."""
    alarms: tuple[str, ...] = ()
    """What somebody has to look at."""


class Lane:
    """Keeps one stream of a log equal to it: the log stream, or the public one."""

    def __init__(self, reader: LogReader, contract: Contract, nats_url: str, *, public: bool) -> None:
        self._reader = reader
        self._contract = contract
        self._nats_url = nats_url
        self._public = public
        self.status = StreamStatus(public=public)

    async def run(self) -> None:
        """Follow the log until cancelled. Any error but a fork or a wrong configuration is tried again, for ever."""
        delay = FIRST_DELAY
        while True:
            heed_cancellation()
            before = self.status.position
            try:
                async with connected(self._nats_url, name=f"ceqs relay {self._reader.name}") as client:
                    await self._follow(client)
            except Misconfigured as error:
                self._fail(error)
                self._alarm(str(error))
                raise
            except Overtaken as error:
                _process_log.info("another relay was faster", stream=self.status.stream, said=str(error))
            except Exception as error:  # noqa: BLE001  # whatever it was, the stream itself says how to go on
                self._fail(error)
            delay = FIRST_DELAY if self.status.position != before else min(delay * 2, LONGEST_DELAY)
            await asyncio.sleep(delay)

    async def _follow(self, client: StreamClient) -> None:
        if client.max_payload < MINIMUM_PAYLOAD:
            raise Misconfigured(
                f"the nats-server's max_payload is {client.max_payload} bytes: set it to {MINIMUM_PAYLOAD} or more"
            )
        js, seen = JetStreamContext(client, timeout=ANSWER_WITHIN), 0
        self.status.position = await self._reconcile(js)
        self.status.last_error = ""
        while True:
            heed_cancellation()
            head = await self._reader.wait(seen, HEARTBEAT)
            if head <= seen:
                self.status.position = await self._reconcile(js)
            seen = head
            await self._publish_what_is_new(client)

    async def _publish_what_is_new(self, client: StreamClient) -> None:
        sending: asyncio.Task[int] | None = None
        try:
            async for batch, after in self._batches():  # the next one is made while the server commits the last
                if sending:
                    self._reached(await sending)
                sending = asyncio.create_task(publish_batch(client, batch, after=after, within=ANSWER_WITHIN))
            if sending:
                self._reached(await sending)
        finally:
            if sending:
                sending.cancel()

    async def _batches(self) -> AsyncIterator[tuple[list[StreamMessage], int]]:
        position = self.status.position
        while events := await self._read(after=position, limit=MAX_MESSAGES):
            for batch in in_batches(to_messages(events, self._reader, self._contract, public=self._public)):
                yield batch, position
                position += len(batch)

    def _reached(self, position: int) -> None:
        self.status.position = position
        self.status.head = max(self.status.head, position)

    async def _reconcile(self, js: JetStreamContext) -> int:
        """Give the stream's last sequence, having made the stream where there was none."""
        head = await self._reader.head()
        self.status.head = head.public_position if self._public else head.position
        self.status.stream = stream_name(self._reader.name, head.epoch, public=self._public)
        try:
            info = await js.stream_info(self.status.stream)
        except NotFoundError:
            info = await self._create(js, head)
        stream = Stream.of(info)
        if stream.log_id != self._reader.log_id:
            raise Fork(f"{stream.name} belongs to the log {stream.log_id or '(none)'}, not to {self._reader.log_id}")
        if stream.deleted:
            self._alarm(f"{stream.name} lacks {stream.deleted} messages in its middle: begin a new epoch")
        if stream.last:
            await self._check_tail(js, stream)
        return stream.last

    async def _create(self, js: JetStreamContext, head: Head) -> StreamInfo:
        older = await find_stream(js, self._reader.name, public=self._public)
        if older and older.epoch > head.epoch:
            raise Fork(f"{older.name} is of epoch {older.epoch}, the log is of epoch {head.epoch}")
        if older and older.epoch == head.epoch:
            # Another relay has made it in this moment.
            return await js.stream_info(older.name)
        if older:
            await self._retire(js, older)
        _process_log.info("creating a stream", stream=self.status.stream, log_id=head.log_id)
        config = StreamConfig(
            name=self.status.stream,
            description=f"{'The public events' if self._public else 'Every event'} of the log {self._reader.name}.",
            subjects=[subjects(self._reader.name, public=self._public)],
            retention=RetentionPolicy.LIMITS,
            storage=StorageType.FILE,
            deny_delete=True,
            allow_atomic=True,
            metadata={LOG_ID: head.log_id, EPOCH: str(head.epoch)},
        )
        return await js.add_stream(config)  # pyright: ignore[reportUnknownMemberType]

    async def _retire(self, js: JetStreamContext, older: Stream) -> None:
        """Take the subjects from an older epoch's stream, for two streams cannot hear the same; it stays readable."""
        info = await js.stream_info(older.name)
        info.config.subjects = [f"ceqs-retired.{older.name}"]
        await js.update_stream(info.config)  # pyright: ignore[reportUnknownMemberType]
        _process_log.info("retired a stream", stream=older.name)

    async def _check_tail(self, js: JetStreamContext, stream: Stream) -> None:
        ours = await self._event_at(stream.last)
        if ours is None:
            raise Fork(f"{stream.name} ends at {stream.last}, which is beyond the head of the log")
        try:
            message = await js.get_msg(stream.name, stream.last)
            headers = cast("dict[str, str] | None", message.headers)  # pyright: ignore[reportUnknownMemberType]
            theirs = from_message(message.subject or "", headers, message.data or b"", stream.last)
        except NotFoundError:
            return  # purged or expired: the stream keeps less than the log
        except ForeignMessage as error:
            raise Fork(f"{stream.name} ends with a stranger: {error}") from error
        if theirs.id != ours.id:
            raise Fork(f"{stream.name} has the event {theirs.id} at {stream.last}, where the log has {ours.id}")

    async def _event_at(self, position: int) -> RecordedEvent | None:
        clock, seen = asyncio.get_running_loop().time, 0
        deadline = clock() + GRACE
        while not (found := await self._read(after=position - 1, limit=1)):
            if (left := deadline - clock()) <= 0:
                return None
            seen = await self._reader.wait(seen, left)
        return RecordedEvent.FromString(found[0].envelope)

    async def _read(self, *, after: int, limit: int) -> list[StoredEvent]:
        events = list((await self._reader.read(after=after, limit=limit, public=self._public)).events)
        for number, event in enumerate(events, start=after + 1):
            if (event.public_position if self._public else event.position) != number:
                raise Unavailable(f"the log {self._reader.name} does not give the event {number} after {after}")
        return events

    def _fail(self, error: Exception) -> None:
        said = str(error) or repr(error)
        if said != self.status.last_error:  # a server that is down for an hour is one line
            _process_log.warning("the stream does not follow the log", stream=self.status.stream, error=said)
        self.status.last_error = said

    def _alarm(self, alarm: str) -> None:
        if alarm not in self.status.alarms:
            _process_log.error("alarm", log=self._reader.name, stream=self.status.stream, alarm=alarm)
            self.status.alarms += (alarm,)
