"""Following a log through JetStream, with a real nats-server and a real relay."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from typing import Any

import pytest

from ceqs.embedded import NatsServer
from ceqs.errors import Unavailable
from ceqs.model import Context, EventDecoder
from ceqs.projectors import _jetstream
from ceqs.projectors import _tail as tails
from ceqs.projectors._calls import LogLink, open_channel
from ceqs.projectors._jetstream import LogStream, NatsLink
from ceqs.projectors._tail import Tail
from ceqs.relay import Relay, StreamLimits
from ceqs.streams import connect, find_stream
from ceqs.testing import eventually
from ceqs.v1.events_pb2 import RecordedEvent


@pytest.fixture
async def served(world: Any, library_context: Any) -> Context:
    context: Context = library_context(world.shelf)
    await world.start(context)
    return context


@pytest.fixture
async def relay(world: Any, nats_server: NatsServer) -> AsyncIterator[Callable[..., asyncio.Task[None]]]:
    """Start a relay of the library's log."""
    tasks = []

    def start(**limits: Any) -> asyncio.Task[None]:
        decoder = EventDecoder(world.library.contract)
        relay = Relay(world.logs["library"], decoder, nats_server.url, StreamLimits(**limits))
        tasks.append(asyncio.create_task(relay.run()))
        return tasks[-1]

    yield start
    for task in tasks:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


@pytest.fixture
def slow_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let only JetStream bring what is new."""
    monkeypatch.setattr(tails, "LOOK_LIVE", 3600)
    monkeypatch.setattr(tails, "LOOK_DEAF", 3600)


class Following:
    """Collects what a tail gives, from `after` on."""

    def __init__(self, tail: Tail, after: int = 0) -> None:
        self.positions: list[int] = []
        self.ids: list[str] = []
        self.task = asyncio.create_task(self._follow(tail, after))

    async def _follow(self, tail: Tail, after: int) -> None:
        async for batch in tail.follow(after):
            self.positions += [tail.link.number(event) for event in batch]
            self.ids += [event.id for event in batch]

    async def stop(self) -> None:
        self.task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self.task


@pytest.fixture
async def follow(world: Any) -> AsyncIterator[Callable[..., Following]]:
    """Follow the library's log: `follow(stream, after)`; the same stream shares one tail."""
    shared: dict[int, Tail] = {}
    running: list[Following] = []
    channel = None

    def start(stream: Any, after: int = 0, *, private: bool = True) -> Following:
        nonlocal channel
        if id(stream) not in shared:
            channel = channel or open_channel(f"127.0.0.1:{world.ports['library']}")
            shared[id(stream)] = Tail(LogLink(channel, "library", private=private, key="the key"), stream)
        running.append(Following(shared[id(stream)], after))
        running[-1].tail = shared[id(stream)]  # type: ignore[attr-defined]
        return running[-1]

    yield start
    for following in running:
        await following.stop()
    for tail in shared.values():
        await tail.close()
    if channel is not None:
        await channel.close()


@pytest.fixture
async def stream(nats_server: NatsServer) -> AsyncIterator[Callable[..., LogStream]]:
    links = []

    def make(*, public: bool = False) -> LogStream:
        links.append(NatsLink(nats_server.url))
        return LogStream(links[-1], "library", public=public)

    yield make
    for link in links:
        await link.close()


async def agrees(world: Any, following: Following) -> bool:
    return following.ids == [event.id for event in await world.events("library")]


async def test_the_handover_from_log_to_jetstream_has_no_gap_and_no_duplicate(
    world: Any, served: Context, relay: Any, follow: Any, stream: Any, slow_looks: None
) -> None:
    """Writes go on all the while; several followers begin at several times."""
    relay()
    shared = stream()

    async def write() -> None:
        for n in range(150):
            await world.acquire(*[f"b{n}"] * (n % 7 + 1))
            await asyncio.sleep(0.005)

    writing = asyncio.create_task(write())
    followers = []
    for _ in range(5):
        followers.append(follow(shared))
        await asyncio.sleep(0.1)
    late = follow(shared, 100)
    await writing
    for following in followers:
        await eventually(functools.partial(agrees, world, following))
        assert following.positions == list(range(1, len(following.positions) + 1))
    await eventually(lambda: late.positions == followers[0].positions[100:])
    assert followers[0].tail.listening


