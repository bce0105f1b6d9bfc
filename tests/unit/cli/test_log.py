"""`ceqs log`: looking after logs, beside servers or while none runs."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from ceqs.log import Entry, NewEvent, Query, QueryItem, open_log, open_reader
from shop.orders.v1.events_pb2 import OrderCancelled

Ceqs = Callable[..., subprocess.CompletedProcess[str]]
EVENTS = 2500


@pytest.fixture(params=["sqlite", "postgres"])
def shop(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, str]:
    """The environment of a shop that keeps its logs here."""
    env = {"CEQS_CONTEXTS": "shop.orders.context:orders", "CEQS_DATA": str(tmp_path), "CEQS_STORE": request.param}
    if request.param == "postgres":
        env["CEQS_DATABASE_URL"] = request.getfixturevalue("postgres")
    return env


def log_url(shop: dict[str, str]) -> str:
    return shop.get("CEQS_DATABASE_URL", f"sqlite:///{shop['CEQS_DATA']}/logs/orders.db")


async def fill(url: str) -> None:
    """Record cancellations that carry no tag yet."""
    log = await open_log(url, "orders")
    payload = OrderCancelled(order_id="1").SerializeToString()
    for start in range(0, EVENTS, 500):
        new = [
            NewEvent(id=f"{number}", type="shop.orders.v1.OrderCancelled", payload=payload)
            for number in range(start, start + 500)
        ]
        await log.append(Entry(command_id=f"{start}", events=tuple(new)))
    await log.close()


async def tagged(url: str) -> int:
    reader = await open_reader(url, "orders")
    found = await reader.read(query=Query((QueryItem(tags=frozenset({"order:1"})),)), limit=1_000_000)
    await reader.close()
    return len(found.events)


def lines(output: str) -> Sequence[dict[str, object]]:
    return [json.loads(line) for line in output.splitlines()]


def test_retag_tags_what_is_recorded_and_says_how_much(shop: dict[str, str], ceqs: Ceqs) -> None:
    url = log_url(shop)
    asyncio.run(fill(url))
    assert asyncio.run(tagged(url)) == 0
    done = ceqs("log", "retag", "orders", **shop)
    assert (done.returncode, done.stdout) == (0, f"orders: tagged {EVENTS} events; what had changed: OrderCancelled\n")
    assert asyncio.run(tagged(url)) > 1000
    again = ceqs("log", "retag", **shop)
    assert again.stdout == "orders: the tags are those of the contract, nothing to do\n"

    anew = ceqs("log", "retag", "--anew", "--output", "json", **shop)
    *progress, last = lines(anew.stdout)
    assert last == {"retagged": "orders", "generation": 3, "changed": [], "events": EVENTS}
    assert progress
    assert all(line["retags"] == "orders" and line["of"] == EVENTS for line in progress)


def test_retag_names_what_it_cannot_do(tmp_path: Path, ceqs: Ceqs) -> None:
    env = {"CEQS_CONTEXTS": "shop.orders.context:orders", "CEQS_DATA": str(tmp_path)}
    missing = ceqs("log", "retag", "--output", "json", **env)
    assert (missing.returncode, json.loads(missing.stderr)["error"]) == (1, "LOG_UNAVAILABLE")
    misspelt = ceqs("log", "retag", "order", **env)
    assert (misspelt.returncode, "did you mean orders?" in misspelt.stderr) == (2, True)

    async def beside_a_server() -> subprocess.CompletedProcess[str]:
        log = await open_log(f"sqlite:///{tmp_path}/logs/orders.db", "orders")
        try:
            return await asyncio.to_thread(ceqs, "log", "retag", **env)
        finally:
            await log.close()

    refused = asyncio.run(beside_a_server())
    assert refused.returncode == 2
    assert "is being written by another process" in refused.stderr
    assert "Stop it first" in refused.stderr
