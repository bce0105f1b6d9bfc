"""The demo, whole: real processes, and every number as the books have it, whatever is killed meanwhile."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ceqs.errors import NotFound
from ceqs.testing import eventually
from shop.demo.answers import ask, caught_up
from shop.demo.books import keep_books
from shop.demo.documents import documents_of
from shop.demo.generator import write_csv
from shop.demo.main import app
from shop.demo.replay import replay
from shop.demo.rows import Row, read_rows
from shop.demo.system import System
from shop.demo.verification import verify
from shop.inventory.v1.commands_pb2 import ReceiveStockRequest
from shop.inventory.v1.queries_pb2 import GetStockRequest
from shop.orders.v1.commands_pb2 import CancelOrderRequest, PlaceOrderRequest
from shop.orders.v1.orders_client import OrdersClient
from shop.orders.v1.queries_pb2 import GetProductRequest, GetSalesRequest, ListCustomerHistoryRequest, SalesSums
from shop.orders.v1.types_pb2 import Line


@pytest.mark.timeout(300)
async def test_killing_each_process_once_changes_no_number(tmp_path: Path) -> None:
    write_csv(tmp_path / "rows.csv", rows=600, seed=7)
    lines = list(read_rows(tmp_path / "rows.csv"))
    documents = documents_of(line for line in lines if isinstance(line, Row))
    opening = {product: units for product, (_, units) in documents.opening.items()}
    books = keep_books(lines, opening, [trial.units for trial in documents.trials])
    async with System(tmp_path) as system:
        sending = asyncio.create_task(replay(documents, system.orders, system.inventory, lambda: None))
        killed = dict(system.pids)
        for name, pid in killed.items():
            os.kill(pid, signal.SIGKILL)
            await eventually(partial(runs_again, system, name, pid))
        outcomes = await sending
        answers = await ask(system, await caught_up(system, lambda at, of: None))
        assert set(system.restarts) == set(killed)
    assert [check for check in verify(books, outcomes, answers) if not check.holds] == []
    assert books.depleted


def test_shops_that_begin_at_once_do_not_meet(tmp_path: Path) -> None:
    first, second = System(tmp_path / "1"), System(tmp_path / "2")
    assert {*first.addresses.values()}.isdisjoint(second.addresses.values())


@pytest.mark.timeout(120)
async def test_an_order_and_its_cancellation_go_round_both_services(tmp_path: Path) -> None:
    line = Line(product_code="A", quantity=5, unit_price_micros=1_000_000)
    async with System(tmp_path) as system:
        orders, inventory = system.orders, system.inventory

        async def on_hand() -> int:
            return (await inventory.get_stock(GetStockRequest(product_code="A"))).message.stock.on_hand

        received = await inventory.receive_stock(ReceiveStockRequest(product_code="A", quantity=5))
        assert received.on_hand == 5
        await orders.place_order(PlaceOrderRequest(order_id="1", customer_id="7", country="France", lines=[line]))
        await eventually(partial(marked, orders))
        assert await on_hand() == 0

        await orders.cancel_order(CancelOrderRequest(order_id="1"))
        await eventually(partial(available, orders))
        assert await on_hand() == 5
        history = (await orders.list_customer_history(ListCustomerHistoryRequest(customer_id="7"))).message
        assert [(entry.order_id, entry.cancelled) for entry in history.entries] == [("1", True)]
        assert (await orders.get_sales(GetSalesRequest())).message.total == SalesSums()


async def marked(orders: OrdersClient) -> bool:
    """Say whether orders has heard that the product A has run out."""
    try:
        return (await orders.get_product(GetProductRequest(product_code="A"))).message.product.depleted
    except NotFound:  # Nothing was recorded of it yet.
        return False


async def available(orders: OrdersClient) -> bool:
    """Say whether orders has heard that the product A is back."""
    return not await marked(orders)


def runs_again(system: System, name: str, killed: int) -> bool:
    return system.pids.get(name, 0) not in (0, killed)


def run_demo(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "shop.demo", *arguments], capture_output=True, text=True, timeout=240, check=False
    )


@pytest.mark.timeout(300)
@pytest.mark.parametrize("store", ["sqlite", "postgres"])
def test_the_demo_verifies_what_it_invents_and_reports_as_json(store: str) -> None:
    done = run_demo("--rows", "300", "--seed", "5", "--output", "json", "--store", store)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["verified"] is True
    assert {check["result"] for check in report["verification"]} == {"same"}
    assert {part["part"]: part["rows"] for part in report["rows"]}["all"] == 300
    assert all(model["lag"] == 0 for model in report["models"])


@pytest.mark.timeout(120)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_demo_that_is_interrupted_leaves_nothing_behind(tmp_path: Path, number: signal.Signals) -> None:
    demo = subprocess.Popen(
        [sys.executable, "-m", "shop.demo", "--rows", "2000"],
        env={**os.environ, "TMPDIR": str(tmp_path)},
        stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    await eventually(lambda: list(tmp_path.glob("*/processes.log")))
    demo.send_signal(number)
    assert await asyncio.to_thread(demo.wait, 60) == 130
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--data", "nothing.csv"), "nothing.csv: cannot be read"),
        (("--output", "xml"), "neither text nor json"),
        (("--store", "oracle"), "neither sqlite nor postgres"),
        (("--rows", "0"), "--rows"),
    ],
)
def test_wrong_usage_ends_with_2_and_says_why(arguments: tuple[str, ...], said: str) -> None:
    done = CliRunner().invoke(app, arguments, env={"COLUMNS": "120", "TERM": "dumb"})
    assert done.exit_code == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr
