"""A log of the library, and relays that are ended with the test."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from ceqs.contract import new_id, tags_of
from ceqs.embedded import NatsServer
from ceqs.errors import LogReplaced, Misconfigured
from ceqs.log import Entry, Log, NewEvent, open_log
from ceqs.model import EventDecoder
from ceqs.relay import Relay, StreamLimits, differences

Append = Callable[..., Awaitable[None]]


@pytest.fixture
async def log() -> AsyncIterator[Log]:
    log = await open_log("memory:", "library")
    yield log
    await log.close()


@pytest.fixture
def append(library: Any) -> Append:
    """Append `count` events to a log, every `public_every`-th a public one."""

    async def append(log: Log, count: int, *, public_every: int = 3, book: str = "b", size: int = 0) -> None:
        for first in range(0, count, 100):
            events = []
            for n in range(first, min(first + 100, count)):
                public = n % public_every == public_every - 1
                if public:
                    message = library.BookOffered(book_id=f"{book}{n}")
                else:
                    message = library.BookAcquired(book_id=f"{book}{n}", title="t" * size)
                event = library.contract.event(message)
                tags = tags_of(message, event.tags)
                payload = message.SerializeToString()
                events.append(
                    NewEvent(id=new_id(), type=event.full_name, payload=payload, tags=tags, public=public, bucket=n % 7)
                )
            await log.append(Entry(command_id=new_id(), correlation_id="a cause", actor="é >", events=tuple(events)))

    return append


class Running:
    """A relay at work."""

    def __init__(self, relay: Relay) -> None:
        self.task = asyncio.create_task(relay.run())
        self.status = relay.status

    def caught_up(self, log: Log) -> Callable[[], Awaitable[bool]]:
        """Say whether both streams have everything that the log has."""

        async def caught_up() -> bool:
            head = await log.head()
            private, public = self.status()
            return (private.position, public.position) == (head.position, head.public_position)

        return caught_up

    @property
    def alarms(self) -> list[str]:
        return [alarm for status in self.status() for alarm in status.alarms]

    @property
    def repairs(self) -> list[str]:
        return [repair for status in self.status() for repair in status.repairs]


class Streams:
    """The streams of a nats-server, compared with a log."""

    def __init__(self, decoder: EventDecoder, url: str) -> None:
        self._decoder, self._url = decoder, url

    async def differing(self, log: Any) -> list[str]:
        return await differences(log, self._decoder, self._url)

    def equal(self, log: Any) -> Callable[[], Awaitable[bool]]:
        async def equal() -> bool:
            return await self.differing(log) == []

        return equal


@pytest.fixture
def streams(library: Any, nats_server: NatsServer) -> Streams:
    return Streams(EventDecoder(library.contract), nats_server.url)


@pytest.fixture
async def relay(library: Any) -> AsyncIterator[Callable[..., Running]]:
    """Start a relay in the background; what it raises is the test's to await at `relay.task`."""
    tasks: list[asyncio.Task[None]] = []

    def start(reader: Any, nats_url: str, **limits: Any) -> Running:
        running = Running(Relay(reader, EventDecoder(library.contract), nats_url, StreamLimits(**limits)))
        tasks.append(running.task)
        return running

    yield start
    for task in tasks:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError, LogReplaced, Misconfigured):
            await task
