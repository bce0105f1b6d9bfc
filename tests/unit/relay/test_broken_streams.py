"""Streams that lost something, or hold what the log does not: found, named, and mended where nobody has to decide."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from nats.js import JetStreamContext

from ceqs.embedded import NatsServer
from ceqs.log import Log, open_log
from ceqs.relay import Condition, _lane, status_subject, survey
from ceqs.streams import connected, find_stream, stream_name
from ceqs.testing import eventually

Start = Callable[..., Any]
Append = Callable[..., Any]
Streams = Any


async def condition(log: Any, url: str, *, public: bool = False) -> Condition:
    async with connected(url) as client:
        return (await survey(client.jetstream(), log, public=public)).condition


async def test_a_stream_that_lost_its_tail_gets_it_again(
    log: Log, append: Append, relay: Start, nats_server: NatsServer, tmp_path: Path, streams: Streams, capsys: Any
) -> None:
    """As after a crash of a server that did not fsync: its files are those of an earlier time."""
    await append(log, 50)
    running = relay(log, nats_server.url)
    await eventually(running.caught_up(log))
    await nats_server.kill()
    store, earlier = tmp_path / "nats" / "store", tmp_path / "earlier"
    await asyncio.to_thread(_copy, store, earlier)
    await nats_server.start()
    await append(log, 50)
    await eventually(running.caught_up(log))
    await nats_server.kill()
    await asyncio.to_thread(_copy, earlier, store)
    await nats_server.start()
    await eventually(streams.equal(log))
    repair = "CEQS_library_1 has lost its tail, 51 to 100: it is published again"
    assert repair in running.repairs
    assert repair in capsys.readouterr().out  # in the process log, too
    assert running.alarms == []


@pytest.mark.parametrize("public", [False, True])
async def test_a_stream_deleted_while_the_relay_runs_is_filled_again_from_the_start(
    log: Log, append: Append, relay: Start, nats_server: NatsServer, public: bool, streams: Streams
) -> None:
    await append(log, 700)
    running = relay(log, nats_server.url)
    await eventually(running.caught_up(log))
    name = stream_name("library", 1, public=public)
    async with connected(nats_server.url) as client:
        await client.jetstream().delete_stream(name)
        assert await condition(log, nats_server.url, public=public) is Condition.MISSING
        await append(log, 20)
        await eventually(streams.equal(log))
        await client.jetstream().delete_stream(name)
        await eventually(streams.equal(log))  # without a new event, too
    assert running.repairs == [f"{name} was deleted: it is made anew and filled from the log"] * 2


async def test_a_purged_stream_goes_on_where_it_was(
    log: Log, append: Append, relay: Start, nats_server: NatsServer, streams: Streams
) -> None:
    await append(log, 30)
    running = relay(log, nats_server.url)
    await eventually(running.caught_up(log))
    running.task.cancel()
    async with connected(nats_server.url) as client:
        await client.jetstream().purge_stream("CEQS_library_1")
    await append(log, 10)
    assert await condition(log, nats_server.url) is Condition.BEHIND
    again = relay(log, nats_server.url)
    await eventually(again.caught_up(log))
    assert await streams.differing(log) == []
    assert again.alarms == []


class Restored:
    """The log as it would be after it was restored from a backup by hand: other events under the old log's id."""

    def __init__(self, log: Log, log_id: str) -> None:
        self._log = log
        self.log_id = log_id

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)


async def test_a_stream_of_another_log_is_left_alone_until_a_new_epoch_begins(
    log: Log, append: Append, relay: Start, nats_server: NatsServer, streams: Streams
) -> None:
    await append(log, 10)
    running = relay(log, nats_server.url)
    await eventually(running.caught_up(log))
    running.task.cancel()
    other = await open_log("memory:", "library")
    await append(other, 20)
    forked = relay(other, nats_server.url)
    await eventually(lambda: len(forked.alarms) == 2)
    assert f"CEQS_library_1 belongs to the log {log.log_id}, not to {other.log_id}" in forked.alarms[0]
    assert "ceqs relay new-epoch library" in forked.alarms[0]
    assert await streams.differing(log) == []
    await other.begin_epoch()
    await eventually(streams.equal(other))
    assert forked.alarms == []
    await other.close()