async def test_a_stream_event_is_what_the_log_has(
    world: Any, served: Context, relay: Any, follow: Any, stream: Any, slow_looks: None
) -> None:
    relay()
    seen: list[RecordedEvent] = []
    following = follow(stream())
    await eventually(lambda: following.tail.listening)

    async def collect() -> None:
        async for batch in following.tail.follow(0):
            seen.extend(batch)

    collecting = asyncio.create_task(collect())
    await world.acquire("a", "b", depth=3)
    await eventually(lambda: len(seen) == 2)
    collecting.cancel()
    assert seen == await world.events("library")


async def test_the_public_stream_is_followed_by_public_positions(
    world: Any, served: Context, relay: Any, follow: Any, stream: Any, slow_looks: None
) -> None:
    relay()
    await world.record(world.library.BookAcquired(book_id="a"), world.library.BookOffered(book_id="a"))
    following = follow(stream(public=True), private=False)
    await eventually(lambda: following.tail.listening)
    await world.record(world.library.BookAcquired(book_id="a"), world.library.BookOffered(book_id="a"))
    await eventually(lambda: following.positions == [1, 2])


async def test_a_dead_nats_costs_latency_only(
    world: Any, served: Context, relay: Any, follow: Any, stream: Any, nats_server: NatsServer
) -> None:
    relay()
    following = follow(stream())
    await world.acquire("a")
    await eventually(lambda: following.tail.listening)
    await eventually(lambda: agrees(world, following))
    await nats_server.kill()
    await world.acquire("b", "c")
    await eventually(lambda: agrees(world, following))
    await nats_server.start()
    await eventually(lambda: following.tail.listening)
    await world.acquire("d")
    await eventually(lambda: agrees(world, following))


async def test_nats_may_be_killed_again_and_again_while_writes_go_on(
    world: Any, served: Context, relay: Any, follow: Any, stream: Any, nats_server: NatsServer
) -> None:
    relay()
    shared = stream()
    first, second = follow(shared), follow(shared)

    async def write() -> None:
        for n in range(300):
            await world.acquire(f"b{n}")
            await asyncio.sleep(0.01)

    writing = asyncio.create_task(write())
    for _ in range(3):
        await asyncio.sleep(0.4)
        await nats_server.kill()
        await asyncio.sleep(0.2)
        await nats_server.start()
    await writing
    await eventually(lambda: agrees(world, first))
    await eventually(lambda: agrees(world, second))


async def test_a_stream_that_is_deleted_is_found_again(
    world: Any, served: Context, relay: Any, follow: Any, stream: Any, nats_server: NatsServer
) -> None:
    running = relay()
    following = follow(stream())
    await world.acquire("a", "b")
    await eventually(lambda: following.tail.listening)
    await eventually(lambda: agrees(world, following))
    client = await connect(nats_server.url)
    found = await find_stream(client.jetstream(), "library", public=False)
    assert found is not None
    await client.jetstream().delete_stream(found.name)
    await world.acquire("c")
    await eventually(lambda: agrees(world, following))
    assert not running.done()
    await eventually(lambda: find_stream(client.jetstream(), "library", public=False))
    await eventually(lambda: following.tail.listening)
    await world.acquire("d")
    await eventually(lambda: agrees(world, following))
    await client.close()


async def test_what_a_stream_no_longer_has_is_read_from_the_log(
    world: Any, served: Context, relay: Any, follow: Any, stream: Any, slow_looks: None
) -> None:
    """One begins where the stream does not reach; another listens while more is dropped than it has heard."""
    relay(messages=5)
    await world.acquire(*[f"b{n}" for n in range(40)])
    shared = stream()
    first = follow(shared)
    await eventually(lambda: agrees(world, first))
    await eventually(lambda: first.tail.listening)
    for _ in range(5):
        await world.acquire(*[f"c{n}" for n in range(100)])
    late = follow(shared, 3)
    await eventually(lambda: agrees(world, first))
    await eventually(lambda: late.positions == list(range(4, 541)))


