"""Ruins the running shop, again and again, and checks that every service ends exactly where the logs say.

The demo's workload runs through both services, sent whole by several clients at once, so that every command comes more
than once. Meanwhile processes are killed (SIGKILL) and paused (SIGSTOP, beyond their leases too), the nats-server loses
its disk, the database crashes, and readers are sent again, late and in another order, what they were sent before. In
the end the books are balanced to the penny, each stream is compared with its log, message for message, each model with
a fold of its log, row for row; every timer has fired once, and nothing waits, is parked or was refused. Exit code 1
where any promise was broken.

`chaos` (acts, account) -> `ruins` (what is done to the shop) -> shop.demo (the shop, its workload, its books)
"""

from __future__ import annotations

import argparse
import asyncio
import datetime as dt
import json
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from tests.torture.ruins import Ruins

from ceqs.errors import CeqsError
from ceqs.log import LogReader, open_reader
from ceqs.model import Context, Projection
from ceqs.projectors import ModelReader, fill, metadata_of, place_of, places_of, read_status
from ceqs.relay import differences
from ceqs.testing import eventually
from shop.demo.answers import CONTEXTS, ask, caught_up
from shop.demo.books import keep_books
from shop.demo.documents import Documents, documents_of
from shop.demo.generator import write_csv
from shop.demo.replay import Outcome, replay
from shop.demo.rows import Row, read_rows
from shop.demo.verification import verify
from shop.orders.v1.events_pb2 import OrderCancelled, OrderConfirmed, OrderPaid

ROWS = 25
"""How many rows are replayed for each act."""
AFRESH = 99
"""The generation of the places that are filled to compare with."""
UNPAID = 5
"""How many orders nobody pays: the timers by which they expire fall due while the shop is being ruined."""
TIMERS = "ceqs:orders/expire-orders:timer:"
"""How the ids of commands begin that come of timers."""
SETTLED = 150.0
"""Seconds after which models that go back and forth, or fail in turns, will not settle any more."""
TOLD = 20
"""How many violations are printed at most."""


@dataclass
class Account:
    """What was done to the shop on one store, and what became of it."""

    store: str
    seed: int
    rows: int
    acts: Counter[str] = field(default_factory=Counter[str])
    repeated: int = 0
    reordered: int = 0
    """How many deliveries to readers."""
    restarts: dict[str, int] = field(default_factory=dict[str, int])
    outcomes: Counter[str] = field(default_factory=Counter[str])
    """Of commands, as each client was told."""
    timers: int = 0
    """That fired."""
    events: int = 0
    messages: int = 0
    """That streams were compared with."""
    model_rows: int = 0
    """That projections were compared with."""
    seconds: float = 0.0
    violations: list[str] = field(default_factory=list[str])


