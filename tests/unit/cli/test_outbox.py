"""`ceqs outbox`, beside a server and a projector."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from ceqs.cli._output import Output
from ceqs.cli._roles import project, serve
from ceqs.cli._sending import Which, list_calls, retry, show_call, skip
from ceqs.cli._settings import Settings
from ceqs.errors import CeqsError, Misconfigured, NotFound, Unavailable
from ceqs.projectors import place_of, read_calls
from ceqs.testing import eventually
from shop.orders.v1.commands_pb2 import CancelOrderRequest, MarkProductDepletedRequest
from shop.orders.v1.orders_client import OrdersClient

CONTEXT = '''
"""Orders, where everything that runs out has its order cancelled."""

from shop.orders.context import CreditNoteFold, OrderFold, Orders, OrdersContext, Overviews, ProductFold, Queries
from shop.orders.context import CustomerHistory, ReviewFold, Sales, WithdrawalsFold
from shop.orders.v1.commands_pb2 import CancelOrderRequest
from shop.orders.v1.orders_ceqs import OrdersPrivateSubscriber


class CancelIt(OrdersPrivateSubscriber):
    def on_product_marked_depleted(self, event, ctx):
        yield CancelOrderRequest(order_id=event.product_code, reason="out of stock")


orders = OrdersContext(
    commands=Orders(),
    folds=[OrderFold(), CreditNoteFold(), ProductFold(), WithdrawalsFold(), ReviewFold()],
    projections=[Sales(), CustomerHistory()],
    subscribers=[CancelIt()],
    queries=[Queries(), Overviews()],
)
'''


@pytest.fixture
async def settings(tmp_path: Path, free_port: int) -> AsyncIterator[Settings]:
    (tmp_path / "cancelling.py").write_text(CONTEXT)
    settings = Settings(
        contexts=["cancelling:orders"],
        addresses={"orders": f"127.0.0.1:{free_port}"},
        data=tmp_path / "data",
        nats_url="nats://127.0.0.1:1",
        key="secret",
        project=tmp_path,
    )
    running = [asyncio.create_task(role(settings, [], lambda *_: None)) for role in (serve, project)]
    yield settings
    for one in running:
        one.cancel()
    await asyncio.gather(*running, return_exceptions=True)


async def listed(settings: Settings, capsys: pytest.CaptureFixture[str], which: Which) -> list[dict[str, Any]]:
    capsys.readouterr()
    await list_calls(settings, [], which, 10, Output.JSON)
    return [json.loads(line) for line in capsys.readouterr().out.splitlines() if line.startswith("{")]


async def test_what_was_refused_is_listed_shown_sent_again_and_skipped(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    place = place_of(settings.models_url, "orders", "cancel-it")

    async def refused(count: int) -> bool:
        return sum(call.refused for call in await read_calls(place)) == count

    async with OrdersClient(settings.addresses["orders"]) as orders:
        for code in ("1", "2"):
            await orders.mark_product_depleted(MarkProductDepletedRequest(product_code=code))
        await eventually(lambda: refused(2))
        first, second = await listed(settings, capsys, Which.REFUSED)
        assert (first["handler"], first["position"], first["keys"]) == ("cancel-it", 1, ["order:1"])
        assert first["outcome"] == "rejected ORDER_UNKNOWN"
        await show_call(settings, "cancel-it", first["number"], Output.JSON)
        shown = json.loads(capsys.readouterr().out.splitlines()[-1])
        assert shown["request"] == {"order_id": "1", "reason": "out of stock"}

        with pytest.raises(Unavailable, match="1 of 1 were refused again"):
            await retry(settings, "cancel-it", [first["number"]], every=False, wait=20, output=Output.JSON)
        later, again = await listed(settings, capsys, Which.REFUSED)
        assert (later["number"], again["id"]) == (second["number"], first["id"])

        await skip(settings, "cancel-it", [later["number"]], why="a test", actor="ann", wait=20, output=Output.JSON)
        (skipped,) = await listed(settings, capsys, Which.SKIPPED)
        assert (skipped["id"], skipped["actor"], skipped["why"]) == (second["id"], "ann", "a test")
        assert skipped["outcome"] == "skipped ORDER_UNKNOWN"

        await place_order(orders)
        await retry(settings, "cancel-it", [], every=True, wait=20, output=Output.JSON)
        assert json.loads(capsys.readouterr().out.splitlines()[-1])["outcome"] == "accepted"
        assert await listed(settings, capsys, Which.REFUSED) == []
        with pytest.raises(CeqsError, match="was cancelled before"):
            await orders.cancel_order(CancelOrderRequest(order_id="1", reason="again"))


async def place_order(orders: OrdersClient) -> None:
    from google.protobuf.timestamp_pb2 import Timestamp

    from shop.orders.v1.commands_pb2 import PlaceOrderRequest
    from shop.orders.v1.types_pb2 import Line

    line = Line(product_code="x", quantity=1, unit_price_micros=1)
    await orders.place_order(
        PlaceOrderRequest(order_id="1", lines=[line], country="Nowhere", ordered_at=Timestamp(seconds=1))
    )


@pytest.mark.parametrize(
    ("numbers", "every", "said"),
    [
        ([], False, "or --all"),
        ([1], True, "or --all"),
        ([1], False, "orders/note-stock has nothing under the number 1"),
    ],
)
async def test_what_cannot_be_done_is_said(tmp_path: Path, numbers: list[int], every: bool, said: str) -> None:
    settings = Settings(contexts=["shop.orders.context:orders"], data=tmp_path)
    with pytest.raises((Misconfigured, NotFound), match=re.escape(said)):
        await retry(settings, "note-stock", numbers, every=every, wait=1, output=Output.TEXT)
