"""`ceqs parked`, beside a server and a projector that run."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.exc import DBAPIError

from ceqs.cli._output import Output
from ceqs.cli._parking import retry
from ceqs.cli._settings import Settings
from ceqs.contract import tags_of
from ceqs.errors import Misconfigured, NotFound
from ceqs.log import Entry, NewEvent, open_log
from ceqs.projectors import Place, place_of, read_parked
from ceqs.testing import eventually
from shop.orders.v1.events_pb2 import OrderCancelled, OrderPlaced
from shop.orders.v1.orders_ceqs import CONTRACT

Ceqs = Callable[..., subprocess.CompletedProcess[str]]
CONTEXT = '''
"""Orders, with a projection that fails for two of them until a file says that it is mended."""

from pathlib import Path

from shop.orders.context import CustomerHistory, Orders, OrdersContext, Overviews, Queries
from shop.orders.context import CreditNoteFold, OrderFold, ProductFold, ReviewFold, WithdrawalsFold
from shop.orders.sales import Sales


class Fragile(Sales):
    async def on_order_placed(self, session, event, meta):
        if event.order_id in {"2", "3"} and not Path("mended").exists():
            raise ValueError(f"no country of that name: {event.country}")
        await super().on_order_placed(session, event, meta)


orders = OrdersContext(
    commands=Orders(),
    folds=[OrderFold(), CreditNoteFold(), ProductFold(), WithdrawalsFold(), ReviewFold()],
    projections=[Fragile(), CustomerHistory()],
    queries=[Queries(), Overviews()],
)
'''


@pytest.fixture
def env(tmp_path: Path, free_port: int) -> Iterator[dict[str, str]]:
    """Serve and project the fragile orders: 1, 2, 3 and the cancellation of 2."""
    (tmp_path / "fragile.py").write_text(CONTEXT)
    env = {
        "CEQS_CONTEXTS": "fragile:orders",
        "CEQS_ADDRESSES": f"orders=127.0.0.1:{free_port}",
        "CEQS_DATA": str(tmp_path / "data"),
        "CEQS_NATS_URL": "nats://127.0.0.1:1",
        "CEQS_KEY": "secret",
        "PYTHONPATH": str(tmp_path),
    }
    asyncio.run(record(f"sqlite:///{tmp_path}/data/logs/orders.db"))
    roles = [
        subprocess.Popen([sys.executable, "-m", "ceqs.cli", role], cwd=tmp_path, env={**os.environ, **env})
        for role in ("serve", "project")
    ]
    yield env
    for role in roles:
        role.terminate()
    for role in roles:
        role.wait()


async def record(url: str) -> None:
    (Path(url.removeprefix("sqlite:///")).parent).mkdir(parents=True)
    log = await open_log(url, "orders")
    placed = [OrderPlaced(order_id=n, country="Nowhere") for n in "123"]
    events: list[OrderPlaced | OrderCancelled] = [*placed, OrderCancelled(order_id="2", country="Nowhere")]
    for event in events:
        declared = CONTRACT.event(event)
        new = NewEvent(
            id=f"event {event.order_id} {declared.name}",
            type=declared.full_name,
            payload=event.SerializeToString(),
            tags=tags_of(event, declared.tags),
        )
        await log.append(Entry(command_id=new.id, events=(new,)))
    await log.close()


async def all_parked(place: Place) -> None:
    async def three() -> bool:
        try:
            return len(await read_parked(place)) == 3
        except DBAPIError:  # the projector is about to make it
            return False

    await eventually(three, within=60)


def listed(ceqs: Ceqs, env: dict[str, str], *arguments: str) -> list[dict[str, Any]]:
    done = ceqs("parked", "list", *arguments, "-o", "json", **env)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_what_is_parked_is_listed_shown_tried_again_and_skipped(
    ceqs: Ceqs, env: dict[str, str], tmp_path: Path
) -> None:
    place = place_of(f"sqlite:///{tmp_path}/data/models", "orders", "Sales")
    asyncio.run(all_parked(place))
    first, second = listed(ceqs, env)
    assert (first["handler"], first["place"], first["position"], first["waiting"]) == ("Sales", "v1", 2, 1)
    assert (first["type"], first["key"]) == ("shop.orders.v1.OrderPlaced", "order:2")
    assert first["error"] == second["error"] == "ValueError: no country of that name: Nowhere"
    assert listed(ceqs, env, "--limit", "1") == [first, {"more": 1}]
    shown = json.loads(ceqs("parked", "show", "Sales", "2", "-o", "json", **env).stdout)
    assert shown["event"] == {"order_id": "2", "country": "Nowhere"}
    assert any("in on_order_placed" in line for line in shown["trace"])
    assert shown["waiting"] == [4]

    again = ceqs("parked", "retry", "Sales", "2", **env)
    assert (again.returncode, "failed again: ValueError: no country" in again.stdout) == (1, True)

    skipped = ceqs("parked", "skip", "orders/Sales", "3", "--why", "a test order", "--actor", "ann", **env)
    assert skipped.stdout == "orders/Sales v1: OrderPlaced at position 3 skipped\n"
    (record,) = listed(ceqs, env, "--given-up")
    assert (record["position"], record["actor"], record["why"]) == (3, "ann", "a test order")

    (tmp_path / "mended").touch()
    applied = ceqs("parked", "retry", "Sales", "--all", "-o", "json", **env)
    assert (applied.returncode, json.loads(applied.stdout)["outcome"]) == (0, "applied")
    assert asyncio.run(read_parked(place)) == []


@pytest.mark.parametrize(
    ("name", "positions", "every", "said"),
    [
        ("Sale", [1], False, "there is no handler 'Sale'; did you mean Sales?"),
        ("Sales", [], False, "or --all"),
        ("Sales", [1], True, "or --all"),
        ("Sales", [1], False, "orders/Sales has no parked event at position 1"),
    ],
)
async def test_what_cannot_be_done_is_said(
    tmp_path: Path, name: str, positions: list[int], every: bool, said: str
) -> None:
    settings = Settings(contexts=["shop.orders.context:orders"], data=tmp_path)
    with pytest.raises((Misconfigured, NotFound), match=re.escape(said)):
        await retry(settings, name, positions, every=every, wait=1, output=Output.TEXT)
