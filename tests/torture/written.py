"""Reads what was written, at once and from everywhere, ten thousand times while others write: nothing may be stale.

    python -m tests.torture.written [--rounds 10000] [--clients 16] [--store sqlite] [--seed 1] [--json]

Each client has a country, a customer and a product of its own, so it knows to the unit what it must be told. A round is
a command and the queries that must include it: of its own service from a state and from projections; of the other one,
by the token that the client hands on, from a state and a projection there; and sometimes back again, that the other
service has run out of a product. Others write all the time. Exit code 1 where an answer was stale or a call failed.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import random
import shutil
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from ceqs.errors import CeqsError
from shop.demo.system import System
from shop.inventory.v1.commands_pb2 import ReceiveStockRequest
from shop.inventory.v1.inventory_client import InventoryClient
from shop.inventory.v1.queries_pb2 import GetStockRequest, ListStockRequest
from shop.orders.v1.commands_pb2 import PlaceOrderRequest
from shop.orders.v1.orders_client import OrdersClient
from shop.orders.v1.queries_pb2 import (
    GetOrderRequest,
    GetProductRequest,
    GetSalesRequest,
    ListCustomerHistoryRequest,
)
from shop.orders.v1.types_pb2 import Line

STOCK = 10**6
TIMEOUT = 300.0
"""Seconds that a call may take, however busy the machine is: who waits longer waits in vain (Behind)."""
PAUSE = 0.5
"""Seconds between two commands of each of those who only write."""
WRITERS = 2


@dataclass
class Account:
    """What was asked, and what was wrong with the answers."""

    store: str = ""
    rounds: int = 0
    reads: Counter[str] = field(default_factory=Counter[str])
    stale: list[str] = field(default_factory=list[str])
    failures: list[str] = field(default_factory=list[str])
    """Calls that should have succeeded."""
    others: int = 0
    """Commands of those who only write."""
    seconds: float = 0.0
    said: str = ""
    """Where the log of the processes lies, if something was wrong."""
    times: list[float] = field(default_factory=list[float], repr=False)
    """Seconds that each round took."""

    def told(self, what: str, found: object, due: object) -> None:
        """Count an answer, and note it where it is not what was due."""
        self.reads[what] += 1
        if found != due:
            self.stale.append(f"{what}: {found}, not {due}")


class Reader:
    """Writes, and reads what it has written."""

    def __init__(self, name: str, orders: str, inventory: str, account: Account) -> None:
        self.country, self.customer, self.product = f"Country {name}", f"customer-{name}", f"P-{name}"
        self._orders = OrdersClient(orders, timeout=TIMEOUT)
        self._inventory = InventoryClient(inventory, timeout=TIMEOUT)
        self._account = account
        self._chance = random.Random(name)
        self._sold = self._received = self._single = 0

    async def begin(self) -> None:
        """Have something to sell."""
        await self._receive(STOCK)

    async def round(self) -> None:
        """Write, and read it."""
        kinds: dict[Callable[[], Coroutine[Any, Any, None]], int] = {self._order: 16, self._stock: 3, self._last: 1}
        kind = self._chance.choices(list(kinds), list(kinds.values()))[0]
        began = time.monotonic()
        try:
            await kind()
        except CeqsError as error:
            self._account.failures.append(f"{type(error).__name__}: {error.message}")
        self._account.times.append(time.monotonic() - began)
        self._account.rounds += 1

    async def close(self) -> None:
        """Hang up."""
        await self._orders.close()
        await self._inventory.close()

    async def _place(self, product: str) -> str:
        self._sold += 1
        number = f"{self.customer}-{self._sold}"
        line = Line(product_code=product, quantity=1, unit_price_micros=10**6)
        await self._orders.place_order(
            PlaceOrderRequest(order_id=number, country=self.country, customer_id=self.customer, lines=[line])
        )
        return number

    async def _receive(self, quantity: int) -> None:
        self._received += quantity
        await self._inventory.receive_stock(ReceiveStockRequest(product_code=self.product, quantity=quantity))

    async def _order(self) -> None:
        """Order, and ask both services: whoever waits for the other one sends no more than it can follow."""
        number = await self._place(self.product)
        order = await self._orders.get_order(GetOrderRequest(order_id=number))
        self._account.told("state", order.message.order.order_id, number)
        sales, history = await asyncio.gather(
            self._orders.get_sales(GetSalesRequest(top=1)),
            self._orders.list_customer_history(ListCustomerHistoryRequest(customer_id=self.customer, page_size=1000)),
        )
        mine = [one.sums.orders for one in sales.message.countries if one.country == self.country]
        self._account.told("projection", mine, [self._sold])
        token, found = history.message.next_page_token, len(history.message.entries)
        while token:
            page = await self._orders.list_customer_history(
                ListCustomerHistoryRequest(customer_id=self.customer, page_size=1000, page_token=token)
            )
            token, found = page.message.next_page_token, found + len(page.message.entries)
        self._account.told("list", found, self._sold)
        await self._ask_stock()

    async def _stock(self) -> None:
        """Receive a unit, and ask for it."""
        await self._receive(1)
        await self._ask_stock()

    async def _ask_stock(self) -> None:
        """Ask the warehouse for what was ordered too, by the token of the orders."""
        inventory = self._inventory.with_token(self._orders.token)
        stock, levels = await asyncio.gather(
            inventory.get_stock(GetStockRequest(product_code=self.product)),
            inventory.list_stock(ListStockRequest(product_code=[self.product])),
        )
        sold = self._sold - self._single
        self._account.told("state, across", stock.message.stock.on_hand, self._received - sold)
        self._account.told("projection, across", [one.moved for one in levels.message.levels], [sold])

    async def _last(self) -> None:
        """Order the last unit of a product: that it is the last, orders hears from the warehouse."""
        self._single += 1
        product = f"{self.product}-{self._single}"
        await self._inventory.receive_stock(ReceiveStockRequest(product_code=product, quantity=1))
        await self._place(product)
        inventory = self._inventory.with_token(self._orders.token)
        stock = await inventory.get_stock(GetStockRequest(product_code=product))
        self._account.told("state, across", stock.message.stock.on_hand, 0)
        orders = self._orders.with_token(inventory.with_token(stock.age.token).token)
        answer = await orders.get_product(GetProductRequest(product_code=product))
        self._account.told("state, there and back", answer.message.product.depleted, True)


async def read_what_was_written(
    orders: str,
    inventory: str,
    account: Account,
    *,
    rounds: int,
    clients: int,
    seed: int = 1,
    progress: Callable[[], None] = lambda: None,
) -> None:
    """Go through so many rounds, several clients at once, while others write."""
    began = time.monotonic()
    readers = [Reader(f"{seed}-{number}", orders, inventory, account) for number in range(clients)]
    left = iter(range(rounds))

    async def go_on(reader: Reader) -> None:
        await reader.begin()
        for _ in left:
            await reader.round()
            progress()

    writers = [asyncio.create_task(_write(f"other-{seed}-{number}", orders, account)) for number in range(WRITERS)]
    try:
        await asyncio.gather(*map(go_on, readers))
    finally:
        for writer in writers:
            writer.cancel()
        await asyncio.gather(*writers, return_exceptions=True)
        for reader in readers:
            await reader.close()
    account.seconds = round(time.monotonic() - began, 1)


async def _write(name: str, orders: str, account: Account) -> None:
    async with OrdersClient(orders, timeout=TIMEOUT) as client:
        for number in itertools.count():
            line = Line(product_code=f"other-{number % 9}", quantity=1, unit_price_micros=1)
            order = PlaceOrderRequest(order_id=f"{name}-{number}", country="Eire", lines=[line])
            try:
                await client.place_order(order)
                account.others += 1
            except CeqsError as error:
                account.failures.append(f"{type(error).__name__}: {error.message}")
            await asyncio.sleep(PAUSE)


async def run(options: argparse.Namespace, progress: Progress) -> list[Account]:
    """Read what was written from the shop on each store."""
    accounts: list[Account] = []
    for store in ["sqlite", "postgres"] if options.store == "both" else [options.store]:
        account = Account(store)
        accounts.append(account)
        task = progress.add_task(store, total=options.rounds)
        with tempfile.TemporaryDirectory(prefix="ceqs-written-") as directory:
            async with System(Path(directory), postgres=store == "postgres") as shop:
                await read_what_was_written(
                    shop.addresses["orders"],
                    shop.addresses["inventory"],
                    account,
                    rounds=options.rounds,
                    clients=options.clients,
                    seed=options.seed,
                    progress=partial(progress.advance, task),
                )
            if account.stale or account.failures:
                account.said = tempfile.mkdtemp(prefix="ceqs-written-said-")
                shutil.copy(Path(directory) / "processes.log", account.said)
    return accounts


def table_of(accounts: list[Account]) -> Table:
    """Give the accounts side by side."""
    table = Table(title="What was written, read at once and from everywhere")
    table.add_column("")
    for account in accounts:
        table.add_column(account.store, justify="right")
    percentiles = [statistics.quantiles(a.times, n=100) if len(a.times) > 1 else [0.0] * 99 for a in accounts]
    rows: list[tuple[str, Sequence[object]]] = [
        ("rounds", [a.rounds for a in accounts]),
        ("seconds", [a.seconds for a in accounts]),
        ("commands of others meanwhile", [a.others for a in accounts]),
        *(
            (f"reads: {what}", [a.reads[what] for a in accounts])
            for what in sorted({what for a in accounts for what in a.reads})
        ),
        ("a round, p50", [f"{1000 * p[49]:.0f} ms" for p in percentiles]),
        ("a round, p99", [f"{1000 * p[98]:.0f} ms" for p in percentiles]),
        ("stale reads", [len(a.stale) for a in accounts]),
        ("spurious failures", [len(a.failures) for a in accounts]),
        *(
            (f"  {kind}", [sum(one.startswith(f"{kind}:") for one in a.failures) for a in accounts])
            for kind in sorted({one.partition(":")[0] for a in accounts for one in a.failures})
        ),
    ]
    for title, figures in rows:
        table.add_row(title, *map(str, figures))
    return table


def main() -> int:
    """Run, print, and give the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.torture.written",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--rounds", type=int, default=10_000, help="how many, per store (default 10,000)")
    parser.add_argument("--clients", type=int, default=16, help="how many write and read at once (default 16)")
    parser.add_argument("--seed", type=int, default=1, help="of what each client does (default 1)")
    parser.add_argument("--store", choices=("sqlite", "postgres", "both"), default="both")
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
        for wrong in [*account.stale, *account.failures][:20]:
            print(f"{account.store}: {wrong}", file=sys.stderr)
        if account.said:
            print(f"{account.store}: what the processes said: {account.said}", file=sys.stderr)
    return int(any(account.stale or account.failures for account in accounts))


if __name__ == "__main__":
    sys.exit(main())
