"""Streams that keep less than the log: what is older is in the log, and what would be dropped is not published."""

from __future__ import annotations

import datetime as dt
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from ceqs.embedded import NatsServer
from ceqs.log import Log, open_log
from ceqs.streams import Stream, connected, find_stream
from ceqs.testing import eventually

Start = Callable[..., Any]
Append = Callable[..., Any]
Streams = Any


async def found(url: str, *, public: bool = False) -> Stream | None:
    async with connected(url) as client:
        return await find_stream(client.jetstream(), "library", public=public)


async def test_a_stream_keeps_so_many_messages_and_is_made_anew_with_no_more(
    log: Log, append: Append, relay: Start, nats_server: NatsServer, streams: Streams
) -> None:
    await append(log, 300)
    running = relay(log, nats_server.url, messages=50)
    await eventually(running.caught_up(log))

    async def kept(first: int, first_public: int) -> bool:
        private, public = [await found(nats_server.url, public=public) for public in (False, True)]
        return bool(private and public and (private.first, public.first) == (first, first_public))

    await eventually(lambda: kept(251, 51))
    await append(log, 30)
    await eventually(lambda: kept(281, 61))
    async with connected(nats_server.url) as client:
        for name in ("CEQS_library_1", "CEQS_library_PUBLIC_1"):
            await client.jetstream().delete_stream(name)
        await eventually(running.caught_up(log))
        await eventually(lambda: kept(281, 61))
        config = (await client.jetstream().stream_info("CEQS_library_1")).config
        assert config.first_seq == 281, "what would be dropped is not published"
    await append(log, 10)
    await eventually(running.caught_up(log))
    assert await streams.differing(log) == []
    assert running.alarms == []


@pytest.fixture
async def aged(append: Append) -> AsyncIterator[Log]:
    """A log with 20 events of last week and 10 of today."""
    days = 7
    log = await open_log("memory:", "library", clock=lambda: dt.datetime.now(dt.UTC) - dt.timedelta(days=days))
    await append(log, 20)
    days = 0
    await append(log, 10)
    yield log
    await log.close()


async def test_a_new_stream_begins_with_what_is_young_enough(
    aged: Log, append: Append, relay: Start, nats_server: NatsServer, streams: Streams
) -> None:
    running = relay(aged, nats_server.url, days=2)
    await eventually(running.caught_up(aged))
    stream = await found(nats_server.url)
    assert stream
    assert (stream.first, stream.last, stream.messages) == (21, 30, 10)
    assert await streams.differing(aged) == []


async def test_other_limits_are_given_to_the_streams_that_there_are(
    log: Log, append: Append, relay: Start, nats_server: NatsServer
) -> None:
    await append(log, 40)
    running = relay(log, nats_server.url)
    await eventually(running.caught_up(log))
    running.task.cancel()
    again = relay(log, nats_server.url, messages=10, days=1.5, megabytes=3)
    await eventually(again.caught_up(log))
    async with connected(nats_server.url) as client:
        config = (await client.jetstream().stream_info("CEQS_library_1")).config
    assert (config.max_msgs, config.max_age, config.max_bytes) == (10, 129_600, 3 * 1024 * 1024)
    stream = await found(nats_server.url)
    assert stream
    assert stream.first == 31
    assert again.alarms == []
