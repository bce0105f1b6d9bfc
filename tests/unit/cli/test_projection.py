"""`ceqs projection`, beside a server and a projector that run while events are recorded."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from ceqs.contract import decode_token
from ceqs.projectors import Standing, look_over, places_of
from ceqs.testing import eventually
from shop.orders.v1.commands_pb2 import PlaceOrderRequest
from shop.orders.v1.orders_client import OrdersClient
from shop.orders.v1.queries_pb2 import GetSalesRequest
from shop.orders.v1.types_pb2 import Line

Ceqs = Callable[..., subprocess.CompletedProcess[str]]
LINE = Line(product_code="P", quantity=1, unit_price_micros=1000)
CONTEXT = '''
"""Orders, with one projection in up to three versions, filled in small steps."""

import asyncio
import os

from ceqs.projectors import _worker
from shop.orders.context import CustomerHistory, Orders, OrdersContext, Overviews, Queries
from shop.orders.context import CreditNoteFold, OrderFold, ProductFold, ReviewFold, WithdrawalsFold
from shop.orders.sales import Sales


_worker.BATCH = 20


class Better(Sales):
    version = 2


class Slow(Sales):
    version = 3

    async def on_order_placed(self, session, event, meta):
        await asyncio.sleep(0.005)
        await super().on_order_placed(session, event, meta)


versions = {"1": [Sales()], "2": [Sales(), Better()], "3": [Better(), Slow()]}
orders = OrdersContext(
    commands=Orders(),
    folds=[OrderFold(), CreditNoteFold(), ProductFold(), WithdrawalsFold(), ReviewFold()],
    projections=[*versions[os.environ.get("VERSIONS", "1")], CustomerHistory()],
    queries=[Queries(), Overviews()],
)
'''


class System:
    """A server that runs, and a projector of either build."""

    def __init__(self, directory: Path, port: int, ceqs: Ceqs) -> None:
        self.directory = directory
        self.ceqs = ceqs
        self.env = {
            "CEQS_CONTEXTS": "sold:orders",
            "CEQS_ADDRESSES": f"orders=127.0.0.1:{port}",
            "CEQS_DATA": str(directory / "data"),
            "CEQS_NATS_URL": "nats://127.0.0.1:1",
            "CEQS_KEY": "secret",
            "PYTHONPATH": str(directory),
        }
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        self.places = places_of(f"sqlite:///{directory}/data/models", "orders", "Sales")
        self.placed = 0

    def start(self, role: str, versions: str = "1") -> None:
        self.env["VERSIONS"] = versions
        command = [sys.executable, "-m", "ceqs.cli", role]
        self.running[role] = subprocess.Popen(command, cwd=self.directory, env={**os.environ, **self.env})

    def end(self, role: str, number: int = signal.SIGTERM) -> None:
        process = self.running.pop(role)
        process.send_signal(number)
        process.wait()

    def say(self, *words: str) -> list[dict[str, Any]]:
        """Give what `ceqs projection` prints."""
        done = self.ceqs("projection", *words, "-o", "json", **self.env)
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]

    def refuse(self, *words: str) -> str:
        done = self.ceqs("projection", *words, **self.env)
        assert done.returncode
        return done.stderr

    async def place(self, count: int) -> None:
        """Place orders."""
        numbers = range(self.placed, self.placed + count)
        self.placed += count
        orders = (PlaceOrderRequest(order_id=f"o{n}", country=f"C{n % 5}", lines=[LINE]) for n in numbers)
        async with OrdersClient(self.env["CEQS_ADDRESSES"].removeprefix("orders="), timeout=60) as client:
            assert [outcome.error async for outcome in client.execute_many(orders)] == [None] * count

    @asynccontextmanager
    async def asking(self) -> AsyncIterator[list[int]]:
        """Place orders and ask for the sales all the time. Gives the positions of the answers, each after the other."""
        positions: list[int] = []

        async def ask() -> None:
            async with OrdersClient(self.env["CEQS_ADDRESSES"].removeprefix("orders="), timeout=60) as client:
                while True:
                    answer = await client.get_sales(GetSalesRequest())
                    positions.extend(decode_token(answer.age.token).values())
                    if len(positions) % 10 == 0:
                        await self.place(1)
                    await asyncio.sleep(0.01)

        task = asyncio.create_task(ask())
        yield positions
        assert not task.done(), task.exception()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    async def standing(self, label: str) -> Standing | None:
        found = [one for one in await look_over(self.places) if one.place.label == label]
        return found[0] if found else None

    async def serves(self, label: str) -> None:
        """Wait until a place answers with every order that was placed."""

        async def does() -> bool:
            one = await self.standing(label)
            return one is not None and one.serves and one.at.position >= self.placed

        await eventually(does, within=60)

    def rows(self, label: str) -> list[Any]:
        """Give the sales by country, as a place has them."""
        engine = sa.create_engine(f"sqlite:///{self.directory}/data/models/orders/Sales.{label}.db")
        with engine.connect() as connection:
            rows = connection.execute(sa.text("SELECT country, orders, sold_micros FROM countries ORDER BY country"))
            found = [tuple(row) for row in rows]
        engine.dispose()
        return found


@pytest.fixture
async def system(tmp_path: Path, free_port: int, ceqs: Ceqs) -> AsyncIterator[System]:
    (tmp_path / "sold.py").write_text(CONTEXT)
    system = System(tmp_path, free_port, ceqs)
    system.start("serve")
    try:
        await system.place(300)
        yield system
    finally:
        for role in list(system.running):
            system.end(role, signal.SIGKILL)


async def test_damaged_rows_are_filled_anew_gone_back_from_and_dropped(system: System) -> None:
    system.start("project")
    await system.serves("v1")
    damaged = sa.create_engine(f"sqlite:///{system.directory}/data/models/orders/Sales.db")
    with damaged.begin() as connection:
        connection.execute(sa.text("DELETE FROM countries"))
    damaged.dispose()
    done = system.say("rebuild", "Sales")[-1]
    assert (done["place"], done["state"], done["position"]) == ("v1.2", "serves", 300)
    assert system.rows("v1") == []
    assert system.rows("v1.2") == [(f"C{n}", 60, 60_000) for n in range(5)]
    assert system.say("rollback", "Sales") == [{"projection": "orders/Sales", "place": "v1", "instead_of": "v1.2"}]
    assert system.say("drop", "Sales", "v1.2") == [{"projection": "orders/Sales", "dropped": "v1.2"}]
    (one,) = [one for one in system.say("list") if one["projection"] == "orders/Sales"]
    assert (one["place"], one["state"], one["lag"]) == ("v1", "serves", 0)
    assert one["fed_by"].startswith(f"process {system.running['project'].pid} on ")
    assert list((system.directory / "data/models/orders").glob("Sales.v1.2*")) == []


async def test_a_new_version_fills_itself_while_answers_go_on_and_whatever_is_killed_goes_on(system: System) -> None:
    system.start("project", "2")
    await system.serves("v2")
    system.end("project")
    async with system.asking() as positions:
        system.start("project", "3")  # version 3 takes five milliseconds an event

        async def filling() -> bool:
            one = await system.standing("v3")
            return one is not None and one.at.position > 0

        await eventually(filling, within=60)
        system.end("project", signal.SIGKILL)
        before = await system.standing("v3")
        assert before
        assert (before.state, before.serves, before.fed_by, before.at.position < 300) == ("filling", False, "", True)
        assert "in version 2, 3, not 1" in system.refuse("rebuild", "Sales", "--to-version", "1")
        command = [sys.executable, "-m", "ceqs.cli", "projection", "rebuild", "Sales"]
        following = await asyncio.create_subprocess_exec(
            *command, cwd=system.directory, env={**os.environ, **system.env}, stdout=PIPE, stderr=PIPE
        )
        assert following.stderr
        told = (await following.stderr.readuntil(b"goes on from position")).decode()
        assert "no projector of a build with version 3 runs: start one (ceqs project orders" in told
        system.start("project", "3")
        out, _ = await asyncio.wait_for(following.communicate(), 60)
        assert b"orders/Sales: v3 answers, at position " in out
        count = len(positions)
        await eventually(lambda: len(positions) > count + 20)
    assert positions == sorted(positions)
    await system.serves("v3")
    assert sum(orders for _, orders, _ in system.rows("v3")) == system.placed

    async def fed() -> bool:
        one = await system.standing("v2")
        return one is not None and one.at.position == system.placed

    await eventually(fed)
    assert system.rows("v3") == system.rows("v2")


async def test_what_is_paused_waits_and_goes_on_where_it_stood(system: System) -> None:
    system.start("project")
    await system.serves("v1")
    assert system.say("pause", "Sales") == [{"projection": "orders/Sales", "paused": ["v1"]}]

    async def unfed() -> bool:
        one = await system.standing("v1")
        return one is not None and not one.fed_by

    await eventually(unfed)
    await system.place(10)
    (one,) = system.say("status", "Sales")
    assert (one["state"], one["serves"], one["position"], one["lag"]) == ("paused", True, 300, 10)
    system.say("resume", "Sales")
    await system.serves("v1")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("status", "Sale"), "there is no projection 'Sale'; did you mean Sales?"),
        (("drop", "Sales", "v7"), "has no place v7; there is none"),
        (("rebuild", "publish-orders"), "is a publisher"),
        (("rebuild", "orders/expire-orders"), "is a subscriber"),
    ],
)
def test_what_is_not_there_is_named(ceqs: Ceqs, tmp_path: Path, words: tuple[str, ...], said: str) -> None:
    env = {"CEQS_CONTEXTS": "shop.orders.context:orders", "CEQS_DATA": str(tmp_path)}
    done = ceqs("projection", *words, **env)
    assert done.returncode
    assert said in done.stderr
