"""Benchmarks: every measure beside the floor it stands on, in the same run.

    python tests/bench/run.py [--runs 3] [--seconds 3] [--store sqlite|postgres|both]

Prints a table and writes tests/bench/results/latest.json: one object per measure with its median value, the floor's,
and the median, least and greatest of the runs' ratios. Server and load generator share the machine; what counts are
the ratios.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import grpc
from rich.console import Console
from rich.progress import track
from rich.table import Table

from ceqs.embedded import PostgresServer
from ceqs.v1.events_pb2 import SCOPE_PRIVATE, ReadRequest, ReadResponse

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "latest.json"
WIDTH = 130
"""Of the table, where the output goes to no terminal."""
KEY = (("ceqs-key", "bench"),)


@dataclass(frozen=True, slots=True)
class Measure:
    """A measure and its floor. `ratio` is value / floor; `min` and `max` are those of the single runs' ratios."""

    name: str
    value: float
    unit: str
    floor: float
    ratio: float
    min: float
    max: float
    runs: int
    store: str


@dataclass(frozen=True, slots=True)
class Bench:
    """How often and how long each measure is taken, on which store."""

    runs: int
    seconds: float
    floor: str
    orders: str
    store: str

    def paired(self, name: str, unit: str, value: Callable[[int], float], floor: Callable[[int], float]) -> Measure:
        """Take a measure and its floor in turns."""
        pairs = [(floor(run), value(run)) for run in track(range(self.runs), f"{self.store}: {name}", transient=True)]
        ratios = [v / f for f, v in pairs]
        return Measure(
            name,
            statistics.median(v for _, v in pairs),
            unit,
            statistics.median(f for f, _ in pairs),
            statistics.median(ratios),
            min(ratios),
            max(ratios),
            self.runs,
            self.store,
        )

    def load(self, address: str, kind: str, clients: int, figure: str) -> Callable[[int], float]:
        """Give a figure of one run of the load generator."""

        def one(run: int) -> float:
            command = [sys.executable, str(HERE / "load.py"), address, kind, str(clients), str(self.seconds)]
            seed = time.monotonic_ns()
            done = subprocess.run([*command, str(seed + run)], capture_output=True, text=True, check=True)
            return float(json.loads(done.stdout)[figure])

        return one

    def measures(self) -> Iterator[Measure]:
        """Take all measures."""
        yield self.paired(
            "unary command, 64 clients, a boundary each",
            "commands/s",
            self.load(self.orders, "place", 64, "rate"),
            self.load(self.floor, "echo", 64, "rate"),
        )
        yield self.paired(
            "unary command, 1 client, p50",
            "s",
            self.load(self.orders, "place", 1, "p50"),
            self.load(self.floor, "echo", 1, "p50"),
        )
        yield self.paired(
            "query from a warm state, 64 clients",
            "queries/s",
            self.load(self.orders, "get", 64, "rate"),
            self.load(self.floor, "echo", 64, "rate"),
        )
        yield self.paired("read all events", "events/s", self._read, self._stream)

    def _read(self, _: int) -> float:
        return asyncio.run(_events_per_second(self.orders))

    def _stream(self, _: int) -> float:
        return asyncio.run(_ready_events_per_second(self.floor, self.orders))


async def _read_all(address: str) -> list[bytes]:
    async with grpc.aio.insecure_channel(address) as channel:
        request = ReadRequest(scope=SCOPE_PRIVATE).SerializeToString()
        read: Any = channel.unary_stream("/ceqs.v1.EventsService/Read")
        return [message async for message in read(request, metadata=KEY)]


async def _events_per_second(address: str) -> float:
    begin = time.perf_counter()
    messages = await _read_all(address)
    seconds = time.perf_counter() - begin
    return sum(len(ReadResponse.FromString(message).events) for message in messages) / seconds


async def _ready_events_per_second(floor: str, orders: str) -> float:
    messages = await _read_all(orders)
    events = sum(len(ReadResponse.FromString(message).events) for message in messages)
    shape = f"{len(messages)} {sum(map(len, messages)) // len(messages)}".encode()
    begin = time.perf_counter()
    async with grpc.aio.insecure_channel(floor) as channel:
        stream: Any = channel.unary_stream("/Floor/Stream")
        received = [message async for message in stream(shape)]
        assert len(received) == len(messages)
    return events / (time.perf_counter() - begin)


@contextmanager
def target(*arguments: str) -> Iterator[str]:
    """Run a target; give its address."""
    command = [sys.executable, str(HERE / "target.py"), *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.terminate()


def main() -> None:
    """Run, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3, help="how often each pair is measured (default 3)")
    parser.add_argument("--seconds", type=float, default=3.0, help="how long each load lasts (default 3)")
    parser.add_argument("--store", choices=("sqlite", "postgres", "both"), default="both")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where to write them as JSON")
    options = parser.parse_args()
    measures: list[Measure] = []
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ceqs-bench-")))
        floor = stack.enter_context(target("floor"))
        if options.store != "postgres":
            with target("orders", f"sqlite:///{directory}/log.db") as orders:
                measures += Bench(options.runs, options.seconds, floor, orders, "sqlite").measures()
        if options.store != "sqlite":
            measures += asyncio.run(_on_postgres(options.runs, options.seconds, floor))
    options.results.parent.mkdir(exist_ok=True)
    options.results.write_text(json.dumps([asdict(measure) for measure in measures], indent=2) + "\n")
    table = Table(title="Each measure beside its floor")
    for column in ("store", "measure", "value", "floor", "ratio (min to max)"):
        table.add_column(column, no_wrap=True)
    for m in measures:
        figures = f"{m.value:,.4g} {m.unit}", f"{m.floor:,.4g}", f"{m.ratio:.2f} ({m.min:.2f} to {m.max:.2f})"
        table.add_row(m.store, m.name, *figures)
    console = Console() if sys.stdout.isatty() else Console(width=WIDTH)
    console.print(table)
    console.print(f"Written to {options.results}.", soft_wrap=True)


async def _on_postgres(runs: int, seconds: float, floor: str) -> list[Measure]:
    async with PostgresServer() as server:

        def measure() -> list[Measure]:
            with target("orders", server.url) as orders:
                return list(Bench(runs, seconds, floor, orders, "postgres").measures())

        return await asyncio.to_thread(measure)


if __name__ == "__main__":
    main()
