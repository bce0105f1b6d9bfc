"""Loads. They run in a process of their own, one at a time.

Rates are per second, times in seconds. A load fails rather than count what it did not do: every call has to succeed,
unless the load is there to be refused, and the log has to have grown by one event for each command.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import random
import re
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import grpc
import uvloop

# Generated when the benchmarks run.
from bench.v1.bench_pb2 import (  # type: ignore[import-not-found]
    GetMeterRequest,
    ReadMeterRequest,
    ReadOftenRequest,
)
from tests.bench.asking import earlier, followed, lived
from tests.bench.measures import Failed
from tests.bench.projecting import catch_up, inserted, projected, visible
from tests.bench.rebuilding import commands
from tests.bench.relaying import published, relayed
from tests.bench.wire import Wire, drive

from ceqs.v1.commands_pb2 import Command, ExecuteStreamRequest, ExecuteStreamResponse
from ceqs.v1.events_pb2 import (
    SCOPE_PRIVATE,
    GetHeadRequest,
    GetHeadResponse,
    ReadRequest,
    ReadResponse,
    SubscribeRequest,
    SubscribeResponse,
)

KEY = "bench"
PATHS = {
    "echo": "/Floor/Echo",
    "read": "/bench.v1.BenchCommandsService/ReadMeter",
    "hot": "/bench.v1.BenchCommandsService/ReadHotMeter",
    "old": "/bench.v1.BenchCommandsService/ReadOldMeter",
    "often": "/bench.v1.BenchCommandsService/ReadOften",
    "get": "/bench.v1.BenchQueriesService/GetMeter",
    "find": "/bench.v1.BenchQueriesService/FindMeter",
}
COMMANDS = {"read", "hot", "old"}
"""Each yields one event."""
PER_CONNECTION = 8
"""How many clients share a connection."""
WARM_UP = 0.5
"""Seconds before the clock starts; no more than it runs for."""
FILLING = 3.0
"""Seconds until the queues of an overloaded server are full, and what waits too long is given up: before the clock
starts; no more than three times as long as it runs."""
PATIENCE = ("grpc-timeout", "5S")
"""How long a caller waits who does not wait for an answer before the next call."""
PORTION = 500
"""How many events one command yields that fills a log."""
BATCH = 100
"""How many commands a message of a stream carries."""
UNDERWAY = 10
"""How many messages of a stream are sent before the first is answered."""

clock = time.perf_counter
Figures = dict[str, float]


class Tally:
    """Counts the calls that end while the clock runs, and how long they took.

    A call that is refused ends the load; where `refusable`, it is only not counted.
    """

    def __init__(self, begin: float, end: float, *, refusable: bool = False) -> None:
        self.begin, self.end, self._refusable = begin, end, refusable
        self.answered = self.waiting = 0
        self.times: list[float] = []
        self._ended = begin

    def call(self, wire: Wire, request: bytes, sent: float, then: Callable[[], None] = lambda: None) -> None:
        """Call, and note how it ends."""

        def ended(succeeded: bool) -> None:
            now = clock()
            self.waiting -= 1
            if not succeeded:
                if not self._refusable:
                    raise Failed("a call was refused; a benchmark sends what should be accepted")
                return
            self.answered += 1
            if self.begin <= now and not self.over(now):
                self.times.append(now - sent)
                self._ended = now
            then()

        self.waiting += 1
        wire.call(request, ended)

    def over(self, now: float) -> bool:
        """Whether enough is measured: for as long as it was to be, and two calls at least."""
        return now >= self.end and len(self.times) >= 2

    def figures(self) -> Figures:
        """Give what was measured."""
        percentiles = statistics.quantiles(self.times, n=100)
        return {
            "rate": len(self.times) / (self._ended - self.begin),
            "p50": percentiles[49],
            "p99": percentiles[98],
        }


def closed(*, address: str, rpc: str, clients: int, seconds: float, prefix: str, meters: int) -> Figures:
    """Let each of some clients send its next request, about any of the meters, when the last is answered."""
    begin = clock() + min(WARM_UP, seconds)
    tally = Tally(begin, begin + seconds)
    endless = itertools.cycle(_shuffled(_requests(rpc, prefix, meters)))
    _exchange(address, rpc, clients, itertools.takewhile(lambda _: not tally.over(clock()), endless), tally)
    return tally.figures()


def found(*, url: str, log_url: str, log: str, **options: Any) -> Figures:
    """Ask a keyed model as `closed` does, once it includes all that is recorded."""
    uvloop.run(catch_up(url, log_url, log))
    return closed(rpc="find", **options)


def once(*, address: str, rpc: str, clients: int, prefix: str, meters: int) -> Figures:
    """Send one request about each meter."""
    _exchange(address, rpc, clients, iter(_requests(rpc, prefix, meters)), Tally(clock(), float("inf")))
    return {}


def fill(*, address: str, prefix: str, meters: int, events: int) -> Figures:
    """Let each meter have so many events more."""
    portions = [min(PORTION, events - done) for done in range(0, events, PORTION)]
    requests = (
        ReadOftenRequest(meter_id=f"{prefix}-{i}", times=portion).SerializeToString()
        for portion in portions
        for i in range(meters)
    )
    _exchange(address, "often", min(8, meters), requests, Tally(clock(), float("inf")))
    return {}


def paced(*, address: str, rpc: str, rate: float, seconds: float, prefix: str, meters: int) -> Figures:
    """Send at a fixed rate, whether answers come or not; times run from when a request was due, sent late or not.

    That a server is too slow for the rate shows in the rate of the answers: it refuses some then.
    """
    begin, warm_up = clock(), min(WARM_UP, seconds)
    tally = Tally(begin + warm_up, float("inf"), refusable=True)
    _pace(address, rpc, _requests(rpc, prefix, meters), rate, begin, seconds + warm_up, tally)
    return tally.figures()


def overload(*, address: str, times: float, clients: int, seconds: float, prefix: str, meters: int) -> Figures:
    """Find how much the server can take, then send that many times as much; give the rate of what it accepts."""
    at_peak = closed(address=address, rpc="read", clients=clients, seconds=seconds, prefix=prefix, meters=meters)
    begin, filling = clock(), min(FILLING, 3 * seconds)
    tally = Tally(begin + filling, begin + filling + seconds, refusable=True)
    requests = _requests("read", prefix, meters)
    _pace(address, "read", requests, times * at_peak["rate"], begin, seconds + filling, tally)
    return tally.figures()


def _pace(
    address: str, rpc: str, requests: list[bytes], rate: float, begin: float, seconds: float, tally: Tally
) -> None:
    endless, total, sent = itertools.cycle(_shuffled(requests)), round(rate * seconds), 0
    with ExitStack() as stack, _Verified(address, rpc, tally):
        wires = [stack.enter_context(Wire(address, PATHS[rpc], [PATIENCE])) for _ in range(PER_CONNECTION)]
        while sent < total:
            drive(wires, lambda: False, begin + sent / rate)
            while sent < total and (due := begin + sent / rate) <= clock():
                tally.call(wires[sent % len(wires)], next(endless), due)
                sent += 1
        drive(wires, lambda: tally.waiting == 0)


def watched(*, address: str, seconds: float, prefix: str, meters: int) -> Figures:
    """Send commands one by one; measure until the event of each has come to a subscriber on another connection."""
    requests = itertools.cycle(_shuffled(_requests("read", prefix, meters)))
    tally = Tally(0, 0)
    seen = 0
    live = False

    def heard(message: bytes) -> None:
        nonlocal seen, live
        response = SubscribeResponse.FromString(message)
        seen += len(response.events)
        live = live or response.HasField("caught_up")

    def over(_: bool) -> None:
        raise Failed("the subscription has ended")

    key = [("ceqs-key", KEY)]
    with Wire(address, PATHS["read"]) as writer, Wire(address, "/ceqs.v1.EventsService/Subscribe", key) as reader:
        subscription = SubscribeRequest(scope=SCOPE_PRIVATE, after=head(address))
        reader.call(subscription.SerializeToString(), over, heard)
        drive([reader], lambda: live)
        times: list[float] = []
        begin = clock() + min(WARM_UP, seconds)
        # Two at least, however long they take.
        for sent in itertools.takewhile(lambda now: now < begin + seconds or len(times) < 2, iter(clock, None)):
            before = seen
            tally.call(writer, next(requests), sent)
            drive([writer, reader], lambda before=before: seen > before)  # type: ignore[misc]
            if sent >= begin:
                times.append(clock() - sent)
            drive([writer, reader], lambda: tally.waiting == 0)
    return {"p50": statistics.median(times)}


def streamed(*, address: str, seconds: float, prefix: str, meters: int) -> Figures:
    """Send commands in messages of 100, several of them before the first is answered."""
    return uvloop.run(_streamed(address, seconds, _shuffled(_requests("read", prefix, meters))))


async def _streamed(address: str, seconds: float, requests: list[bytes]) -> Figures:
    parts = [requests[at : at + BATCH] for at in range(0, len(requests), BATCH)]
    commands = ([Command(rpc=PATHS["read"], request=request) for request in part] for part in parts)
    messages = itertools.cycle([ExecuteStreamRequest(commands=part).SerializeToString() for part in commands])
    room = asyncio.Semaphore(UNDERWAY)
    begin = clock() + min(WARM_UP, seconds)
    end = begin + seconds
    answered = total = 0
    async with grpc.aio.insecure_channel(address) as channel:
        open_stream: Any = channel.stream_stream("/ceqs.v1.CommandsService/ExecuteStream")
        stream = open_stream()

        async def write() -> None:
            while clock() < end:
                await room.acquire()
                await stream.write(next(messages))
            await stream.done_writing()

        before = head(address)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(write())
            async for raw in stream:
                outcomes = ExecuteStreamResponse.FromString(raw).outcomes
                if any(outcome.HasField("status") for outcome in outcomes):
                    raise Failed(f"a command was refused: {outcomes[0]}")
                for _ in range((total + len(outcomes)) // BATCH - total // BATCH):
                    room.release()
                total += len(outcomes)
                answered += len(outcomes) if begin <= clock() < end else 0
    if head(address) - before != total:
        raise Failed(f"{total} commands were answered, but the log has {head(address) - before} events more")
    return {"rate": answered / seconds}


def h2load(*, address: str, clients: int, seconds: float) -> Figures:
    """Let h2load call the floor's echo as `closed` does."""
    request = _requests("echo", "meter", 1)[0]
    with tempfile.NamedTemporaryFile() as body:
        body.write(b"\0" + len(request).to_bytes(4, "big") + request)
        body.flush()
        shape = ["-c", str(clients // PER_CONNECTION), "-m", str(PER_CONNECTION), "-t", "1"]
        headers = ["-H", "content-type: application/grpc", "-H", "te: trailers"]
        times = ["-D", f"{seconds * 1000:.0f}ms", "--warm-up-time", f"{WARM_UP * 1000:.0f}ms"]
        command = ["h2load", *shape, *times, *headers, "-d", body.name, f"http://{address}{PATHS['echo']}"]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = re.search(r"finished in .*, ([\d.]+) req/s", done.stdout)
    assert found, done.stdout
    return {"rate": float(found[1])}


def read(*, address: str, events: int, backwards: bool = False) -> Figures:
    """Read so many events from the beginning, or backwards from the end."""
    request = _read_request(events, backwards=backwards)
    messages, seconds = uvloop.run(_received(address, "/ceqs.v1.EventsService/Read", request))
    count = sum(len(ReadResponse.FromString(message).events) for message in messages)
    if count != events:
        raise Failed(f"{count} events were read instead of {events}")
    return {"rate": count / seconds}


def ready(*, address: str, events: int, like: str) -> Figures:
    """Receive from the floor as many messages of the same size as the server `like` sends for so many events."""
    messages, _ = uvloop.run(_received(like, "/ceqs.v1.EventsService/Read", _read_request(events)))
    shape = f"{len(messages)} {sum(map(len, messages)) // len(messages)}".encode()
    received, seconds = uvloop.run(_received(address, "/Floor/Stream", shape))
    assert len(received) == len(messages)
    return {"rate": events / seconds}


def head(address: str) -> int:
    """Give the position of the log's head."""
    found: list[bytes] = []
    with Wire(address, "/ceqs.v1.EventsService/GetHead", [("ceqs-key", KEY)]) as wire:
        wire.call(GetHeadRequest().SerializeToString(), lambda _: None, found.append)
        drive([wire], lambda: wire.calls == 0)
    return GetHeadResponse.FromString(found[0]).head.position


class _Verified:
    """Holds a load of commands to what it says: one event for each that was answered."""

    def __init__(self, address: str, rpc: str, tally: Tally) -> None:
        self._address, self._tally, self._counts = address, tally, rpc in COMMANDS
        self._before = 0

    def __enter__(self) -> None:
        self._before = head(self._address) if self._counts else 0

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None and self._counts:
            grown = head(self._address) - self._before
            if grown != self._tally.answered:
                raise Failed(f"{self._tally.answered} commands were answered, but the log has {grown} events more")


def _exchange(address: str, rpc: str, clients: int, requests: Iterator[bytes], tally: Tally) -> None:
    with ExitStack() as stack, _Verified(address, rpc, tally):
        connections = -(-clients // PER_CONNECTION)
        wires = [stack.enter_context(Wire(address, PATHS[rpc])) for _ in range(connections)]

        def send(wire: Wire) -> None:
            if (request := next(requests, None)) is not None:
                tally.call(wire, request, clock(), lambda: send(wire))

        for i in range(clients):
            send(wires[i % connections])
        drive(wires, lambda: tally.waiting == 0)


def _requests(rpc: str, prefix: str, meters: int) -> list[bytes]:
    """Give a request about each meter; those of all commands that read a meter look the same."""
    ids = (f"{prefix}-{i}" for i in range(meters))
    if rpc in {"get", "find"}:
        return [GetMeterRequest(meter_id=i).SerializeToString() for i in ids]
    return [ReadMeterRequest(meter_id=i, used=7, reader="a reader of many meters").SerializeToString() for i in ids]


def _shuffled(requests: list[bytes]) -> list[bytes]:
    random.shuffle(requests)
    return requests


def _read_request(events: int, *, backwards: bool = False) -> bytes:
    return ReadRequest(scope=SCOPE_PRIVATE, limit=events, backwards=backwards).SerializeToString()


async def _received(address: str, path: str, request: bytes) -> tuple[list[bytes], float]:
    async with grpc.aio.insecure_channel(address) as channel:
        await channel.channel_ready()
        stream: Any = channel.unary_stream(path)
        begin = clock()
        messages = [message async for message in stream(request, metadata=(("ceqs-key", KEY),))]
        return messages, clock() - begin


LOADS: dict[str, Callable[..., Figures]] = {
    load.__name__: load
    for load in (
        *(closed, found, once, fill, paced, overload, watched, streamed, h2load, read, ready),
        *(projected, inserted, visible, commands),
        *(lived, followed, earlier),
        *(relayed, published),
    )
}


def run(name: str, options: dict[str, Any]) -> Figures:
    """Run a load. `busy` is the part of the time that it was at work itself: near 1, it is what saturates."""
    # A pause of the load generator's would count as the server's.
    gc.collect()
    gc.disable()
    began, worked = clock(), time.process_time()
    figures = LOADS[name](**options)
    return {**figures, "busy": (time.process_time() - worked) / (clock() - began)}
