"""Takes measures: starts the targets, prepares them, and lets measure and floor run in turns."""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from types import MappingProxyType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from tests.bench.measures import Failed, Load, Measure

from ceqs.codegen import generate
from ceqs.embedded import PostgresServer

ROOT = Path(__file__).parents[2]
STORES = ("sqlite", "postgres")
LOGS = {"meters": "bench", "cold": "cold", "aged": "aged", "ageless": "ageless"}
"""What the servers' logs are called: the one whose streams are followed, as its context is."""
STATES = {"meters": 100_000, "cold": 1, "aged": 100_000, "ageless": 100_000}
"""How many states the servers keep: all, or as good as none."""
KEPT_UP = 0.95
"""The part of a fixed rate that counts as having kept up with it."""


BUSY = 0.8
"""Of the time; a load generator that works longer measures itself."""


@dataclass(frozen=True, slots=True)
class Result:
    """A measure and its floor, medians. `ratio` is value / floor; `min` and `max` are those of the single runs."""

    name: str
    value: float
    unit: str
    floor: float
    ratio: float
    min: float
    max: float
    runs: int
    store: str
    reach: str
    reached: bool | None
    """None where there is nothing to reach."""
    generator: str
    note: str


async def bench(measures: Sequence[Measure], stores: Sequence[str], runs: int) -> list[Result]:
    """Take the measures on the stores."""
    stored, storeless = [m for m in measures if not m.storeless], [m for m in measures if m.storeless]
    columns = SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    results: list[Result] = []
    with ExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="ceqs-bench-"))
        progress = stack.enter_context(Progress(*columns, console=Console(stderr=True), transient=True))
        generated = Path(directory, "generated")
        generate(ROOT / "tests/bench/proto", generated)
        path = os.pathsep.join(filter(None, (str(generated), os.environ.get("PYTHONPATH"))))
        environment = {**os.environ, "PYTHONPATH": path}
        os.environ["PYTHONPATH"] = path  # for what the loads start
        process = stack.enter_context(ProcessPoolExecutor(1, get_context("spawn"), _see, (str(generated),)))
        async with _target(environment, "floor") as floor:
            taken = _Runs(process, progress, runs, {"floor": floor})
            results += [result async for result in taken.results(storeless, "-")]
            for store, measured in [
                (store, here) for store in stores if (here := [m for m in stored if store in m.stores])
            ]:
                names = {load.target for measure in measured for load in (measure.value, measure.floor)} - {"floor"}
                async with _targets(environment, store, sorted(names), Path(directory)) as (targets, urls):
                    taken = _Runs(process, progress, runs, {"floor": floor, **targets}, urls)
                    results += [result async for result in taken.results(measured, store)]
    return results


