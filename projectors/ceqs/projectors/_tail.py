"""Following a log: caught up through its EventsService, then live from JetStream.

One tail per process and log keeps the newest events in a ring that all handlers of the log share:

    EventsService.Read ──────────────► a handler that is behind the ring
    JetStream ──┐
                ├─► ring of events ──► the handlers that have caught up
    looking  ───┘
    (EventsService.Read: seldom while JetStream delivers, often while it does not)

Whatever brings an event, it is taken by its position: the next one is appended, an older one dropped, and before a
later one the ring starts anew, so that every handler reads the gap from the log. A dead NATS costs latency only; a dead
EventsService costs nothing as long as the stream reaches back far enough.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Protocol

import structlog

from ceqs.errors import Internal, LogReplaced, Unavailable
from ceqs.projectors._calls import LogLink
from ceqs.projectors._retry import backoff, said
from ceqs.streams import heed_cancellation
from ceqs.v1.events_pb2 import RecordedEvent

RING_EVENTS = 8192
RING_BYTES = 64 * 1024 * 1024
LOOK_LIVE, LOOK_DEAF = 1.0, 0.1
"""Seconds between two looks at the log: while JetStream is connected, and while it is not."""
LOOK_LIMIT = 2000

_process_log = structlog.get_logger("ceqs.projectors")


class Listening(Protocol):
    """Brings the events of one log as JetStream has them."""

    def listen(self, after: int) -> AsyncGenerator[tuple[str, Sequence[RecordedEvent]]]:
        """Give the log id and the events after a position as they come; no events to say that the stream is there.

        Raises Unavailable when the stream or the server is lost.
        """
        ...


class Tail:
    """The end of one log, shared by the handlers of one process. `close` it in the event loop that used it."""

    def __init__(self, link: LogLink, stream: Listening | None) -> None:
        self.link = link
        self.log_id = ""
        self.head = 0
        """The last position that is known."""
        self.problem = ""
        """Why the log cannot be read at the moment; empty where it can."""
        self.listening = False
        self._stream = stream
        self._ring: list[RecordedEvent] = []
        self._base: int | None = None
        self._bytes = 0
        self._moved = asyncio.Event()
        self._rewinding = asyncio.Lock()
        self._tasks: list[asyncio.Task[None]] = []

    async def follow(self, after: int, log_id: str = "") -> AsyncGenerator[Sequence[RecordedEvent]]:
        """Give every event after a position, in order and without a gap, in batches, for ever.

        `log_id` is the log that the position belongs to; empty takes the log that is met. Waits out whatever is down.
        Raises LogReplaced.
        """
        at, failures, identified = after, 0, False
        while True:
            identified = identified or await self.identify()
            log_id = log_id or self.log_id
            self._same_log(log_id, at)
            if self._base is not None and self._base <= at:
                batch = self._ring[at - self._base :]
                if batch:
                    at = self.link.number(batch[-1])
                    yield batch
                else:
                    await self._moved.wait()
                continue
            before = at
            try:
                async for batch in self.link.read(at):
                    self._expect(batch, at + 1)
                    at = self.link.number(batch[-1])
                    self.head = max(self.head, at)
                    yield batch
                failures, self.problem = 0, ""
                if self._base is None:
                    self._start(at)
                elif self._base > at == before:
                    # The stream is ahead of what the server says; it will say so soon.
                    await asyncio.sleep(LOOK_DEAF)
            except Unavailable as error:
                self.problem = error.message
                failures, identified = failures + 1, False
                # Perhaps the stream has what the log cannot give now.
                await self._rewind(at)
                await asyncio.sleep(backoff(failures))

    async def identify(self) -> bool:
        """Ask the log who it is and where it stands. Say whether it answered."""
        try:
            log_id, self.head = await self.link.head()
        except Unavailable as error:
            self.problem = error.message
            return False
        self._meet(log_id)
        return True

    async def close(self) -> None:
        """Stop following."""
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _start(self, at: int) -> None:
        self._reset(at)
        self._tasks = [asyncio.create_task(self._look(), name=f"look at {self.link.context}")]
        if self._stream is not None:
            self._tasks.append(asyncio.create_task(self._listen(self._stream), name=f"listen to {self.link.context}"))

    async def _rewind(self, at: int) -> None:
        async with self._rewinding:
            if self._base is None or self._base > at:
                await self.close()
                self._start(at)

    async def _listen(self, stream: Listening) -> None:
        failures = 0
        while True:
            heed_cancellation()
            try:
                async with aclosing(stream.listen(self._last)) as heard:
                    async for log_id, events in heard:
                        heed_cancellation()
                        if self.log_id and log_id != self.log_id:
                            raise Unavailable(f"the stream is of the log {log_id or 'of nobody'}, not {self.log_id}")
                        self.listening, failures = True, 0
                        self._meet(log_id)
                        self._take(events)
            except Exception as error:  # noqa: BLE001  # whatever it is, the log itself is looked at instead
                failures += 1
                if failures == 1:
                    _process_log.warning("JetStream is silent", log=self.link.context, error=said(error))
            finally:
                self.listening = False
            await asyncio.sleep(backoff(failures))

    async def _look(self) -> None:
        """Look at the log itself where JetStream brings nothing: it, the relay or the network may be down."""
        while True:
            before = self._last
            await asyncio.sleep(LOOK_LIVE if self.listening else LOOK_DEAF)
            if self._last > before and self.listening:
                continue
            try:
                log_id, self.head = await self.link.head()
                self._meet(log_id)
                if self.head > self._last:
                    async for events in self.link.read(self._last, LOOK_LIMIT):
                        self._take(events)
                self.problem = ""
            except Exception as error:  # noqa: BLE001  # whatever it is, the next look may go better
                self.problem = said(error)

    @property
    def _last(self) -> int:
        return (self._base or 0) + len(self._ring)

    def _meet(self, log_id: str) -> None:
        if log_id and log_id != self.log_id:
            if self.log_id and self._base is not None:
                self._reset(self.head)  # what was heard is the other log's
            self.log_id = log_id
            self._wake()

    def _take(self, events: Sequence[RecordedEvent]) -> None:
        for event in events:
            number = self.link.number(event)
            if number <= self._last:
                continue
            if number > self._last + 1:
                self._reset(number - 1)
            self._ring.append(event)
            self._bytes += len(event.payload)
            if len(self._ring) > RING_EVENTS or self._bytes > RING_BYTES:
                self._drop(len(self._ring) // 2 or 1)
        self.head = max(self.head, self._last)
        if events:
            self._wake()

    def _drop(self, count: int) -> None:
        self._bytes -= sum(len(event.payload) for event in self._ring[:count])
        del self._ring[:count]
        self._base = (self._base or 0) + count

    def _reset(self, base: int) -> None:
        self._ring.clear()
        self._base, self._bytes = base, 0

    def _wake(self) -> None:
        self._moved.set()
        self._moved = asyncio.Event()

    def _same_log(self, log_id: str, at: int) -> None:
        if self.log_id and self.log_id != log_id:
            raise LogReplaced(
                f"the log of {self.link.context} is {self.log_id}, and position {at} belongs to the log {log_id}"
            )

    def _expect(self, batch: Sequence[RecordedEvent], first: int) -> None:
        number = self.link.number(batch[0])
        if number != first:
            raise Internal(f"the log of {self.link.context} gives position {number} where {first} is due")
