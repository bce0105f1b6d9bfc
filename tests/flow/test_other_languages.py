"""Consumers and clients without our code, or in another language: what a service says on the wire is all they need.

The packages from npm are installed once, into `.ceqs/typescript` of the checkout.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from shop.demo.system import System
from shop.inventory.v1.commands_pb2 import ReceiveStockRequest
from shop.orders.v1.commands_pb2 import PlaceOrderRequest
from shop.orders.v1.types_pb2 import Line

ROOT = Path(__file__).parent.parent.parent
PROTO = str(ROOT / "proto")
ACCEPTED = "shop.orders.v1.OrderAccepted"
CONSUMER = Path(__file__).parent / "processes/plain_consumer.py"


async def run(*command: str | Path, cwd: Path = ROOT, within: float = 90) -> str:
    """Run a program; give what it printed. It fails with what it said."""
    process = await asyncio.create_subprocess_exec(
        *command, cwd=cwd, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    try:
        out, err = await asyncio.wait_for(process.communicate(), within)
    except TimeoutError:
        process.kill()
        raise
    assert process.returncode == 0, f"{command}: {err.decode()[-4000:]}"
    return out.decode()


@pytest.fixture
async def node() -> Path:
    """The package, with its dependencies beside it; installed anew when these have changed."""
    for program in ("node", "npm"):
        if shutil.which(program) is None:
            pytest.skip(f"there is no {program} on the path: install Node.js 20 or later to test clients/typescript")
    package, place = ROOT / "clients/typescript", ROOT / ".ceqs/typescript"
    shutil.copytree(package, place, dirs_exist_ok=True, ignore=shutil.ignore_patterns("node_modules"))
    lock, installed = package / "package-lock.json", place / "node_modules/.lock.json"
    if not installed.exists() or installed.read_bytes() != lock.read_bytes():
        options = ["--no-audit", "--no-fund", "--ignore-scripts", "--prefer-offline"]
        await run("npm", "ci", *options, cwd=place, within=300)
        shutil.copy(lock, installed)
    return place


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[System]:
    """The shop, with stock of the product A."""
    async with System(tmp_path) as system:
        await system.inventory.receive_stock(ReceiveStockRequest(product_code="A", quantity=50))
        yield system


@pytest.mark.timeout(420)
async def test_services_are_used_from_node_and_heard_without_our_code(shop: System, node: Path) -> None:
    # Placed by our own client: what all the others say is held against it.
    line = Line(product_code="A", quantity=5, unit_price_micros=1_000_000)
    await shop.orders.place_order(PlaceOrderRequest(order_id="ä, 1", customer_id="7", country="France", lines=[line]))
    nats_url = shop.environment["CEQS_NATS_URL"]
    python, javascript, shopping = await asyncio.gather(
        run(sys.executable, CONSUMER, nats_url, PROTO, ACCEPTED),
        run("node", "test/consumer.mjs", nats_url, PROTO, ACCEPTED, cwd=node),
        run("node", "test/shop.mjs", shop.addresses["orders"], PROTO, "2", cwd=node),
    )
    ours = await anext(shop.orders.events(live=False, types=[ACCEPTED]))
    heard_in_python, heard_in_node = json.loads(python), json.loads(javascript)
    assert heard_in_node == heard_in_python
    assert heard_in_python["event"] == {"orderId": "ä, 1", "lines": [{"productCode": "A", "quantity": "5"}]}
    assert heard_in_python["sequence"] == ours.public_position
    headers = heard_in_python["headers"]
    assert (headers["ce-id"], headers["ce-type"]) == (ours.id, ACCEPTED)
    assert (headers["ce-tags"], headers["ce-schemaversion"]) == ("order:ä%2C 1", "1")
    _check_shopping(json.loads(shopping))


def _check_shopping(said: dict[str, Any]) -> None:
    # Done once, and read back: from the state, and from a projection that had to catch up first.
    assert said["placed"]["receipt"]["commandId"] == "2 by node"
    assert said["again"] == said["placed"]
    order = said["state"]["message"]["order"]
    assert (order["orderId"], order["customerId"]) == ("2", "node")
    assert said["state"]["lag"] == 0
    # What followed may have come to it meanwhile, but not to the order as of its receipt.
    placed = said["then"]["message"]["order"]
    assert (placed["status"], placed["confirmedAt"]) == ("ORDER_STATUS_PLACED", None)
    news = {"status": placed["status"], "confirmedAt": None}
    assert {**order, **news} == placed
    total = said["sales"]["message"]["total"]
    assert (total["orders"], said["sales"]["parked"]) == ("2", 0), said["sales"]
    # Refused by a rule, by the contract, and for what is not there.
    assert (said["twice"]["code"], said["twice"]["reason"]) == ("FAILED_PRECONDITION", "ORDER_EXISTS")
    assert said["malformed"]["code"] == "INVALID_ARGUMENT"
    assert "lines[1].product_code" in {violation["field"] for violation in said["malformed"]["violations"]}
    assert said["unknown"]["code"] == "NOT_FOUND"
    # Watched: an answer that says how old it is, and is left.
    assert {**said["watched"]["order"], **news} == placed
    assert said["watched"]["age"]["lagEvents"] == "0"
    # Heard as a public event, through EventsService.
    accepted = said["accepted"]
    assert (accepted["type"], accepted["version"]) == (ACCEPTED, 1)
    assert accepted["message"] == {"orderId": "2", "lines": [{"productCode": "A", "quantity": "2"}]}


@pytest.mark.timeout(420)
async def test_a_client_in_node_goes_on_when_the_server_was_killed(shop: System, node: Path) -> None:
    line = Line(product_code="A", quantity=1, unit_price_micros=1)
    await shop.orders.place_order(PlaceOrderRequest(order_id="1", country="France", lines=[line]))
    follower = await asyncio.create_subprocess_exec(
        *("node", "test/follow.mjs", shop.addresses["orders"], PROTO, "2"),
        cwd=node,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert follower.stdout
    assert follower.stdin
    try:
        heard = [json.loads(await asyncio.wait_for(follower.stdout.readline(), 60))]
        os.kill(shop.pids["serve orders"], signal.SIGKILL)
        follower.stdin.write(b"place your order\n")
        async with asyncio.timeout(90):
            heard += [json.loads(said) async for said in follower.stdout]
            assert await follower.wait() == 0
    finally:
        if follower.returncode is None:
            follower.kill()
            await follower.wait()
    assert shop.restarts == {"serve orders": 1}
    assert heard == [{"order": "1", "position": "1"}, {"order": "2", "position": "2"}]


@pytest.mark.timeout(360)
async def test_the_types_of_the_package_say_what_is_right_and_what_is_wrong(node: Path) -> None:
    await run(node / "node_modules/.bin/tsc", "-p", ".", cwd=node)
