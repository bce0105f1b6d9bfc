"""Connections, and messages over the wire."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import nats
import pytest

from ceqs.embedded import NatsServer
from ceqs.errors import Misconfigured, Unavailable
from ceqs.streams import (
    connect,
    connected,
    decode_tags,
    find_stream,
    from_message,
    heed_cancellation,
    stream_name,
    subjects,
    to_message,
)
from ceqs.streams._client import StreamClient
from ceqs.testing import eventually
from ceqs.v1.events_pb2 import RecordedEvent


async def test_events_cross_the_wire_to_a_plain_nats_consumer(nats_server: NatsServer) -> None:
    nasty = '* > . \x00 \r\n é 😀 100% "q"'
    events = [
        RecordedEvent(
            id=f"{n}", position=n, type="shop.orders.v1.OrderPlaced", payload=b"\x00\r\n\xff", command_id=nasty
        )
        for n in range(1, 4)
    ]
    tags = (f"order:{nasty}", "order:a,b")
    async with await nats.connect(nats_server.url) as client:
        js = client.jetstream()
        await js.add_stream(name=stream_name("orders", 1, public=False), subjects=[subjects("orders", public=False)])
        for event in events:
            message = to_message(event, tags, log="orders", log_id="7f")
            await js.publish(message.subject, message.data, headers=message.headers)
        subscription = await js.subscribe("ceqs.orders.log.OrderPlaced.*", ordered_consumer=True)
        for event in events:
            got = await subscription.next_msg(timeout=5)
            assert from_message(got.subject, got.headers, got.data, got.metadata.sequence.stream) == event
            assert decode_tags(got.headers) == tags
        await subscription.unsubscribe()


async def test_a_stream_that_is_not_there_yet_is_none(nats_server: NatsServer) -> None:
    async with connected(nats_server.url) as client:
        assert await find_stream(client.jetstream(), "orders") is None


async def test_no_server_is_unavailable_and_names_the_address() -> None:
    with pytest.raises(Unavailable, match=r"no nats-server answers at nats://127\.0\.0\.1:1 .*start one there"):
        await connect("nats://127.0.0.1:1")


@pytest.mark.parametrize("url", ["http://127.0.0.1:4222", "nats://127.0.0.1:port", ""])
async def test_what_is_no_url_of_a_server_is_refused(url: str) -> None:
    with pytest.raises((Misconfigured, Unavailable)):
        await connect(url)


async def test_a_lost_connection_ends_what_waits_for_it(nats_server: NatsServer) -> None:
    async def wait_for_an_answer() -> None:
        async with connected(nats_server.url) as client:
            await client.subscribe("silence")
            waiting.set()
            await client.request("silence", timeout=60)

    waiting = asyncio.Event()
    task = asyncio.create_task(wait_for_an_answer())
    await waiting.wait()
    await nats_server.kill()
    with pytest.raises(Unavailable, match="was lost"):
        await task


async def test_a_connection_that_holds_leaves_the_block_alone(nats_server: NatsServer) -> None:
    with pytest.raises(TimeoutError, match="my own"):
        async with connected(nats_server.url):
            raise TimeoutError("my own")
    with pytest.raises(TimeoutError):
        async with connected(nats_server.url), asyncio.timeout(0.01):
            await asyncio.sleep(60)


@contextlib.asynccontextmanager
async def serving(serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]) -> AsyncIterator[str]:
    """A server of one connection, which ends when both sides are done with it."""
    ended = asyncio.Event()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await serve(reader, writer)
            while await reader.read(65536):
                pass
        finally:
            writer.transport.abort()
            ended.set()

    async with await asyncio.start_server(accept, "127.0.0.1", 0) as server:
        yield f"nats://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with asyncio.timeout(10):
            await ended.wait()


@contextlib.asynccontextmanager
async def server_that_says(version: str, *, jetstream: bool = True) -> AsyncIterator[str]:
    """A server that knows the handshake and, perhaps, one request."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        info = {"version": version, "max_payload": 1048576, "proto": 1, "headers": True}
        writer.write(f"INFO {json.dumps(info)}\r\n".encode())
        while line := await reader.readline():
            if line == b"PING\r\n":
                writer.write(b"PONG\r\n")

    async with serving(serve) as url:
        yield url


@pytest.mark.parametrize("said", ["", "-ERR 'go away'", "INFO {]"])
async def test_a_connection_that_comes_to_nothing_is_closed(said: str) -> None:
    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(f"{said}\r\n".encode())

    async with serving(serve) as url:
        with pytest.raises((Misconfigured, Unavailable)):
            await connect(url)


async def test_a_client_that_gave_up_closing_is_closed_all_the_same() -> None:
    async with server_that_says("2.12.0") as url:
        client = StreamClient()
        await client.connect(url, allow_reconnect=False)
        given_up = asyncio.create_task(client.close())
        await asyncio.sleep(0)
        given_up.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await given_up
        await client.close()


@pytest.mark.parametrize("version", ["2.11.9", "1.4.0", "2.2.0"])
async def test_a_server_without_atomic_batches_is_refused_with_what_to_install(version: str) -> None:
    async with server_that_says(version) as url:
        with pytest.raises(Misconfigured, match=rf"is {version}, which has no atomic batches: install 2\.12 or later"):
            await connect(url)


async def test_a_server_without_jetstream_is_refused_with_what_to_do(tmp_path: Path) -> None:
    server = NatsServer(tmp_path / "nats")
    server._config = lambda: '{"host": "127.0.0.1", "port": -1}'  # type: ignore[method-assign]
    async with server:
        with pytest.raises(Misconfigured, match="has no JetStream: start it with -js"):
            await connect(server.url)


async def test_a_cancellation_that_a_library_swallowed_is_heeded_all_the_same() -> None:
    rounds = 0

    async def follow() -> None:
        nonlocal rounds
        while True:
            heed_cancellation()
            rounds += 1
            with contextlib.suppress(asyncio.CancelledError):  # as the client does where it flushes
                await asyncio.Event().wait()

    task = asyncio.create_task(follow())
    await eventually(lambda: rounds == 1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert rounds == 1
