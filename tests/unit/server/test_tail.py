"""The tail: one reader, however many follow, and nobody slows the others."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from functools import partial
from typing import Any

import pytest

from ceqs.errors import LogUnavailable
from ceqs.log import BEYOND, Entry, Log, NewEvent, open_log
from ceqs.model import EventDecoder
from ceqs.server import _pages, _ring
from ceqs.server._events import Events
from ceqs.server._tail import Tail
from ceqs.testing import eventually
from ceqs.v1.events_pb2 import SCOPE_PRIVATE, EventFilter, SubscribeRequest, SubscribeResponse

ids = itertools.count(1)


async def append(log: Log, *tags: str, public: bool = False, count: int = 1) -> None:
    """Append events in one transaction."""
    number = next(ids)
    events = (
        NewEvent(id=f"{number}-{i}", type="bank.v1.AccountOpened", payload=b"", tags=tags, public=public)
        for i in range(count)
    )
    await log.append(Entry(command_id=str(number), events=tuple(events)))


def positions(data: bytes) -> list[int]:
    return [event.position for event in SubscribeResponse.FromString(data).events]


class Counting:
    """A log whose reads are counted, and fail when they are told to."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self.reads: list[str] = []
        self.error: Exception | None = None

    def __getattr__(self, name: str) -> Any:
        if name in ("read", "read_batch", "tagged"):
            self.reads.append(name)
            if self.error:
                raise self.error
        return getattr(self._log, name)


@pytest.fixture
async def log() -> AsyncIterator[Counting]:
    opened = await open_log("memory:", "bank")
    yield Counting(opened)
    await opened.close()


@pytest.fixture
async def events(log: Any, library: Any) -> AsyncIterator[Events]:
    events = Events(log, EventDecoder(library.contract))
    yield events
    await events.close()


class Follower:
    """A subscriber that writes down what it is given."""

    def __init__(self, events: Events, request: SubscribeRequest) -> None:
        self.seen: list[int] = []
        self.markers: list[str] = []
        self.data: list[bytes] = []
        self._stream = events.subscribe(request)
        self.taking = asyncio.Event()
        self.taking.set()
        self.task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        async for data in self._stream:
            message = SubscribeResponse.FromString(data)
            for event in message.events:
                self.seen.append(event.position)
            if message.events:
                self.data.append(data)
            else:
                self.markers += [field.name for field, _ in message.ListFields()]
            await self.taking.wait()

    def has_seen(self, *positions: int) -> bool:
        return self.seen[-len(positions) :] == list(positions)

    async def leave(self) -> None:
        self.task.cancel()
        await asyncio.wait([self.task])
        await self._stream.aclose()


def private(after: int = 0, *tags: str) -> SubscribeRequest:
    return SubscribeRequest(scope=SCOPE_PRIVATE, after=after, filter=EventFilter(tags=tags))


async def test_a_thousand_subscribers_cost_one_read_and_share_the_bytes(log: Any, events: Events) -> None:
    followers = [Follower(events, private()) for _ in range(1000)]
    await eventually(lambda: all(f.markers == ["caught_up"] for f in followers))
    log.reads.clear()
    for count in (1, 3):
        await append(log, count=count)
        await eventually(lambda: all(f.seen for f in followers))
    await eventually(lambda: all(f.seen == [1, 2, 3, 4] for f in followers))
    assert log.reads == ["read", "read"]
    assert len({id(data) for f in followers for data in f.data}) == 2
    for follower in followers:
        await follower.leave()


async def test_subscribers_with_a_thousand_tags_cost_two_reads(log: Any, events: Events) -> None:
    followers = [Follower(events, private(0, f"account:{i}")) for i in range(1000)]
    await eventually(lambda: all(f.markers == ["caught_up"] for f in followers))
    log.reads.clear()
    await append(log, "account:7", "account:8")
    await append(log, "account:8")
    await eventually(lambda: followers[8].seen == [1, 2])
    assert log.reads == ["read", "tagged"] * 2
    assert [f.seen for f in followers[6:10]] == [[], [1], [1, 2], []]
    for follower in followers:
        await follower.leave()


async def test_a_subscriber_that_stops_does_not_slow_the_others_and_comes_back(
    log: Any, events: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_ring, "MOST_EVENTS", 20)
    quick, slow = Follower(events, private()), Follower(events, private())
    await eventually(lambda: slow.markers == ["caught_up"])
    slow.taking.clear()
    for position in range(1, 101):
        await append(log)
        await eventually(partial(quick.has_seen, position))
    assert len(slow.seen) <= 1
    slow.taking.set()
    await eventually(lambda: slow.seen[-1:] == [100])
    await eventually(lambda: len(slow.markers) == 3)
    assert slow.markers == ["caught_up", "fell_behind", "caught_up"]
    assert quick.markers == ["caught_up"]
    log.reads.clear()
    await append(log)
    await eventually(lambda: slow.seen[-1:] == quick.seen[-1:] == [101])
    assert quick.seen == slow.seen == list(range(1, 102))
    # Both are served from the ring again.
    assert log.reads == ["read"]
    for follower in (quick, slow):
        await follower.leave()


