"""The relay, against a real nats-server."""

from __future__ import annotations

import asyncio
import shutil
import socket
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from nats.js import JetStreamContext
from nats.js.errors import NotFoundError

from ceqs.contract import new_id
from ceqs.embedded import NatsServer
from ceqs.errors import Misconfigured
from ceqs.log import Entry, Log, NewEvent, open_log
from ceqs.relay import Fork, _lane, differences
from ceqs.streams import connected, find_stream, stream_name
from ceqs.testing import eventually

Start = Callable[..., Any]
Append = Callable[..., Any]


def caught_up(relay: Any, log: Log) -> Callable[[], Any]:
    async def caught_up() -> bool:
        head = await log.head()
        private, public = relay.status()
        return (private.position, public.position) == (head.position, head.public_position)

    return caught_up


def beyond(relay: Any, position: int) -> bool:
    return bool(relay.status()[0].position > position)


async def assert_equal(log: Log, library: Any, server: NatsServer) -> None:
    assert await differences(log, library.contract, server.url) == []


async def test_both_streams_have_the_events_at_their_positions(
    library: Any, log: Log, append: Append, relay: Start, nats_server: NatsServer
) -> None:
    await append(log, 10)
    running = relay(log, nats_server.url)
    await eventually(caught_up(running, log))
    await append(log, 5)
    await eventually(caught_up(running, log))
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
    await assert_equal(log, library, nats_server)


async def test_a_backlog_goes_in_atomic_batches_within_the_limits(
    library: Any, log: Log, append: Append, relay: Start, nats_server: NatsServer
) -> None:
    await append(log, 1200)
    await append(log, 8, size=400_000, public_every=100)
    running = relay(log, nats_server.url)
    await eventually(caught_up(running, log), within=20)
    async with connected(nats_server.url) as client:
        js = client.jetstream()
        batches: dict[str, list[int]] = {}
        for sequence in range(1, 1209):
            headers = (await js.get_msg("CEQS_library_1", sequence)).headers or {}
            assert "Nats-Msg-Id" not in headers
            batches.setdefault(headers["Nats-Batch-Id"], []).append(int(headers["Nats-Batch-Sequence"]))
    assert all(numbers == list(range(1, len(numbers) + 1)) for numbers in batches.values())
    assert [len(numbers) for numbers in batches.values()][:2] == [500, 500]
    await assert_equal(log, library, nats_server)


