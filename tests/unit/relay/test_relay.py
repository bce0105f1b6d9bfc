"""The relay, against a real nats-server."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from nats.js import JetStreamContext
from nats.js.errors import NotFoundError
from tests.ports import free_port

from ceqs.contract import new_id
from ceqs.embedded import NatsServer
from ceqs.errors import Misconfigured, Unavailable
from ceqs.log import Entry, Log, NewEvent
from ceqs.model import EventDecoder
from ceqs.relay import _lane, differences
from ceqs.relay._batch import FEW, Overtaken, publish_batch
from ceqs.streams import StreamMessage, connected, find_stream, stream_name
from ceqs.testing import eventually

Start = Callable[..., Any]
Append = Callable[..., Any]
Streams = Any


def beyond(relay: Any, position: int) -> bool:
    return bool(relay.status()[0].position > position)


async def test_both_streams_have_the_events_at_their_positions(
    library: Any, log: Log, append: Append, relay: Start, nats_server: NatsServer, streams: Streams
) -> None:
    await append(log, 10)
    running = relay(log, nats_server.url)
    await eventually(running.caught_up(log))
    await append(log, 5)
    await eventually(running.caught_up(log))
    async with connected(nats_server.url) as client:
        js = client.jetstream()
        for public, count in ((False, 15), (True, 4)):
            stream = await find_stream(js, "library", public=public)
            assert stream
            assert stream.name == stream_name("library", 1, public=public)
            assert (stream.log_id, stream.epoch, stream.first, stream.last) == (log.log_id, 1, 1, count)
            header = "ce-publicposition" if public else "ce-position"
            for sequence in range(1, count + 1):
                message = await js.get_msg(stream.name, sequence)
                assert (message.headers or {})[header] == str(sequence)
        config = (await js.stream_info("CEQS_library_1")).config
        assert (config.deny_delete, config.allow_atomic, config.storage) == (True, True, "file")
    assert await streams.differing(log) == []


async def test_a_backlog_goes_in_atomic_batches_within_the_limits(
    library: Any, log: Log, append: Append, relay: Start, nats_server: NatsServer, streams: Streams
) -> None:
    await append(log, 1200)
    await append(log, 19, size=400_000, public_every=100)
    running = relay(log, nats_server.url)
    await eventually(running.caught_up(log))
    async with connected(nats_server.url) as client:
        js = client.jetstream()
        batches: dict[str, list[int]] = {}
        for sequence in range(1, 1201):
            headers = (await js.get_msg("CEQS_library_1", sequence)).headers or {}
            assert "Nats-Msg-Id" not in headers
            batches.setdefault(headers["Nats-Batch-Id"], []).append(int(headers["Nats-Batch-Sequence"]))
    assert all(numbers == list(range(1, len(numbers) + 1)) for numbers in batches.values())
    assert [len(numbers) for numbers in batches.values()][:2] == [500, 500]
    assert await streams.differing(log) == []


async def test_a_few_go_one_by_one_each_after_the_one_before(
    library: Any, log: Log, append: Append, relay: Start, nats_server: NatsServer, streams: Streams
) -> None:
    running = relay(log, nats_server.url)
    await eventually(running.caught_up(log))
    await append(log, FEW)
    await eventually(running.caught_up(log))
    async with connected(nats_server.url) as client:
        js = client.jetstream()
        for sequence in range(1, FEW + 1):
            headers = (await js.get_msg("CEQS_library_1", sequence)).headers or {}
            assert "Nats-Batch-Id" not in headers
            assert headers["Nats-Expected-Last-Sequence"] == str(sequence - 1)
        late = [StreamMessage("ceqs.library.log.BookLent.0", {}, b"never") for _ in range(3)]
        for after in (FEW - 3, FEW + 1):  # another relay was faster, or the stream has lost its tail
            with pytest.raises(Overtaken):
                await publish_batch(client, late, after=after, within=5)
        assert (await js.stream_info("CEQS_library_1")).state.last_seq == FEW
    assert await streams.differing(log) == []


async def test_a_server_killed_mid_flow_gets_the_rest_when_it_is_back(
    log: Log, append: Append, relay: Start, nats_server: NatsServer, streams: Streams
) -> None:
    running = relay(log, nats_server.url)
    for _ in range(3):
        before = running.status()[0].position
        writing = asyncio.create_task(append(log, 3000))
        await eventually(partial(beyond, running, before))
        await nats_server.kill()
        await writing
        await eventually(lambda: running.status()[0].last_error)
        await nats_server.start()
    await eventually(running.caught_up(log))
    await eventually(lambda: [status.last_error for status in running.status()] == ["", ""])
    assert await streams.differing(log) == []


async def test_a_batch_abandoned_half_way_is_as_if_it_had_never_been(
    library: Any, log: Log, append: Append, relay: Start, nats_server: NatsServer, streams: Streams
) -> None:
    await append(log, 20)
    running = relay(log, nats_server.url)
    await eventually(running.caught_up(log))
    async with connected(nats_server.url) as client:
        for number in range(1, 4):
            headers = {"Nats-Batch-Id": "half", "Nats-Batch-Sequence": str(number)}
            await client.publish("ceqs.library.log.BookLent.0", b"never", headers=headers)
        await client.flush()
        await append(log, 20)
        await eventually(running.caught_up(log))
    assert await streams.differing(log) == []


async def test_two_relays_at_once_are_harmless(
    log: Log, append: Append, relay: Start, nats_server: NatsServer, streams: Streams
) -> None:
    both = [relay(log, nats_server.url), relay(log, nats_server.url)]
    for _ in range(15):
        await append(log, 200)
        await asyncio.sleep(0.05)
    for running in both:
        await eventually(running.caught_up(log))
    assert await streams.differing(log) == []
    assert [alarm for running in both for status in running.status() for alarm in status.alarms] == []


async def test_a_relay_that_comes_second_to_make_a_stream_takes_the_first_ones(
    log: Log, append: Append, relay: Start, nats_server: NatsServer, monkeypatch: pytest.MonkeyPatch, streams: Streams
) -> None:
    """Both found no stream; the second must not take the first one's stream for one of an older epoch."""
    await append(log, 10)
    first = relay(log, nats_server.url)
    await eventually(first.caught_up(log))
    asked = list[str]()

    async def not_found_at_first(js: JetStreamContext, name: str, **options: Any) -> Any:
        asked.append(name)
        if asked.count(name) == 1:
            raise NotFoundError
        return await stream_info(js, name, **options)

    stream_info = JetStreamContext.stream_info
    monkeypatch.setattr(JetStreamContext, "stream_info", not_found_at_first)
    second = relay(log, nats_server.url)
    await eventually(second.caught_up(log))
    await append(log, 10)
    for running in (first, second):
        await eventually(running.caught_up(log))
    assert await streams.differing(log) == []