async def test_whoever_joins_later_with_a_tag_misses_nothing(log: Any, events: Events) -> None:
    """The ring knows nothing of a tag that nobody asked about when an event was read."""
    first = Follower(events, private(0, "account:1"))
    await eventually(lambda: first.markers == ["caught_up"])
    for _ in range(3):
        await append(log, "account:2")
        await append(log, "account:1", "account:2")
    await eventually(lambda: first.seen == [2, 4, 6])
    second = Follower(events, private(1, "account:2"))
    both = Follower(events, private(0, "account:1", "account:2"))
    await eventually(lambda: second.seen == [2, 3, 4, 5, 6])
    await append(log, "account:2")
    await append(log, "account:1", "account:2")
    await eventually(lambda: (second.seen[-2:], both.seen[-1:], first.seen[-1:]) == ([7, 8], [8], [8]))
    assert both.seen == first.seen == [2, 4, 6, 8]
    for follower in (first, second, both):
        await follower.leave()


async def test_tags_of_those_who_have_left_are_not_asked_about(log: Any, events: Events) -> None:
    staying = Follower(events, private(0, "account:1"))
    leaving = [Follower(events, private(0, f"account:{number}", "account:1")) for number in range(2, 100)]
    await eventually(lambda: all(f.markers == ["caught_up"] for f in (staying, *leaving)))
    for follower in leaving:
        await follower.leave()
    assert dict(events._tail._wanted) == {"account:1": 1}
    await append(log, "account:1", "account:2")
    await eventually(lambda: staying.seen == [1])
    await staying.leave()


async def test_whoever_joins_while_tags_are_looked_up_misses_nothing(log: Any, events: Events) -> None:
    late: list[Follower] = []
    look_up = log._log.tagged

    async def tagged(tags: Any, after: int, until: int) -> Any:
        if not late:
            late.append(Follower(events, private(0, "account:2")))
            # It waits for the event whose tags are being looked up.
            await eventually(lambda: len(events._tail._waiting) == 2)
        return await look_up(tags, after, until)

    log._log.tagged = tagged
    first = Follower(events, private(0, "account:1"))
    await eventually(lambda: first.markers == ["caught_up"])
    await append(log, "account:1", "account:2")
    await eventually(lambda: first.seen == [1])
    await eventually(lambda: late[0].seen == [1])
    for follower in (first, *late):
        await follower.leave()


async def test_nobody_has_caught_up_before_the_head_at_which_he_came(log: Any, events: Events) -> None:
    first = Follower(events, private())
    await eventually(lambda: first.markers == ["caught_up"])
    read, released = log._log.read, asyncio.Event()

    async def read_late(**span: Any) -> Any:
        await released.wait()
        return await read(**span)

    log._log.read = read_late
    await append(log)
    second = Follower(events, private())
    await eventually(lambda: len(events._tail._waiting) == 2)
    assert second.markers == []
    released.set()
    await eventually(lambda: second.markers == ["caught_up"])
    assert first.seen == second.seen == [1]
    for follower in (first, second):
        await follower.leave()


async def test_everybody_sees_every_position_once_wherever_they_begin(
    log: Any, events: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_ring, "MOST_EVENTS", 30)
    monkeypatch.setattr(_pages, "LIMIT", 7)
    followers: list[tuple[int, bool, Follower]] = []
    for step in range(60):
        await append(log, "account:1", public=step % 3 == 0, count=step % 4 + 1)
        head = await log.head()
        after, public = step * 7 % (head.position + 1), step % 2 == 0
        request = private(after) if not public else SubscribeRequest(after=min(after, head.public_position))
        followers.append((request.after, public, Follower(events, request)))
    head = await log.head()
    everything = (await log.read(limit=BEYOND)).events
    for after, public, follower in followers:
        expected = [e.position for e in everything if (e.public_position if public else e.position) > after]
        if public:
            expected = [p for p in expected if everything[p - 1].public_position]
        await eventually(partial(follower.has_seen, *expected))
        assert follower.seen == expected
        await follower.leave()


async def test_nothing_is_read_when_nobody_follows(log: Any) -> None:
    tail = Tail(log)
    async with tail.joined(frozenset({"a:1"})) as ring:
        waiting = asyncio.create_task(tail.moved())
        await append(log)
        await waiting
        assert ring.through(public=False) == 1
    log.reads.clear()
    await append(log)
    await asyncio.sleep(0.02)
    assert log.reads == []
    async with tail.joined(frozenset()) as ring:
        assert ring.begin(public=False) == ring.through(public=False) == 2
    await tail.close()


async def test_an_error_of_the_log_ends_the_streams_and_the_next_one_begins_anew(log: Any, events: Events) -> None:
    followers = [Follower(events, private()) for _ in range(3)]
    await eventually(lambda: all(f.markers for f in followers))
    log.error = LogUnavailable("gone")
    await append(log)
    for follower in followers:
        with pytest.raises(LogUnavailable, match="gone"):
            await follower.task
    log.error = None
    again = Follower(events, private())
    await eventually(lambda: again.seen == [1] and again.markers == ["caught_up"])
    await append(log)
    await eventually(lambda: again.seen == [1, 2])
    await again.leave()


async def test_a_closing_tail_tells_everybody_where_to_resume(log: Any, events: Events) -> None:
    await append(log)
    async with AsyncExitStack() as stack:
        followers = [Follower(events, private()) for _ in range(3)]
        await eventually(lambda: all(f.markers for f in followers))
        stack.push_async_callback(events.close)
    for follower in followers:
        await asyncio.wait_for(follower.task, 30)
        assert follower.markers == ["caught_up", "resume"]