async def test_a_server_killed_mid_flow_gets_the_rest_when_it_is_back(
    library: Any, log: Log, append: Append, relay: Start, nats_server: NatsServer
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
    await eventually(caught_up(running, log), within=30)
    assert [status.last_error for status in running.status()] == ["", ""]
    await assert_equal(log, library, nats_server)


async def test_a_stream_that_lost_its_tail_gets_it_again(
    library: Any, log: Log, append: Append, relay: Start, nats_server: NatsServer, tmp_path: Path
) -> None:
    """As after a crash of a server that did not fsync: its files are those of an earlier time."""
    await append(log, 50)
    running = relay(log, nats_server.url)
    await eventually(caught_up(running, log))
    await nats_server.kill()
    store, earlier = tmp_path / "nats" / "store", tmp_path / "earlier"
    await asyncio.to_thread(_copy, store, earlier)
    await nats_server.start()
    await append(log, 50)
    await eventually(caught_up(running, log))
    await nats_server.kill()
    await asyncio.to_thread(_copy, earlier, store)
    await nats_server.start()
    await eventually(equal(log, library, nats_server), within=20)


@pytest.mark.parametrize("public", [False, True])
async def test_a_stream_deleted_while_the_relay_runs_is_filled_again_from_the_start(
    library: Any, log: Log, append: Append, relay: Start, nats_server: NatsServer, public: bool
) -> None:
    await append(log, 700)
    running = relay(log, nats_server.url)
    await eventually(caught_up(running, log))
    async with connected(nats_server.url) as client:
        await client.jetstream().delete_stream(stream_name("library", 1, public=public))
        await append(log, 20)
        await eventually(equal(log, library, nats_server))
        await client.jetstream().delete_stream(stream_name("library", 1, public=public))
        await eventually(equal(log, library, nats_server))  # without a new event, too


async def test_a_purged_stream_goes_on_where_it_was(
    library: Any, log: Log, append: Append, relay: Start, nats_server: NatsServer
) -> None:
    await append(log, 30)
    running = relay(log, nats_server.url)
    await eventually(caught_up(running, log))
    running.task.cancel()
    async with connected(nats_server.url) as client:
        await client.jetstream().purge_stream("CEQS_library_1")
    await append(log, 10)
    again = relay(log, nats_server.url)
    await eventually(caught_up(again, log))
    await assert_equal(log, library, nats_server)
    assert again.status()[0].alarms == ()


async def test_a_batch_abandoned_half_way_is_as_if_it_had_never_been(
    library: Any, log: Log, append: Append, relay: Start, nats_server: NatsServer
) -> None:
    await append(log, 20)
    running = relay(log, nats_server.url)
    await eventually(caught_up(running, log))
    async with connected(nats_server.url) as client:
        for number in range(1, 4):
            headers = {"Nats-Batch-Id": "half", "Nats-Batch-Sequence": str(number)}
            await client.publish("ceqs.library.log.BookLent.0", b"never", headers=headers)
        await client.flush()
        await append(log, 20)
        await eventually(caught_up(running, log))
    await assert_equal(log, library, nats_server)


async def test_two_relays_at_once_are_harmless(
    library: Any, log: Log, append: Append, relay: Start, nats_server: NatsServer
) -> None:
    both = [relay(log, nats_server.url), relay(log, nats_server.url)]
    for _ in range(15):
        await append(log, 200)
        await asyncio.sleep(0.05)
    for running in both:
        await eventually(caught_up(running, log), within=20)
    await assert_equal(log, library, nats_server)
    assert [alarm for running in both for status in running.status() for alarm in status.alarms] == []


async def test_a_relay_that_comes_second_to_make_a_stream_takes_the_first_ones(
    library: Any, log: Log, append: Append, relay: Start, nats_server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both found no stream; the second must not take the first one's stream for one of an older epoch."""
    await append(log, 10)
    first = relay(log, nats_server.url)
    await eventually(caught_up(first, log))
    asked = list[str]()

    async def not_found_at_first(js: JetStreamContext, name: str, **options: Any) -> Any:
        asked.append(name)
        if asked.count(name) == 1:
            raise NotFoundError
        return await stream_info(js, name, **options)

    stream_info = JetStreamContext.stream_info
    monkeypatch.setattr(JetStreamContext, "stream_info", not_found_at_first)
    second = relay(log, nats_server.url)
    await eventually(caught_up(second, log))
    await append(log, 10)
    for running in (first, second):
        await eventually(caught_up(running, log))
    await assert_equal(log, library, nats_server)


async def test_a_missing_server_is_said_and_tried_again_until_it_is_there(
    library: Any, log: Log, append: Append, relay: Start, tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    await append(log, 10)
    running = relay(log, f"nats://127.0.0.1:{port}")
    await eventually(lambda: all("no nats-server answers" in status.last_error for status in running.status()))
    assert f"127.0.0.1:{port}" in running.status()[0].last_error
    async with NatsServer(tmp_path / "nats", port=port) as server:
        await eventually(caught_up(running, log))
        await assert_equal(log, library, server)
        assert running.status()[0].last_error == ""


async def test_a_stream_of_another_log_is_a_fork(
    library: Any, log: Log, append: Append, relay: Start, nats_server: NatsServer
) -> None:
    await append(log, 10)
    running = relay(log, nats_server.url)
    await eventually(caught_up(running, log))
    other = await open_log("memory:", "library")
    await append(other, 20)
    forked = relay(other, nats_server.url)
    with pytest.raises(Fork, match=f"belongs to the log {log.log_id}, not to {other.log_id}"):
        await forked.task
    assert any("belongs to the log" in alarm for status in forked.status() for alarm in status.alarms)
    await assert_equal(log, library, nats_server)
    await other.close()


class Restored:
    """The log as it would be after it was restored from a backup by hand: other events under the old log's id."""

    def __init__(self, log: Log, log_id: str) -> None:
        self._log = log
        self.log_id = log_id

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)


@pytest.mark.parametrize(("count", "what"), [(4, "beyond the head of the log"), (10, "where the log has")])
async def test_a_tail_that_the_log_does_not_have_is_a_fork(
    log: Log, append: Append, relay: Start, nats_server: NatsServer, count: int, what: str
) -> None:
    await append(log, 10)
    running = relay(log, nats_server.url)
    await eventually(caught_up(running, log))
    other = await open_log("memory:", "library")
    await append(other, count)
    forked = relay(Restored(other, log.log_id), nats_server.url)
    with pytest.raises(Fork, match=what):
        await forked.task
    await other.close()


async def test_a_reader_that_is_a_moment_behind_is_no_fork(
    log: Log, append: Append, relay: Start, nats_server: NatsServer
) -> None:
    await append(log, 10)
    running = relay(log, nats_server.url)
    await eventually(caught_up(running, log))

    class Late(Restored):
        asked = 0

        async def read(self, **arguments: Any) -> Any:
            self.asked += 1
            return await self._log.read(**arguments | ({"until": 5} if self.asked < 5 else {}))

        async def wait(self, after: int, timeout: float) -> int:
            await asyncio.sleep(0.01)
            return 10

    late = relay(Late(log, log.log_id), nats_server.url)
    await eventually(caught_up(late, log))


async def test_a_hole_in_a_stream_is_an_alarm(log: Log, append: Append, relay: Start, nats_server: NatsServer) -> None:
    async with connected(nats_server.url) as client:
        js = client.jetstream()
        await append(log, 5)
        running = relay(log, nats_server.url)
        await eventually(caught_up(running, log))
        running.task.cancel()
        name = "CEQS_library_1"
        info, messages = await js.stream_info(name), [await js.get_msg(name, n) for n in range(1, 6)]
        await js.delete_stream(name)
        await js.add_stream(info.config, deny_delete=False)
        for message in messages:
            headers = {k: v for k, v in (message.headers or {}).items() if not k.startswith("Nats-")}
            await js.publish(message.subject or "", message.data or b"", headers=headers)
        await js.delete_msg(name, 3)
        again = relay(log, nats_server.url)
        await eventually(lambda: again.status()[0].alarms)
        assert "lacks 1 messages in its middle" in again.status()[0].alarms[0]
        await append(log, 5)
        await eventually(caught_up(again, log))


async def test_an_event_that_this_build_does_not_know_holds_the_stream_until_it_does(
    library: Any, log: Log, append: Append, relay: Start, nats_server: NatsServer
) -> None:
    await append(log, 3)
    unknown = NewEvent(id=new_id(), type="library.v1.Unheard", payload=b"")
    await log.append(Entry(command_id=new_id(), events=(unknown,)))
    running = relay(log, nats_server.url)
    await eventually(lambda: "4 is a library.v1.Unheard" in running.status()[0].last_error)
    assert not running.task.done()
    await eventually(lambda: running.status()[1].position == 1)  # the public stream goes on


async def test_a_new_epoch_begins_new_streams_and_leaves_the_old_ones_to_be_read(
    library: Any, log: Log, append: Append, relay: Start, nats_server: NatsServer
) -> None:
    await append(log, 10)
    running = relay(log, nats_server.url)
    await eventually(caught_up(running, log))

    class Renewed(Restored):
        async def head(self) -> Any:
            return replace(await self._log.head(), epoch=2)

    again = relay(Renewed(log, log.log_id), nats_server.url)
    await eventually(caught_up(again, log))
    async with connected(nats_server.url) as client:
        stream = await find_stream(client.jetstream(), "library", public=False)
        assert stream
        assert (stream.name, stream.epoch, stream.last) == ("CEQS_library_2", 2, 10)
        assert (await client.jetstream().stream_info("CEQS_library_1")).state.messages == 10
        await assert_equal(log, library, nats_server)
        await client.jetstream().delete_stream("CEQS_library_1")
    with pytest.raises(Fork, match="is of epoch 2, the log is of epoch 1"):
        await relay(log, nats_server.url).task


async def test_a_small_max_payload_is_refused_at_the_start(
    log: Log, relay: Start, nats_server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_lane, "MINIMUM_PAYLOAD", 2 * 1024 * 1024)
    with pytest.raises(Misconfigured, match="max_payload is 1048576 bytes: set it to 2097152 or more"):
        await relay(log, nats_server.url).task


def equal(log: Log, library: Any, server: NatsServer) -> Callable[[], Any]:
    async def streams_equal_the_log() -> bool:
        return await differences(log, library.contract, server.url) == []

    return streams_equal_the_log


def _copy(source: Path, target: Path) -> None:
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target)