async def test_a_missing_server_is_said_and_tried_again_until_it_is_there(
    library: Any, log: Log, append: Append, relay: Start, tmp_path: Path
) -> None:
    port = free_port()
    await append(log, 10)
    running = relay(log, f"nats://127.0.0.1:{port}")
    await eventually(lambda: all("no nats-server answers" in status.last_error for status in running.status()))
    assert f"127.0.0.1:{port}" in running.status()[0].last_error
    async with NatsServer(tmp_path / "nats", port=port) as server:
        await eventually(running.caught_up(log))
        assert await differences(log, EventDecoder(library.contract), server.url) == []
        await eventually(lambda: running.status()[0].last_error == "")


async def test_a_relay_says_what_is_wrong_until_the_stream_takes_events_again(
    log: Log, append: Append, relay: Start, nats_server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = list[str]()

    async def fail(*_: Any, **__: Any) -> int:
        said.append(running.status()[0].last_error)
        raise Unavailable("its disk is full")

    running = relay(log, nats_server.url)
    with monkeypatch.context() as broken:
        broken.setattr(_lane, "publish_batch", fail)
        await append(log, 2)
        await eventually(lambda: said[2:])
    assert said[:3] == ["", "its disk is full", "its disk is full"]
    await eventually(running.caught_up(log))
    await eventually(lambda: running.status()[0].last_error == "")


async def test_a_server_that_acknowledges_nothing_is_named(
    log: Log, append: Append, relay: Start, nats_server: NatsServer, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    await append(log, 1)
    running = relay(log, nats_server.url)
    await eventually(running.caught_up(log))
    async with connected(nats_server.url) as client:
        config = (await client.jetstream().stream_info("CEQS_library_1")).config
        await client.jetstream().update_stream(replace(config, no_ack=True))
    monkeypatch.setattr(_lane, "ANSWER_WITHIN", 0.5)
    await append(log, 2)
    said = list[str]()
    await eventually(lambda: "has not acknowledged 2 to 3 within 0.5 s" in _more(said, capsys.readouterr().out))


def _more(said: list[str], more: str) -> str:
    said.append(more)
    return "".join(said)


async def test_an_event_that_this_build_does_not_know_holds_the_stream_until_it_does(
    library: Any, log: Log, append: Append, relay: Start, nats_server: NatsServer
) -> None:
    await append(log, 3)
    unknown = NewEvent(id=new_id(), type="library.v1.Unheard", payload=b"")
    await log.append(Entry(command_id=new_id(), events=(unknown,)))
    running = relay(log, nats_server.url)
    await eventually(lambda: "library.v1.Unheard at position 4" in running.status()[0].last_error)
    assert not running.task.done()
    await eventually(lambda: running.status()[1].position == 1)  # the public stream goes on


async def test_a_small_max_payload_is_refused_at_the_start(
    log: Log, relay: Start, nats_server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_lane, "MINIMUM_PAYLOAD", 2 * 1024 * 1024)
    with pytest.raises(Misconfigured, match="max_payload is 1048576 bytes: set it to 2097152 or more"):
        await relay(log, nats_server.url).task