async def test_a_relay_that_may_publish_nothing_still_says_why(
    log: Log, append: Append, relay: Start, nats_server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    await append(log, 10)
    running = relay(log, nats_server.url)
    await eventually(running.caught_up(log))
    running.task.cancel()
    for delay in ("FIRST_DELAY", "LONGEST_DELAY"):
        monkeypatch.setattr(_lane, delay, 600.0)  # it is between two attempts now
    other = await open_log("memory:", "library")
    forked = relay(other, nats_server.url)
    await eventually(lambda: len(forked.alarms) == 2)
    async with connected(nats_server.url) as client:
        told = json.loads((await client.request(status_subject("library"), b"", timeout=10)).data)
    assert "ceqs relay new-epoch library" in told["alarms"][0]
    await other.close()


@pytest.mark.parametrize(("count", "what"), [(4, "beyond the head of the log"), (10, "where the log has")])
async def test_a_tail_that_the_log_does_not_have_is_a_fork(
    log: Log, append: Append, relay: Start, nats_server: NatsServer, streams: Streams, count: int, what: str
) -> None:
    await append(log, 10)
    running = relay(log, nats_server.url)
    await eventually(running.caught_up(log))
    running.task.cancel()
    other = await open_log("memory:", "library")
    await append(other, count)
    forked = relay(Restored(other, log.log_id), nats_server.url)
    await eventually(lambda: what in "".join(forked.alarms))
    await append(other, 3)
    assert not forked.task.done()
    assert await condition(Restored(other, log.log_id), nats_server.url) is Condition.FORKED
    assert await streams.differing(log) == [], "nothing is published any more"
    await other.close()


async def test_a_reader_that_is_a_moment_behind_is_no_fork(
    log: Log, append: Append, relay: Start, nats_server: NatsServer
) -> None:
    await append(log, 10)
    running = relay(log, nats_server.url)
    await eventually(running.caught_up(log))

    class Late(Restored):
        asked = 0

        async def read(self, **arguments: Any) -> Any:
            self.asked += 1
            return await self._log.read(**arguments | ({"until": 5} if self.asked < 5 else {}))

        async def wait(self, after: int, timeout: float, *, public: bool = False) -> int:
            await asyncio.sleep(0.01)
            return 10

    late = relay(Late(log, log.log_id), nats_server.url)
    await eventually(late.caught_up(log))
    assert late.alarms == []


async def test_a_hole_in_a_stream_is_an_alarm_and_a_new_epoch_has_none(
    log: Log, append: Append, relay: Start, nats_server: NatsServer, streams: Streams, capsys: Any
) -> None:
    async with connected(nats_server.url) as client:
        js = client.jetstream()
        await append(log, 5)
        running = relay(log, nats_server.url)
        await eventually(running.caught_up(log))
        running.task.cancel()
        await make_hole(js, 3)
        again = relay(log, nats_server.url)
        await eventually(lambda: again.alarms)
        assert again.alarms == [
            "CEQS_library_1 lacks a message in its middle: run `ceqs relay new-epoch library`",
        ]
        assert again.alarms[0] in capsys.readouterr().out  # in the process log, too
        assert await condition(log, nats_server.url) is Condition.BROKEN
        await append(log, 5)
        await eventually(again.caught_up(log))
        await log.begin_epoch()
        await eventually(streams.equal(log))
        assert again.alarms == []


async def make_hole(js: JetStreamContext, position: int) -> None:
    """Make the stream anew, without a message: deny_delete refuses to take one out."""
    name = "CEQS_library_1"
    info = await js.stream_info(name)
    messages = [await js.get_msg(name, n) for n in range(1, info.state.last_seq + 1)]
    await js.delete_stream(name)
    await js.add_stream(info.config, deny_delete=False)
    for message in messages:
        headers = {k: v for k, v in (message.headers or {}).items() if not k.startswith("Nats-")}
        await js.publish(message.subject or "", message.data or b"", headers=headers)
    await js.delete_msg(name, position)


async def test_a_new_epoch_begins_new_streams_under_load_and_leaves_the_old_ones_to_be_read(
    log: Log, append: Append, relay: Start, nats_server: NatsServer, streams: Streams
) -> None:
    both = [relay(log, nats_server.url), relay(log, nats_server.url)]

    async def load() -> None:
        while True:
            await append(log, 20)
            await asyncio.sleep(0.005)

    loading = asyncio.create_task(load())
    await eventually(lambda: both[0].status()[0].position > 200)
    assert (await log.begin_epoch()).epoch == 2
    await eventually(lambda: all(status.stream.endswith("_2") for one in both for status in one.status()))
    loading.cancel()
    for running in both:
        await eventually(running.caught_up(log))
    assert await streams.differing(log) == []
    async with connected(nats_server.url) as client:
        js = client.jetstream()
        for public in (False, True):
            stream = await find_stream(js, "library", public=public)
            assert stream
            assert (stream.name, stream.epoch) == (stream_name("library", 2, public=public), 2)
            assert (await js.stream_info(stream_name("library", 1, public=public))).state.messages > 50
    assert [repair for running in both for repair in running.repairs] == []


async def test_a_log_of_an_earlier_epoch_than_the_streams_is_a_fork(
    log: Log, append: Append, relay: Start, nats_server: NatsServer
) -> None:
    """As after a restore by hand, where the epoch of the backup has streams of its own still."""
    await append(log, 10)
    first = relay(log, nats_server.url)
    await eventually(first.caught_up(log))
    await log.begin_epoch(after=6)
    await eventually(lambda: first.status()[0].stream == "CEQS_library_7")
    await eventually(first.caught_up(log))

    class Earlier(Restored):
        async def head(self) -> Any:
            return replace(await self._log.head(), epoch=1)

    forked = relay(Earlier(log, log.log_id), nats_server.url)
    await eventually(lambda: "CEQS_library_7 is of epoch 7, the log is of epoch 1" in "".join(forked.alarms))
    assert first.alarms == []


def _copy(source: Path, target: Path) -> None:
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target)