class Chaos:
    """One shop, and what is done to it."""

    def __init__(self, shop: Ruins, account: Account, clients: int) -> None:
        self._shop = shop
        self._account = account
        self._clients = clients
        self._chance = random.Random()

    async def run(self, cycles: int, progress: Callable[[], None]) -> None:
        """Do so many acts while the workload runs, then settle."""
        path = self._shop.directory / "transactions.csv"
        write_csv(path, rows=self._account.rows, seed=self._account.seed)
        lines = list(read_rows(path))
        documents = documents_of(line for line in lines if isinstance(line, Row))
        unpaid = documents.trials[0]
        documents.trials.extend(replace(unpaid, number=f"{unpaid.number}-{n}") for n in range(2, UNPAID + 1))
        sending = [
            asyncio.create_task(replay(documents, self._shop.orders, self._shop.inventory, lambda: None))
            for _ in range(self._clients)
        ]
        try:
            for number in range(cycles):
                # What is done does not depend on how things went before.
                self._chance.seed(f"{self._account.seed}/{number}")
                await self._act()
                await asyncio.sleep(self._chance.uniform(0.05, 0.6))
                progress()
            await self._shop.awake()
            told = await asyncio.gather(*sending)
        finally:
            for task in sending:
                task.cancel()
        self._account.outcomes = Counter(one.reason or "accepted" for outcomes in told for one in outcomes)
        await self._settle(lines, documents, told)

    async def _act(self) -> None:
        acts = {self._kill: 45, self._pause: 30, self._wipe: 10, self._crash: 12 * self._shop.has_database}
        act = self._chance.choices(list(acts), list(acts.values()))[0]
        self._account.acts[await act()] += 1

    async def _kill(self) -> str:
        name = self._chance.choice(sorted(self._shop.running))
        self._shop.kill(name)
        return f"killed: {_role(name)}"

    async def _pause(self) -> str:
        name = self._chance.choice(sorted(self._shop.running))
        # Beyond a lease where it is one of two: the other one takes over, and this one has to see that.
        self._shop.pause(name, self._chance.uniform(0.1, 8 if name.startswith("project") else 2))
        return f"paused: {_role(name)}"

    async def _wipe(self) -> str:
        self._shop.wipe()
        return "streams wiped"

    async def _crash(self) -> str:
        await self._shop.crash()
        return "database crashed"

    async def _settle(self, lines: list[Any], documents: Documents, told: list[list[Outcome]]) -> None:
        account, shop = self._account, self._shop
        try:
            async with asyncio.timeout(SETTLED):
                models = await caught_up(shop, lambda at, of: None)
        except TimeoutError:
            account.violations.append(f"settled: {SETTLED:g} s after the last act, models still move")
            return
        answers = await ask(shop, models)
        opening = {product: units for product, (_, units) in documents.opening.items()}
        books = keep_books(lines, opening, [trial.units for trial in documents.trials])
        account.restarts = shop.restarts
        account.repeated, account.reordered = shop.meddler.repeated, shop.meddler.reordered
        account.events = sum(answers.events.values())
        account.violations += [f"books: {c.name}: {c.told}" for c in verify(books, told[0], answers) if not c.holds]
        if any(outcomes != told[0] for outcomes in told):
            account.violations.append("done once: a command had another outcome when it was sent by another client")
        await self._check_timers()
        for name, context in CONTEXTS.items():
            reader = await open_reader(shop.log_url(name), name)
            try:
                await self._compare_streams(reader, context)
                for projection in context.projections.values():
                    await self._compare_rows(reader, context, projection)
            finally:
                await reader.close()
            for status in await read_status(shop.models_url, context):
                if status.refused:
                    account.violations.append(f"nothing is refused: {name}/{status.name}: {status.outcomes}")
                if status.parked or status.unsent:
                    what = f"{status.parked} events are parked, {status.unsent} calls unsent"
                    account.violations.append(f"nothing waits: {name}/{status.name}: {what}")

    async def _check_timers(self) -> None:
        """Check that each order that was not paid in time was cancelled by its timer, once and not too soon."""
        due, paid, fired = dict[str, dt.datetime](), set[str](), dict[str, list[dt.datetime]]()
        async for event in self._shop.orders.events(scope="private", live=False):
            match event.message:
                case OrderConfirmed(order_id=order) as confirmed if confirmed.HasField("expires_at"):
                    due[order] = confirmed.expires_at.ToDatetime(dt.UTC)
                case OrderPaid(order_id=order):
                    paid.add(order)
                case OrderCancelled(order_id=order) if event.command_id.startswith(f"{TIMERS}{order}:"):
                    fired.setdefault(order, []).append(event.recorded_at)
                case _:
                    pass
        self._account.timers = sum(map(len, fired.values()))
        for order in sorted({*due, *fired}):
            times, expected = fired.get(order, []), int(order in due and order not in paid)
            if len(times) != expected or any(time < due[order] for time in times):
                what = f"order {order}, due {due.get(order)}, paid: {order in paid}, expired at {times}"
                self._account.violations.append(f"every timer fired once: {what}")

    async def _compare_streams(self, reader: LogReader, context: Context) -> None:
        url, found = self._shop.nats_url, ["not compared"]

        async def equal() -> bool:
            try:
                found[:] = await differences(reader, context.decoder, url)
            except CeqsError as error:
                found[:] = [error.message]
            return not found

        with suppress(AssertionError):
            await eventually(equal, within=60)
        head = await reader.head()
        self._account.messages += head.position + head.public_position
        self._account.violations += [f"stream == log: {one}" for one in found]

    async def _compare_rows(self, reader: LogReader, context: Context, projection: Projection) -> None:
        name, url = projection.ceqs_name(), self._shop.models_url
        place = place_of(url, context.name, name, projection.version, AFRESH)
        head = await reader.head()
        await fill(place, projection, context.decoder_of(projection.ceqs_contract), reader, head.position)
        expected = await _rows(ModelReader(place), projection)
        found = await _rows(ModelReader(places_of(url, context.name, name)), projection)
        self._account.model_rows += sum(map(len, expected.values()))
        for table, rows in expected.items():
            if found[table] != rows:
                self._account.violations.append(f"projection == fold: {name}: {table} has other rows than the log")