class _Runs:
    def __init__(
        self,
        process: ProcessPoolExecutor,
        progress: Progress,
        runs: int,
        addresses: Mapping[str, str],
        urls: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self._process, self._progress, self._runs, self._addresses = process, progress, runs, addresses
        self._urls = urls

    async def results(self, measures: Sequence[Measure], store: str) -> AsyncGenerator[Result, None]:
        """Take the measures, one by one."""
        turns = 2 * self._runs * sum(not measure.like(before) for before, measure in _after(measures))
        task = self._progress.add_task("", total=turns)
        taken: list[dict[str, dict[str, float]]] = []
        met: list[Load] = []
        for before, measure in _after(measures):
            # Just before they are needed: others change what is at hand, such as where the log's head is.
            for need in measure.needs:
                if need not in met:
                    met.append(need)
                    self._progress.update(task, description=f"{store}: preparing {measure.name}")
                    await self._load(need)
            self._progress.update(task, description=f"{store}: {measure.name}")
            if not measure.like(before):
                taken = [await self._turn(measure, task) for _ in range(self._runs)]
            pairs = [(turn["floor"][measure.floor.figure], turn["value"][measure.value.figure]) for turn in taken]
            sides = {"floor": measure.floor, "value": measure.value}
            notes = [note for turn in taken for side, load in sides.items() for note in _notes(load, turn[side])]
            yield self._result(measure, store, pairs, "; ".join(dict.fromkeys(notes)))
        self._progress.remove_task(task)

    async def _turn(self, measure: Measure, task: TaskID) -> dict[str, dict[str, float]]:
        """Let floor and measure run once."""
        found: dict[str, dict[str, float]] = {}
        for side, load in (("floor", measure.floor), ("value", measure.value)):
            # What comes beyond something else is measured together with it.
            together = side == "value" and load.same(measure.floor)
            found[side] = found["floor"] if together else await self._load(load)
            self._progress.advance(task)
        return found

    async def _load(self, load: Load) -> dict[str, float]:
        options: dict[str, Any] = {"address": self._addresses[load.target], **load.options}
        if "like" in options:
            options["like"] = self._addresses[options["like"]]
        for name in options.keys() & {"prefix", "url", "log_url", "models"}:
            options[name] = options[name].format(time=time.time_ns(), **self._urls)
        try:
            return await asyncio.get_running_loop().run_in_executor(self._process, _run, load.name, options)
        except Failed as error:
            sys.exit(f"{load.name} {json.dumps(options)}: {error}")

    def _result(self, measure: Measure, store: str, pairs: Sequence[tuple[float, float]], note: str) -> Result:
        ratios = [value / floor for floor, value in pairs]
        ratio, value = statistics.median(ratios), statistics.median(value for _, value in pairs)
        goal = measure.goal if measure.goal and measure.goal.store in {"", store} else None
        return Result(
            name=measure.name,
            value=value,
            unit=measure.unit,
            floor=statistics.median(floor for floor, _ in pairs),
            ratio=ratio,
            min=min(ratios),
            max=max(ratios),
            runs=self._runs,
            store=store,
            reach=str(goal or ""),
            reached=goal.reached(ratio, value) if goal else None,
            generator=measure.generator,
            note=note,
        )


def _see(generated: str) -> None:
    sys.path.insert(0, generated)


def _run(load: str, options: dict[str, Any]) -> dict[str, float]:
    # What it imports is generated, and on the path of its own process only.
    from tests.bench.load import run

    return run(load, options)


def _notes(load: Load, found: Mapping[str, float]) -> Iterator[str]:
    """Say what the figures alone would hide."""
    if found["busy"] > BUSY:
        yield f"the load generator was {found['busy']:.0%} busy against the {load.target}"
    wanted = load.options.get("rate")
    if wanted and found["rate"] < KEPT_UP * wanted:
        yield f"beyond this machine: of {wanted:,} calls/s to the {load.target}, {found['rate']:,.0f} were answered"


def _after(measures: Sequence[Measure]) -> Iterator[tuple[Measure | None, Measure]]:
    """Give each measure with the one before it."""
    return zip([None, *measures], measures, strict=False)


@asynccontextmanager
async def _targets(
    environment: Mapping[str, str], store: str, names: Sequence[str], directory: Path
) -> AsyncGenerator[tuple[dict[str, str], dict[str, str]], None]:
    """Run targets on a store; give their addresses, and where the log of the meters and models are."""
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(PostgresServer()) if store == "postgres" else None
        addresses: dict[str, str] = {}
        for name in names:
            url, models = _urls(server, directory, name)
            kind = "ageless" if name == "ageless" else "meters"
            target = _target(environment, kind, url, LOGS[name], str(STATES[name]), models)
            addresses[name] = await stack.enter_async_context(target)
        log, models = _urls(server, directory, "meters")
        yield addresses, {"log": log, "models": models}


def _urls(server: PostgresServer | None, directory: Path, name: str) -> tuple[str, str]:
    """Give where a target's log is, and where its models are."""
    if server:
        return server.url, server.url
    return f"sqlite:///{directory}/{name}.db", f"sqlite:///{directory}/{name}.models"


@asynccontextmanager
async def _target(environment: Mapping[str, str], *arguments: str) -> AsyncGenerator[str, None]:
    """Run a target; give its address."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.bench.target",
        *arguments,
        cwd=ROOT,
        env=environment,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        if not (address := (await process.stdout.readline()).decode().strip()):
            sys.exit(f"The target {arguments[0]} did not start.")
        yield address
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()
