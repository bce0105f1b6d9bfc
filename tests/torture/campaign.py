"""Kills servers with SIGKILL under load, again and again, and checks that their log keeps every promise.

Clients send commands over gRPC, one by one and in streams: to hot counters and cold ones, twins, repetitions, under
used ids, with little patience or none; they write down what they were told. Each cycle ends one server, or on
PostgreSQL one of three, two of which share a port as those of `ceqs serve --processes` do, at a moment of the seed's
choosing, also while it starts and in the middle of its transaction; on PostgreSQL connections are cut and the database
crashes as well. After each cycle the log is read on and held against the receipts, in the end the whole history is
checked (see ceqs.testing.check_history). Exit code 1 where a promise was broken.

`campaign` (cycles, account) -> `arena` (servers, databases) -> `nursery` (a process that forks servers of the tally);
`workload` and `streaming` are what the clients do, `books` whether the counters of the log add up.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import importlib
import json
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc.aio
import uvloop
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from tests.torture.arena import Arena, Nursery, opened
from tests.torture.books import Books
from tests.torture.nursery import KEY
from tests.torture.streaming import Streamer
from tests.torture.workload import Actor, Client, Record

from ceqs.client import _failures
from ceqs.codegen import generate
from ceqs.errors import CeqsError
from ceqs.log import LogReader, open_reader
from ceqs.testing import Ending, Violation, check_history, eventually

HERE = Path(__file__).parent
CHANNEL = (
    ("grpc.enable_retries", 0),
    ("grpc.initial_reconnect_backoff_ms", 10),
    ("grpc.min_reconnect_backoff_ms", 500),
    ("grpc.max_reconnect_backoff_ms", 50),
    ("grpc.service_config", '{"loadBalancingConfig":[{"round_robin":{}}]}'),
    # Each channel has connections of its own, which the kernel spreads among those who share a port.
    ("grpc.use_local_subchannel_pool", 1),
)
CHANNELS = 6
_failures.FIRST_DELAY, _failures.LONGEST_DELAY = 0.03, 0.06  # what clients wait is lost to the campaign
ANSWERED_WITHIN = 30.0
TOLD = 20
"""How many violations are printed at most."""


@dataclass
class Account:
    """What happened on one store."""

    store: str
    seed: str
    cycles: int = 0
    seconds: float = 0.0
    events: int = 0
    operations: dict[str, int] = field(default_factory=dict[str, int])
    """By ending."""
    acts: dict[str, int] = field(default_factory=dict[str, int])
    kills: Counter[str] = field(default_factory=Counter[str])
    in_flight: int = 0
    """Operations that were under way when a server was killed."""
    found: int = 0
    """Accepted operations that are in the log, as their receipts say."""
    landed: int = 0
    """Operations of unknown outcome that are in the log."""
    lost: int = 0
    """Operations of unknown outcome that are not."""
    ordered: int = 0
    """Commands of streams that stand in the order in which they were sent."""
    errors: dict[str, int] = field(default_factory=dict[str, int])
    """What calls failed with in the end, by reason."""
    violations: list[str] = field(default_factory=list[str])


class Campaign:
    """One campaign on one store."""

    def __init__(self, arena: Arena, tally: Any, seed: str, clients: int, streamers: int) -> None:
        self._arena = arena
        self._tally = tally
        self._chance = random.Random(seed)
        self._record = Record()
        self._books = Books(tally.messages)
        self._reading: list[tuple[int, str]] = []
        self._going = True
        self._actors: list[type[Actor]] = [Client] * clients + [Streamer] * streamers
        self._violations: list[Violation] = []
        self.account = Account("postgres" if arena.postgres else "sqlite", seed)

    async def run(self, cycles: int, progress: Callable[[], None]) -> Account:
        """Run so many cycles, fewer where a promise is broken before."""
        begin = time.monotonic()
        for place in self._arena.places:
            await self._arena.start(place)
            await self._arena.serves(place)
        async with contextlib.AsyncExitStack() as stack:
            reader = await open_reader(self._arena.url, "tally")
            stack.push_async_callback(reader.close)
            channels = [grpc.aio.insecure_channel(self._arena.target, options=CHANNEL) for _ in range(CHANNELS)]
            for channel in channels:
                stack.push_async_callback(channel.close)
            follower = asyncio.create_task(self._follow(channels[0]))
            load = [
                asyncio.create_task(self._load(actor, number, channels[number % CHANNELS]))
                for number, actor in enumerate(self._actors)
            ]
            stack.push_async_callback(_ended, [follower, *load])
            while self.account.cycles < cycles and not self._violations:
                await self._cycle(reader)
                self.account.cycles += 1
                progress()
            self._going = False
            done, waiting = await asyncio.wait(load, timeout=ANSWERED_WITHIN)
            if waiting:
                self._unanswered(f"{len(waiting)} clients have no answer")
            await asyncio.gather(*done)
            self._violations += await self._books.read_on(reader)
            await eventually(lambda: len(self._reading) >= len(self._books.facts) or follower.done(), within=30)
        self._settle()
        self.account.seconds = round(time.monotonic() - begin, 3)
        return self.account

    async def _cycle(self, reader: LogReader) -> None:
        arena, chance, kills = self._arena, self._chance, self.account.kills
        # Once somebody is answered again, all are at it.
        try:
            await eventually(lambda: self._record.fresh, within=ANSWERED_WITHIN)
        except AssertionError:
            self._unanswered("nobody has an answer")
            return
        await asyncio.sleep(chance.uniform(0, 0.12))
        if arena.postgres and chance.random() < 0.3:
            kills[await arena.cut()] += 1
            await asyncio.sleep(chance.uniform(0, 0.03))
        if arena.postgres and chance.random() < 0.03:
            await arena.crash()
            kills["databases crashed"] += 1
        place = chance.choice(arena.places)
        self.account.in_flight += self._record.in_flight
        if arena.postgres and chance.random() < 0.3 and (met := await arena.kill_in_a_batch()):
            place = met
            kills["killed in a batch"] += 1
        await arena.kill(place)
        kills["servers killed"] += 1
        if chance.random() < 0.15:
            await arena.start(place)
            await asyncio.sleep(chance.uniform(0, 0.04))
            await arena.kill(place)
            kills["killed at start"] += 1
        await arena.start(place)
        await arena.serves(place)
        accepted, self._record.fresh = self._record.fresh, []
        self._violations += await self._books.read_on(reader)
        self._violations += self._books.missing(accepted)
        self._violations += self._record.violations
        self._record.violations = []

    def _unanswered(self, what: str) -> None:
        self._violations.append(Violation("answered", f"{what} {ANSWERED_WITHIN:g} s after the last kill"))

    async def _load(self, actor: type[Actor], number: int, channel: grpc.aio.Channel) -> None:
        client = self._tally.client.TallyClient(channel, attempt_timeout=10)
        await actor(number, self.account.seed, self._tally.messages, client, self._record).run(lambda: self._going)

    async def _follow(self, channel: grpc.aio.Channel) -> None:
        """Read along, over all restarts."""
        client = self._tally.client.TallyClient(channel, key=KEY)
        try:
            async for event in client.events(scope="private"):
                self._reading.append((event.position, event.id))
        except CeqsError as error:
            self._violations.append(Violation("read", f"the reader was told {error.reason}: {error}"))

    def _settle(self) -> None:
        record, account, books = self._record, self.account, self._books
        self._violations += record.violations
        self._violations += check_history(record.operations, books.facts, [self._reading])
        if len(self._reading) < len(books.facts):
            self._violations.append(Violation("read", f"the reader got {len(self._reading)} of {len(books.facts)}"))
        account.events, account.ordered = len(books.facts), record.ordered
        account.operations = dict(Counter(op.ending.value for op in record.operations))
        account.acts, account.errors = dict(record.acts), dict(record.errors)
        accepted = [op for op in record.operations if op.ending is Ending.ACCEPTED]
        account.found = len(accepted) - len(list(books.missing(accepted)))
        unknown = [op for op in record.operations if op.ending is Ending.UNKNOWN]
        account.landed = sum(books.landed(op.command_id) for op in unknown)
        account.lost = len(unknown) - account.landed
        account.violations = list(dict.fromkeys(map(str, self._violations)))


async def _ended(tasks: Sequence[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def run(options: argparse.Namespace, progress: Progress) -> list[Account]:
    """Run a campaign on each store."""
    directory = Path(tempfile.mkdtemp(prefix="ceqs-torture-"))
    accounts = list[Account]()
    try:
        generate(HERE / "proto", directory / "generated")
        sys.path.insert(0, str(directory / "generated"))
        messages, client = (importlib.import_module(f"tally.v1.tally_{kind}") for kind in ("pb2", "client"))
        tally = SimpleNamespace(messages=messages, client=client)
        async with Nursery.opened(directory / "generated") as nursery:
            for store in ["sqlite", "postgres"] if options.store == "both" else [options.store]:
                task = progress.add_task(f"{store}, seed {options.seed}", total=options.cycles)
                async with opened(nursery, store, directory / store) as arena:
                    campaign = Campaign(arena, tally, f"{options.seed}", options.clients, options.streamers)
                    accounts.append(await campaign.run(options.cycles, partial(progress.advance, task)))
    finally:
        if any(account.violations for account in accounts):
            print(f"What SQLite's log looks like now: {directory}", file=sys.stderr)
        else:
            shutil.rmtree(directory)
    return accounts


def table_of(accounts: list[Account]) -> Table:
    """Give the accounts side by side."""
    table = Table(title="What was done, and what became of it")
    table.add_column("")
    for account in accounts:
        table.add_column(account.store, justify="right")
    rows: list[tuple[str, Sequence[object]]] = [
        ("cycles", [a.cycles for a in accounts]),
        ("seconds", [a.seconds for a in accounts]),
        ("operations", [sum(a.operations.values()) for a in accounts]),
        *((f"  {name}", [a.operations.get(name, 0) for a in accounts]) for name in (one.value for one in Ending)),
        *((f"sent: {name}", [a.acts.get(name, 0) for a in accounts]) for name in _names(a.acts for a in accounts)),
        *((name, [a.kills[name] for a in accounts]) for name in _names(a.kills for a in accounts)),
        ("in flight when killed", [a.in_flight for a in accounts]),
        ("events in the log", [a.events for a in accounts]),
        ("accepted and found", [f"{a.found} of {a.operations.get(Ending.ACCEPTED.value, 0)}" for a in accounts]),
        ("found in the order of their stream", [a.ordered for a in accounts]),
        ("unknown that landed", [a.landed for a in accounts]),
        ("unknown that did not", [a.lost for a in accounts]),
        *(
            (f"ended with {name}", [a.errors.get(name, 0) for a in accounts])
            for name in _names(a.errors for a in accounts)
        ),
        ("violations", [len(a.violations) for a in accounts]),
    ]
    for title, figures in rows:
        table.add_row(title, *map(str, figures))
    return table


def _names(counts: Iterable[Mapping[str, int]]) -> list[str]:
    return sorted({name for one in counts for name in one})


def main() -> int:
    """Run, print, and give the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.torture", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--cycles", type=int, default=100, help="how often something is killed, per store (default 100)"
    )
    parser.add_argument(
        "--seed", type=int, default=random.randrange(10**6), help="of all chance (default: another one)"
    )
    parser.add_argument("--store", choices=("sqlite", "postgres", "both"), default="both")
    parser.add_argument("--clients", type=int, default=32, help="how many send one by one (default 32)")
    parser.add_argument("--streamers", type=int, default=4, help="how many send in streams (default 4)")
    parser.add_argument("--json", action="store_true", help="print the account as JSON")
    options = parser.parse_args()
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        accounts = uvloop.run(run(options, progress))
    if options.json:
        print(json.dumps([vars(account) for account in accounts]))
    else:
        Console().print(table_of(accounts))
    for account in accounts:
        for violation in account.violations[:TOLD]:
            print(f"{account.store}: {violation}", file=sys.stderr)
        if account.violations:
            again = f"--store {account.store} --seed {options.seed} --cycles {options.cycles}"
            print(f"{account.store} broke {len(account.violations)} promises. Again: {again}", file=sys.stderr)
    return int(any(account.violations for account in accounts))
