"""What is measured: each measure, its floor, and what it is to reach."""

from __future__ import annotations

import math
import shutil
from dataclasses import dataclass, field
from typing import Any, Literal

WIRE, GRPC, H2LOAD, ROWS, BATCHES = "wire", "grpc.aio", "h2load", "rows", "batches"
GENERATORS = {
    WIRE: "tests/bench/wire.py, HTTP/2 on bare sockets, one process; h2load sends one body only, so no two boundaries",
    ROWS: "none: what is measured is the projector itself, and at the floor SQLAlchemy, in this process",
    BATCHES: "none: what is measured is the relay itself, and at the floor nats-py with ready messages",
    GRPC: "grpc.aio on raw bytes, one process; many commands or events to a message",
}
Target = Literal["floor", "meters", "cold", "aged", "ageless"]
"""Bare gRPC; the meters; the meters by a server that keeps one state only, so that it loads nearly every one; by one
that does nothing else, and by its twin, whose answers do not say how old they are."""


@dataclass(frozen=True, slots=True)
class Scale:
    """How much is measured."""

    runs: int
    seconds: float
    boundaries: int
    events: int
    few: int
    """How many events a model catches up with beside which it is to be as fast with all."""
    history: int
    """How many events an old meter has."""
    moment: int
    """How many events a state has that is asked for as of a moment."""


FULL = Scale(runs=3, seconds=2, boundaries=10_000, events=100_000, few=10_000, history=10_000, moment=1_000)
QUICK = Scale(runs=1, seconds=0.3, boundaries=100, events=2_000, few=200, history=500, moment=100)


@dataclass(frozen=True, slots=True)
class Load:
    """A load of tests/bench/load.py on a target, and which of its figures counts."""

    target: Target
    name: str
    figure: str = ""
    options: dict[str, Any] = field(default_factory=dict[str, Any])

    def same(self, other: Load) -> bool:
        """Whether it is the same load, of which another figure may count."""
        return (self.target, self.name, self.options) == (other.target, other.name, other.options)


class Failed(Exception):
    """A load did not do what it says."""


@dataclass(frozen=True, slots=True)
class Goal:
    """What the ratio of value and floor is to reach, and perhaps the value; or the value alone."""

    at_least: float = 0
    at_most: float = math.inf
    value: float = 0
    value_at_most: float = math.inf
    store: str = ""
    """The only store that it is for; empty for every."""

    def reached(self, ratio: float, value: float) -> bool:
        """Whether it is reached."""
        return self.at_least <= ratio <= self.at_most and self.value <= value <= self.value_at_most

    def __str__(self) -> str:
        if self.value_at_most < math.inf:
            return f"<= {1000 * self.value_at_most:g} ms"
        if not self.at_least and self.at_most == math.inf:
            return f">= {self.value:,.0f}"
        ratio = f">= {self.at_least:g}" if self.at_least else f"<= {self.at_most:g}"
        return f"{ratio}, {self.value:,.0f}" if self.value else ratio


@dataclass(frozen=True, slots=True)
class Measure:
    """A measure and its floor, and the loads that prepare the targets for it, once."""

    name: str
    unit: str
    value: Load
    floor: Load
    goal: Goal | None = None
    needs: tuple[Load, ...] = ()
    generator: str = WIRE
    storeless: bool = False
    """Whether no log has to do with it."""
    stores: tuple[str, ...] = ("sqlite", "postgres")
    """Where there is such a thing."""

    def like(self, other: Measure | None) -> bool:
        """Whether it is another figure of the same loads."""
        return other is not None and self.floor.same(other.floor) and self.value.same(other.value)


