"""Making the calls that wait in an outbox: in order where they share a key, side by side where they do not."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator

import grpc
import grpc.aio

from ceqs.projectors._calls import TRANSIENT, Refusal, refusal_of
from ceqs.projectors._outbox import ACCEPTED, FAILED, REJECTED, Outbox, Outcome, Outgoing
from ceqs.projectors._retry import backoff

WINDOW = 32
"""How many calls are under way at once."""
READ_AHEAD = 512
TIMEOUT = 10.0
"""Seconds that one call may take."""
INTERNAL_TRIES = 4
"""How often a call is made that the server answers with INTERNAL."""


class Dispatcher:
    """Makes the calls of one outbox until each has an outcome."""

    def __init__(self, outbox: Outbox, send: Callable[[Outgoing], Awaitable[Outcome]]) -> None:
        self._outbox = outbox
        self._send = send
        self._waiting: dict[int, Outgoing] = {}
        self._under_way: set[int] = set()
        self._ended: list[tuple[int, str, Outcome]] = []
        self._startable = asyncio.Event()
        self._books_due = asyncio.Event()
        self._books_due.set()
        self._unread, self._read = True, 0

    def wake(self) -> None:
        """Say that calls have been put into the outbox."""
        self._unread = True
        self._books_due.set()

    async def run(self) -> None:
        """Make calls until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._keep_books())
            while True:
                for row, call in list(self._ready()):
                    self._under_way.add(row)
                    group.create_task(self._make(row, call))
                await self._startable.wait()
                self._startable.clear()

    def _ready(self) -> Iterator[tuple[int, Outgoing]]:
        """Give the calls that may be made now, earliest first."""
        taken: set[str] = set()
        free = WINDOW - len(self._under_way)
        for row, call in self._waiting.items():
            if free <= 0:
                return
            if row not in self._under_way and taken.isdisjoint(call.keys):
                free -= 1
                yield row, call
            # Whether it is under way or must wait: later calls of its keys come after it.
            taken.update(call.keys)

    async def _make(self, row: int, call: Outgoing) -> None:
        outcome = await self._send(call)
        self._under_way.remove(row)
        del self._waiting[row]
        self._ended.append((row, call.path, outcome))
        self._startable.set()
        self._books_due.set()

    async def _keep_books(self) -> None:
        """Record outcomes and read what is next, while other calls are under way.

        Where the process dies before an outcome is recorded, the call is made again, under the same id.
        """
        while True:
            await self._books_due.wait()
            self._books_due.clear()
            ended, self._ended = self._ended, []
            if ended:
                await self._outbox.settle(ended)
            room = READ_AHEAD - len(self._waiting)
            if self._unread and room > 0:
                self._unread = False
                rows = await self._outbox.calls(self._read, room)
                if rows:
                    self._waiting |= rows
                    self._read = rows[-1][0]
                    self._startable.set()
                if len(rows) == room:
                    self.wake()


class Sender:
    """Makes calls to one context until each is accepted or refused for good."""

    def __init__(self, channel: grpc.aio.Channel, key: str) -> None:
        self._channel = channel
        self._key = key
        self._methods: dict[str, grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]] = {}
        self.problem = ""
        """Why calls are being repeated; empty where none is."""

    async def send(self, call: Outgoing) -> Outcome:
        """Make a call. What may go away by itself is waited out, however long it takes."""
        failures = 0
        while True:
            try:
                await self._method(call.path)(call.request, metadata=self._metadata(call), timeout=TIMEOUT)
            except grpc.aio.AioRpcError as failed:
                failures += 1
                refusal = refusal_of(failed)
                outcome = _final(refusal, failures)
                if outcome is not None:
                    return outcome
                self.problem = refusal.error.message
                await asyncio.sleep(backoff(failures, least=0.02))
            else:
                self.problem = ""
                return Outcome(ACCEPTED)

    def _method(self, path: str) -> grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]:
        if path not in self._methods:
            self._methods[path] = self._channel.unary_unary(path)
        return self._methods[path]

    def _metadata(self, call: Outgoing) -> list[tuple[str, str | bytes]]:
        return [
            ("ceqs-key", self._key),
            ("ceqs-command-id", call.request_id),
            ("ceqs-causation-id", call.causation_id),
            ("ceqs-causation-depth", str(call.depth)),
            ("ceqs-correlation-id", call.correlation_id),
        ]


_DEPLOYMENT = frozenset(
    {grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNIMPLEMENTED}
)
"""What another key or another build mends: nothing may be lost for it."""


def _final(refusal: Refusal, failures: int) -> Outcome | None:
    """Give what the call came to; None where it is to be made again."""
    if refusal.code in TRANSIENT | _DEPLOYMENT:
        return None
    if refusal.code is grpc.StatusCode.FAILED_PRECONDITION:
        return Outcome(REJECTED, refusal.error.reason, refusal.error.message)
    ended_by_transport = not refusal.details and refusal.code in _BREAKS
    tries = INTERNAL_TRIES if refusal.code is grpc.StatusCode.INTERNAL else 1
    if ended_by_transport or failures < tries:
        return None
    return Outcome(FAILED, refusal.code.name, refusal.error.message)


_BREAKS = frozenset({grpc.StatusCode.CANCELLED, grpc.StatusCode.UNKNOWN, grpc.StatusCode.INTERNAL})
"""How a connection that breaks may show. A ceqs server says more with each of its own errors."""