async def test_a_new_epoch_is_moved_to_without_a_gap(
    world: Any, served: Context, relay: Any, follow: Any, stream: Any, monkeypatch: pytest.MonkeyPatch, slow_looks: None
) -> None:
    monkeypatch.setattr(_jetstream, "LOOK_FOR_EPOCH", 0.2)
    relay()
    following = follow(stream())
    await world.acquire("a")
    await eventually(lambda: following.tail.listening)
    await world.logs["library"].begin_epoch()
    for book in "bcdefgh":
        await world.acquire(book)
        await asyncio.sleep(0.1)  # some are in the old stream, some in the new one only
    await eventually(lambda: agrees(world, following))
    assert following.positions == list(range(1, 9))


async def test_a_dead_relay_costs_latency_only(
    world: Any, served: Context, relay: Any, follow: Any, stream: Any
) -> None:
    running = relay()
    following = follow(stream())
    await world.acquire("a")
    await eventually(lambda: following.tail.listening)
    await eventually(lambda: agrees(world, following))
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running
    await world.acquire("b")
    await eventually(lambda: agrees(world, following))
    relay()
    await world.acquire("c")
    await eventually(lambda: agrees(world, following))


async def test_jetstream_alone_is_enough_while_the_server_is_down(
    world: Any, served: Context, relay: Any, follow: Any, stream: Any
) -> None:
    """The relay reads the log itself; a follower that starts now, and one that is behind, are both served."""
    relay()
    await world.acquire("a", "b")
    shared = stream()
    following = follow(shared)
    await eventually(lambda: following.tail.listening)
    await eventually(lambda: agrees(world, following))
    await world.stop("library")
    await world.acquire("c", "d")
    await eventually(lambda: agrees(world, following))
    behind = follow(shared)
    await eventually(lambda: agrees(world, behind))
    fresh = follow(stream(), 1)
    await eventually(lambda: fresh.positions == [2, 3, 4])
    await world.start(served)
    await world.acquire("e")
    await eventually(lambda: agrees(world, following))
    await eventually(lambda: fresh.positions == [2, 3, 4, 5])


class Script:
    """A stream that brings what the test says."""

    def __init__(self, log_id: str) -> None:
        self.log_id = log_id
        self.given: asyncio.Queue[Sequence[RecordedEvent] | None] = asyncio.Queue()
        self.listened = 0

    async def listen(self, after: int) -> AsyncGenerator[tuple[str, Sequence[RecordedEvent]]]:
        self.listened += 1
        yield self.log_id, []
        while (events := await self.given.get()) is not None:
            yield self.log_id, events
        raise Unavailable("lost")


async def test_duplicates_and_gaps_on_the_stream_do_no_harm(
    world: Any, served: Context, follow: Any, slow_looks: None
) -> None:
    script = Script(world.logs["library"].log_id)
    following = follow(script)
    await eventually(lambda: following.tail.listening)
    await world.acquire(*"abcdefgh")
    events = await world.events("library")
    for part in (events[:1], events[:2], events[1:2], events[4:5], events[2:4], events[4:6], events[7:], events[:8]):
        await script.given.put(part)
    await eventually(lambda: agrees(world, following))
    assert following.positions == list(range(1, 9))


async def test_the_stream_of_another_log_is_not_believed(
    world: Any, served: Context, follow: Any, slow_looks: None
) -> None:
    await world.acquire("a")
    script = Script("another log")
    following = follow(script)
    await eventually(lambda: following.positions == [1])
    await script.given.put([RecordedEvent(id="x", position=2, type="library.v1.BookAcquired")])
    await eventually(lambda: script.listened >= 2)
    assert not following.tail.listening
    assert following.positions == [1]


@pytest.mark.parametrize(("bound", "most"), [("RING_EVENTS", 10), ("RING_BYTES", 40)])
async def test_a_follower_that_falls_off_the_ring_reads_what_it_missed_from_the_log(
    world: Any, served: Context, follow: Any, monkeypatch: pytest.MonkeyPatch, slow_looks: None, bound: str, most: int
) -> None:
    monkeypatch.setattr(tails, bound, most)
    script = Script(world.logs["library"].log_id)
    following = follow(script)
    await eventually(lambda: following.tail.listening)
    await world.acquire(*[f"b{n}" for n in range(95)])
    await script.given.put(await world.events("library"))
    await eventually(lambda: agrees(world, following))
    assert len(following.tail._ring) <= 10