def measures(scale: Scale, seconds: float) -> list[Measure]:
    """Give all measures."""
    every = {"prefix": "meter", "meters": scale.boundaries}
    log = {"log_url": "{log}", "log": "bench"}

    def closed(target: Target, rpc: str, clients: int, figure: str, **options: Any) -> Load:
        return Load(target, "closed", figure, {"rpc": rpc, "clients": clients, "seconds": seconds, **every, **options})

    def paced(target: Target, rpc: str) -> Load:
        return Load(target, "paced", "p99", {"rpc": rpc, "rate": 1_000, "seconds": seconds, **every})

    def known(rpc: str) -> Load:
        return Load("meters", "once", options={"rpc": rpc, "clients": 64, **every})

    def filled(target: Target, prefix: str, meters: int, events: int) -> Load:
        return Load(target, "fill", options={"prefix": prefix, "meters": meters, "events": events})

    echo, reads = closed("floor", "echo", 64, "rate"), {"events": scale.events}
    old: dict[str, Any] = {"prefix": "old", "meters": 2}
    young: dict[str, Any] = {"prefix": "young", "meters": max(20, round(300 * seconds))}
    new = {"prefix": "new-{time}", "meters": round(20_000 * seconds) + 10_000}
    found = [
        Measure(
            f"unary command, 64 clients, {scale.boundaries:,} boundaries",
            "commands/s",
            closed("meters", "read", 64, "rate"),
            echo,
            Goal(at_least=0.75),
            (known("read"),),
        ),
        Measure(
            "unary command, 1 client, p50",
            "s",
            closed("meters", "read", 1, "p50"),
            closed("floor", "echo", 1, "p50"),
            Goal(at_most=3, store="sqlite"),
            (known("read"),),
        ),
        Measure(
            "streamed commands, 100 to a message",
            "commands/s",
            Load("meters", "streamed", "rate", {"seconds": seconds, **every}),
            echo,
            Goal(at_least=3),
            (known("read"),),
            GRPC,
        ),
        Measure(
            f"read all, {scale.events:,} events, batches at hand",
            "events/s",
            Load("meters", "read", "rate", reads),
            Load("floor", "ready", "rate", {**reads, "like": "meters"}),
            Goal(at_least=0.5, value=400_000),
            (filled("meters", "filler", 8, scale.events // 8),),
            GRPC,
        ),
        # The server keeps no batches of what is read backwards: this is what the database gives.
        Measure(
            f"read all, {scale.events:,} events, backwards",
            "events/s",
            Load("meters", "read", "rate", {**reads, "backwards": True}),
            Load("floor", "ready", "rate", {**reads, "like": "meters"}),
            Goal(at_least=0.5, value=400_000),
            (filled("meters", "filler", 8, scale.events // 8),),
            GRPC,
        ),
        Measure(
            "subscriber sees a write, 1 writer, p50",
            "s",
            Load("meters", "watched", "p50", {"seconds": seconds, **every}),
            closed("floor", "echo", 1, "p50"),
            Goal(at_most=4),
            (known("read"),),
        ),
        Measure(
            "reply at 1,000 commands/s, p99",
            "s",
            paced("meters", "read"),
            paced("floor", "echo"),
            Goal(at_most=4),
            (known("read"),),
        ),
        Measure(
            "hot boundary, 64 clients, pessimistic",
            "commands/s",
            closed("meters", "hot", 64, "rate", meters=1),
            closed("meters", "hot", 64, "rate"),
            Goal(at_least=0.6),
            (known("hot"),),
        ),
        Measure(
            "hot boundary, 256 clients beside 8, pessimistic",
            "commands/s",
            closed("meters", "hot", 256, "rate", meters=1),
            closed("meters", "hot", 8, "rate", meters=1),
            Goal(at_least=1),
            (known("hot"),),
        ),
        Measure(
            f"not cached, {scale.history:,} events beside 10, p50",
            "s",
            Load("cold", "closed", "p50", {"rpc": "old", "clients": 1, "seconds": seconds, **old}),
            Load("cold", "closed", "p50", {"rpc": "old", "clients": 1, "seconds": seconds, **young}),
            Goal(at_most=1.5),
            (filled("cold", events=scale.history, **old), filled("cold", events=10, **young)),
        ),
        Measure(
            "goodput at 4 times the peak",
            "commands/s",
            Load("meters", "overload", "rate", {"times": 4, "clients": 64, "seconds": seconds, **every}),
            closed("meters", "read", 64, "rate"),
            Goal(at_least=0.8),
            (known("read"),),
        ),
        Measure(
            "unary command, 64 clients, a new boundary each",
            "commands/s",
            closed("meters", "read", 64, "rate", **new),
            echo,
        ),
        Measure(
            "query from a warm state, 64 clients",
            "queries/s",
            closed("meters", "get", 64, "rate"),
            echo,
            Goal(at_least=0.8),
            # Asked for once, a state stands at the head.
            (known("read"), known("get")),
        ),
        Measure(
            "query from a projection by key, 64 clients",
            "queries/s",
            Load("meters", "found", "rate", {"clients": 64, "seconds": seconds, "url": "{models}", **log, **every}),
            echo,
            Goal(at_least=0.35),
            (known("read"),),
        ),
    ]

    def stated(target: Target) -> list[Load]:
        return [Load(target, "once", options={"rpc": rpc, "clients": 64, **every}) for rpc in ("read", "get")]

    found += [
        Measure(
            "the same beside answers without their age",
            "queries/s",
            # Of two servers with the same past: one that has done much else before is slower by more than its ages.
            closed("aged", "get", 64, "rate"),
            closed("ageless", "get", 64, "rate"),
            Goal(at_least=0.95),
            (*stated("aged"), *stated("ageless")),
        ),
        Measure(
            f"a state as of {scale.moment:,} events, p50",
            "s",
            Load("meters", "earlier", "all", {"prefix": "as-of-{time}", "events": scale.moment, "seconds": seconds}),
            closed("floor", "echo", 1, "p50"),
            Goal(value_at_most=0.010),
            generator=GRPC,
        ),
        Measure(
            "live state, beyond the command's reply, p50",
            "s",
            Load("meters", "lived", "live", {"seconds": seconds}),
            closed("floor", "echo", 1, "p50"),
            Goal(value_at_most=0.005),
            generator=GRPC,
        ),
    ]
    found += _of_projections(scale, seconds, filled("meters", "filler", 8, scale.events // 8))
    if shutil.which(H2LOAD):
        by_h2load = Load("floor", "h2load", "rate", {"clients": 64, "seconds": seconds})
        found.append(Measure("echo by wire beside h2load", "calls/s", echo, by_h2load, storeless=True))
    return found


def _of_projections(scale: Scale, seconds: float, history: Load) -> list[Measure]:
    """Give the measures of what follows the log."""

    def rows(load: str, events: int) -> Load:
        return Load("meters", load, "rate", {"events": events, "url": "{models}"})

    def seen(figure: str, most: float) -> Measure:
        where = {"url": "{models}", "log_url": "{log}", "log": "bench"}
        rate = {"rate": 500, "seconds": seconds, "rpc": "read", "prefix": "meter", "meters": scale.boundaries}
        return Measure(
            f"seen in a projection at 500 commands/s, {figure}",
            "s",
            Load("meters", "visible", figure, {"rate": 500, "seconds": seconds, **where}),
            Load("floor", "paced", figure, {**rate, "rpc": "echo"}),
            Goal(value_at_most=most),
            generator=GRPC,
        )

    def beyond(what: str, figure: str, most: float) -> Measure:
        where = {"models": "{models}", "log_url": "{log}", "log": "bench", "seconds": seconds}
        return Measure(
            f"{what}, beyond the projector, p50",
            "s",
            Load("meters", "followed", figure, where),
            Load("meters", "followed", "seen", where),
            Goal(value_at_most=most),
            generator=GRPC,
        )

    carried = {"log_url": "{log}", "log": "bench", "events": scale.events}
    return [
        Measure(
            f"relay, sustained, {scale.events:,} events",
            "events/s",
            Load("meters", "relayed", "rate", carried),
            Load("meters", "published", "rate", carried),
            Goal(at_least=0.8, value=25_000),
            (history,),
            BATCHES,
        ),
        Measure(
            "commands, 64 clients, while a model is rebuilt",
            "commands/s",
            Load("meters", "commands", "rate", {"url": "{models}", "seconds": seconds, "rebuilding": True}),
            Load("meters", "commands", "rate", {"url": "{models}", "seconds": seconds, "rebuilding": False}),
            Goal(at_least=0.8),
            (history,),
            GRPC,
        ),
        Measure(
            f"a projection catches up, {scale.events:,} events",
            "events/s",
            rows("projected", scale.events),
            rows("inserted", scale.events),
            Goal(value=20_000),
            (history,),
            ROWS,
        ),
        Measure(
            f"a keyed model catches up, {scale.events:,} events",
            "events/s",
            Load("meters", "projected", "rate", {"events": scale.events, "url": "{models}", "projection": "Meter"}),
            rows("inserted", scale.events),
            Goal(value=20_000),
            (history,),
            ROWS,
        ),
        Measure(
            f"a projection catches up, {scale.events:,} beside {scale.few:,} events",
            "events/s",
            rows("projected", scale.events),
            rows("projected", scale.few),
            Goal(at_least=0.8),
            (history,),
            ROWS,
        ),
        Measure(
            "a projection with 4 partitions, beside 1",
            "events/s",
            Load("meters", "projected", "rate", {"events": scale.events, "url": "{models}", "partitions": 4}),
            rows("projected", scale.events),
            Goal(at_least=1),
            (history,),
            ROWS,
            stores=("postgres",),
        ),
        seen("p50", 0.010),
        seen("p99", 0.060),
        beyond("waiting for a token", "awaited", 0.002),
        beyond("live projection", "live", 0.005),
    ]