async def _rows(reader: ModelReader, projection: Projection) -> dict[str, list[str]]:
    """Give all rows of a projection by table, in an order of their own."""
    async with reader.session() as (session, _):
        found = {
            table.name: sorted(repr(tuple(row)) for row in await session.execute(sa.select(table)))
            for table in metadata_of(projection).sorted_tables
        }
    await reader.close()
    return found


def _role(name: str) -> str:
    role, *_ = name.split()
    return {"serve": "server", "project": "projector"}.get(role, role)


@asynccontextmanager
async def _directory(account: Account) -> AsyncGenerator[Path]:
    directory = Path(tempfile.mkdtemp(prefix="ceqs-chaos-"))
    try:
        yield directory
    finally:
        if account.violations:
            print(f"What the processes said is in {directory / 'processes.log'}", file=sys.stderr)
        else:
            shutil.rmtree(directory)


async def run(options: argparse.Namespace, progress: Progress) -> list[Account]:
    """Ruin a shop on each store."""
    accounts = list[Account]()
    for store in ["sqlite", "postgres"] if options.store == "both" else [options.store]:
        account = Account(store, options.seed, options.cycles * ROWS)
        accounts.append(account)
        task = progress.add_task(f"{store}, seed {options.seed}", total=options.cycles)
        begin = time.monotonic()
        async with _directory(account) as directory:
            try:
                chance = random.Random(options.seed)
                async with Ruins(directory, chance, postgres=store == "postgres") as shop:
                    chaos = Chaos(shop, account, options.clients)
                    await chaos.run(options.cycles, partial(progress.advance, task))
            except CeqsError as error:
                account.violations.append(f"answered: {error.message}")
        account.seconds = round(time.monotonic() - begin, 1)
    return accounts


def table_of(accounts: list[Account]) -> Table:
    """Give the accounts side by side."""
    table = Table(title="What was done to the shop, and what became of it")
    table.add_column("")
    for account in accounts:
        table.add_column(account.store, justify="right")
    rows: list[tuple[str, Sequence[object]]] = [
        ("seconds", [a.seconds for a in accounts]),
        ("rows replayed", [a.rows for a in accounts]),
        *((name, [a.acts[name] for a in accounts]) for name in sorted({name for a in accounts for name in a.acts})),
        ("deliveries repeated", [a.repeated for a in accounts]),
        ("deliveries reordered", [a.reordered for a in accounts]),
        ("processes started again", [sum(a.restarts.values()) for a in accounts]),
        *(
            (f"commands: {name}", [a.outcomes[name] for a in accounts])
            for name in sorted({name for a in accounts for name in a.outcomes})
        ),
        ("timers fired", [a.timers for a in accounts]),
        ("events in the logs", [a.events for a in accounts]),
        ("messages compared", [a.messages for a in accounts]),
        ("rows of models compared", [a.model_rows for a in accounts]),
        ("violations", [len(a.violations) for a in accounts]),
    ]
    for title, figures in rows:
        table.add_row(title, *map(str, figures))
    return table


def main() -> int:
    """Run, print, and give the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.torture.chaos", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cycles", type=int, default=40, help="how many acts, per store (default 40)")
    parser.add_argument(
        "--seed", type=int, default=random.randrange(10**6), help="of all chance (default: another one)"
    )
    parser.add_argument("--store", choices=("sqlite", "postgres", "both"), default="both")
    parser.add_argument("--clients", type=int, default=2, help="how many send the whole workload (default 2)")
    parser.add_argument("--json", action="store_true", help="print the account as JSON")
    options = parser.parse_args()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        accounts = asyncio.run(run(options, progress))
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


if __name__ == "__main__":
    sys.exit(main())
