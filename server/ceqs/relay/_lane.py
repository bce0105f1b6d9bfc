"""One stream of a log, kept equal to it."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import os
import socket
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass

import structlog
from nats.aio.msg import Msg
from nats.js import JetStreamContext
from nats.js.api import RetentionPolicy, StorageType, StreamConfig

from ceqs.errors import LogReplaced, Misconfigured
from ceqs.log import MAX_EVENT_BYTES, LogReader
from ceqs.model import EventDecoder
from ceqs.relay._batch import MAX_MESSAGES, Overtaken, in_batches, publish_batch
from ceqs.relay._limits import StreamLimits
from ceqs.relay._messages import to_messages
from ceqs.relay._survey import ALARMING, Condition, Survey, read_on, survey
from ceqs.streams import (
    Stream,
    StreamClient,
    StreamMessage,
    connected,
    find_stream,
    heed_cancellation,
    subjects,
)
from ceqs.streams._streams import EPOCH, LOG_ID, RETIRED

FIRST_DELAY, LONGEST_DELAY = 0.25, 5.0
"""Seconds between an error and the next attempt: 50 batches abandoned in a hurry would block a stream for 10 s."""
HEARTBEAT = 2.0
"""Seconds after which the stream is looked at again, whether there are new events or not."""
ANSWER_WITHIN = 5.0
"""Seconds that a server has to answer; after that, the outcome is found out on a new connection."""
MINIMUM_PAYLOAD = MAX_EVENT_BYTES + 64 * 1024
"""The longest event and the most headers that JetStream takes."""
REPAIRS = 10
"""How many of the last repairs are told."""

_process_log = structlog.get_logger("ceqs.relay")


class Fork(Exception):
    """The stream holds what the log does not: nothing is published until a new epoch begins."""


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
    """What somebody has to look at, and the command that mends it."""
    repairs: tuple[str, ...] = ()
    """What has been found broken and mended, the last one last."""


class Lane:
    """Keeps one stream of a log equal to it: the log stream, or the public one."""

    def __init__(
        self, reader: LogReader, decoder: EventDecoder, nats_url: str, limits: StreamLimits, *, public: bool
    ) -> None:
        self._reader = reader
        self._decoder = decoder
        self._nats_url = nats_url
        self._limits = limits
        self._public = public
        self.status = StreamStatus(public=public)

    async def run(self) -> None:
        """Follow the log until cancelled. Any error is tried again, for ever.

        Raises LogReplaced, and Misconfigured where the nats-server is unfit.
        """
        delay = FIRST_DELAY
        while True:
            heed_cancellation()
            before = self.status.position
            try:
                async with connected(self._nats_url, name=f"ceqs relay {self._reader.name}") as client:
                    try:
                        await self._follow(client)
                    except Fork as error:
                        self._fail(error)
                        await asyncio.sleep(delay)  # connected, so that whoever asks is told
            except (Misconfigured, LogReplaced) as error:
                self._fail(error)
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
        clock = asyncio.get_running_loop().time
        js, seen = JetStreamContext(client, timeout=ANSWER_WITHIN), 0
        await client.subscribe(status_subject(self._reader.name), cb=self._tell)  # pyright: ignore[reportUnknownMemberType]
        await self._reconcile(js)
        await self._limit(js)
        looked = clock()
        while True:
            heed_cancellation()
            head = await self._reader.wait(seen, HEARTBEAT, public=self._public)
            if head <= seen or clock() - looked >= HEARTBEAT:
                await self._reconcile(js)
                looked = clock()
            if await self._publish_what_is_new(client, until=looked + HEARTBEAT):
                seen = head
            self.status.last_error = ""

    async def _publish_what_is_new(self, client: StreamClient, *, until: float) -> bool:
        """Publish until nothing is left, or for so long; say whether nothing is left."""
        sending: asyncio.Task[int] | None = None
        clock = asyncio.get_running_loop().time
        try:
            async for batch, after in self._batches():  # the next one is made while the server commits the last
                if sending:
                    self._reached(await sending)
                sending = asyncio.create_task(publish_batch(client, batch, after=after, within=ANSWER_WITHIN))
                if clock() > until:
                    self._reached(await sending)
                    return False
            if sending:
                self._reached(await sending)
        finally:
            if sending:
                sending.cancel()
        return True

    async def _batches(self) -> AsyncIterator[tuple[list[StreamMessage], int]]:
        position = self.status.position
        while events := await read_on(self._reader, after=position, limit=MAX_MESSAGES, public=self._public):
            for batch in in_batches(to_messages(events, self._reader, self._decoder, public=self._public)):
                yield batch, position
                position += len(batch)

    def _reached(self, position: int) -> None:
        self.status.position = position
        self.status.head = max(self.status.head, position)

    async def _reconcile(self, js: JetStreamContext) -> None:
        """Find the stream's last sequence, having made the stream where there was none. Raises Fork."""
        found = await survey(js, self._reader, public=self._public)
        # A stream that was not followed before, of an epoch that has just begun, has lost nothing.
        before = self.status.position if self.status.stream == found.name else 0
        self.status.stream, self.status.head = found.name, found.head
        self._alarm(found)
        if found.condition is Condition.FORKED:
            raise Fork(found.reason)
        if found.stream is None or found.condition is Condition.EARLIER:
            if before:
                self._repaired(f"{found.name} was deleted: it is made anew and filled from the log")
            self.status.position = (await self._create(js, found)).last
            return
        last = self.status.position = found.stream.last
        if last < before:
            self._repaired(f"{found.name} has lost its tail, {last + 1} to {before}: it is published again")

    async def _create(self, js: JetStreamContext, found: Survey) -> Stream:
        older = await find_stream(js, self._reader.name, public=self._public)
        if older and older.epoch >= found.epoch:
            # Another relay has made it in this moment.
            return older
        if older:
            await self._retire(js, older)
        head = await self._reader.head()
        first = await self._limits.first(self._reader, head, public=self._public, now=dt.datetime.now(dt.UTC))
        _process_log.info("creating a stream", stream=found.name, log_id=head.log_id, first=first)
        config = StreamConfig(
            name=found.name,
            description=f"{'The public events' if self._public else 'Every event'} of the log {self._reader.name}.",
            subjects=[subjects(self._reader.name, public=self._public)],
            retention=RetentionPolicy.LIMITS,
            storage=StorageType.FILE,
            deny_delete=True,
            allow_atomic=True,
            first_seq=first if first > 1 else None,
            metadata={LOG_ID: head.log_id, EPOCH: str(found.epoch)},
        )
        self._limits.apply(config)
        return Stream.of(await js.add_stream(config))  # pyright: ignore[reportUnknownMemberType]

    async def _limit(self, js: JetStreamContext) -> None:
        """Give the stream the limits that are set now."""
        config = (await js.stream_info(self.status.stream)).config
        if self._limits.apply(config):
            _process_log.info("changing the limits of a stream", stream=self.status.stream, limits=str(self._limits))
            await js.update_stream(config)  # pyright: ignore[reportUnknownMemberType]

    async def _retire(self, js: JetStreamContext, older: Stream) -> None:
        """Take the subjects from an older epoch's stream, for two streams cannot hear the same; it stays readable."""
        info = await js.stream_info(older.name)
        info.config.subjects = [f"{RETIRED}{older.name}"]
        await js.update_stream(info.config)  # pyright: ignore[reportUnknownMemberType]
        _process_log.info("retired a stream", stream=older.name)

    async def _tell(self, message: Msg) -> None:
        """Answer who asks for the status."""
        who = {"relay": f"{socket.gethostname()}:{os.getpid()}", "log": self._reader.name}
        await message.respond(json.dumps({**who, **asdict(self.status)}).encode())

    def _fail(self, error: Exception) -> None:
        said = str(error) or repr(error)
        if said != self.status.last_error:  # a server that is down for an hour is one line
            _process_log.warning("the stream does not follow the log", stream=self.status.stream, error=said)
        self.status.last_error = said

    def _repaired(self, what: str) -> None:
        _process_log.warning("repairing a stream", log=self._reader.name, stream=self.status.stream, repair=what)
        self.status.repairs = (*self.status.repairs, what)[-REPAIRS:]

    def _alarm(self, found: Survey) -> None:
        alarm = f"{found.reason}: {remedy(self._reader.name)}" if found.condition in ALARMING else ""
        if alarm and alarm not in self.status.alarms:
            _process_log.error("alarm", log=self._reader.name, stream=self.status.stream, alarm=alarm)
        self.status.alarms = (alarm,) if alarm else ()


def status_subject(log: str) -> str:
    """Give the subject on which the relays of a log say how they are doing."""
    return f"ceqs-relay.{log}"


def remedy(log: str) -> str:
    """Give the command that mends what a relay cannot."""
    return f"run `ceqs relay new-epoch {log}`"
