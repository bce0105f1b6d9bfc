"""`ceqs outbox`, beside a server and a projector."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import os
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from ceqs.cli._output import Output
from ceqs.cli._placing import list_places
from ceqs.cli._roles import project, serve
from ceqs.cli._sending import Which, list_calls, list_timers, retry, show_call, skip
from ceqs.cli._settings import Settings
from ceqs.cli._standing import show_standing
from ceqs.errors import CeqsError, Misconfigured, NotFound, Unavailable
from ceqs.projectors import REFUSED, Outcome, Timer, place_of, read_calls
from ceqs.projectors._outbox import REJECTED, Outgoing, enqueue
from ceqs.projectors._store import Store
from ceqs.projectors._timers import set_timers
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


async def test_an_operator_is_told_of_what_was_refused_and_how_to_see_to_it(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    async with OrdersClient(settings.addresses["orders"]) as orders:
        await orders.mark_product_depleted(MarkProductDepletedRequest(product_code="1"))
    said = list[str]()

    async def told() -> bool:
        said.append(capsys.readouterr().out)
        return "kept for somebody to see to: ceqs outbox list" in "".join(said)

    await eventually(told)
    assert "orders/cancel-it" in "".join(said)
    assert "ORDER_UNKNOWN" in "".join(said)

    async def counted() -> bool:
        await show_standing(settings, ["cancel-it"], Output.JSON)
        said[:] = [line for line in capsys.readouterr().out.splitlines() if line.startswith('{"context"')]
        return bool(json.loads(said[0])["refused"])

    await eventually(counted)
    (stands,) = map(json.loads, said)
    assert (stands["handler"], stands["position"], stands["lag"], stands["unsent"]) == ("cancel-it", 1, 0, 0)
    assert stands["run_by"].startswith(f"process {os.getpid()} on ")
    await show_standing(settings, [], Output.TEXT)
    assert "1 refused\n    see: ceqs outbox list orders/cancel-it" in capsys.readouterr().out


async def test_a_long_outbox_is_counted_and_its_beginning_is_read(tmp_path: Path, capsys: Any) -> None:
    settings = Settings(contexts=["shop.orders.context:orders"], data=tmp_path)
    place = place_of(settings.models_url, "orders", "note-stock")
    calls = [Outgoing(request_id=f"id{n}", path="/shop.orders.v1.Orders/X", request=b"", keys=["k"]) for n in range(30)]
    async with Store.open(place, "inventory") as store:
        async with store.amend(paused="") as session:
            await enqueue(session, calls)
        await store.outbox.settle([(n, "path", Outcome(REJECTED, "NO")) for n in range(1, 26)])
    assert [call.number for call in await read_calls(place, REFUSED, limit=2)] == [1, 2]
    assert [call.number for call in await read_calls(place, request_id="id29")] == [30]
    await list_calls(settings, [], Which.REFUSED, 3, Output.JSON)
    *listed, more = map(json.loads, capsys.readouterr().out.splitlines())
    assert ([one["number"] for one in listed], more) == ([1, 2, 3], {"more": 22})
    await list_calls(settings, ["note-stock"], Which.WAITING, 10, Output.TEXT)
    assert len(capsys.readouterr().out.splitlines()) == 5


async def test_timers_are_listed_by_their_time(tmp_path: Path, capsys: Any) -> None:
    settings = Settings(contexts=["shop.orders.context:orders"], data=tmp_path)
    noon = dt.datetime(2030, 1, 1, 12, tzinfo=dt.UTC)
    place = place_of(settings.models_url, "orders", "expire-orders")
    async with Store.open(place, "orders") as store, store.amend(paused="") as session:
        for key, hours in (("later", 2), ("first", 0), ("second", 1)):
            call = Outgoing(request_id=key, path="/shop.orders.v1.OrderCommandsService/ExpireOrder", request=b"")
            await set_timers(session, [Timer(key, "", call, noon + dt.timedelta(hours=hours))])
    await list_timers(settings, [], 2, Output.JSON)
    *timers, more = map(json.loads, capsys.readouterr().out.splitlines())
    assert [(one["key"], one["due"]) for one in timers] == [
        ("first", "2030-01-01T12:00:00+00:00"),
        ("second", "2030-01-01T13:00:00+00:00"),
    ]
    assert more == {"more": 1}
    await list_timers(settings, ["expire-orders"], 10, Output.TEXT)
    assert "orders/expire-orders v1  2030-01-01 12:00:00  ExpireOrder              first" in capsys.readouterr().out
    await list_timers(settings, ["note-stock"], 10, Output.TEXT)
    assert capsys.readouterr().out == "no timer is set\n"


async def test_handlers_that_nobody_runs_yet_are_said_to_be_missing(tmp_path: Path, capsys: Any) -> None:
    settings = Settings(contexts=["shop.orders.context:orders"], data=tmp_path)
    await show_standing(settings, ["publish-orders"], Output.TEXT)
    assert capsys.readouterr().out.split() == ["orders/publish-orders", "0", "head", "unknown", "nobody", "runs", "it"]
    with pytest.raises(Misconfigured, match="did you mean publish-orders"):
        await show_standing(settings, ["publish-order"], Output.TEXT)


async def test_a_database_that_is_down_hides_no_other(tmp_path: Path, capsys: Any) -> None:
    nowhere = "postgresql://nobody@127.0.0.1:1/nothing"
    settings = Settings(
        contexts=["shop.orders.context:orders"],
        data=tmp_path,
        model_urls={"Sales": nowhere, "note-stock": nowhere},
    )
    place = place_of(settings.models_url, "orders", "review-orders")
    async with Store.open(place, "orders") as store, store.amend(paused="") as session:
        await enqueue(session, [Outgoing(request_id="id", path="/s/ReviewOrder", request=b"")])
    with pytest.raises(Unavailable, match="1 of 2 projections cannot be reached"):
        await list_places(settings, [], Output.TEXT)
    assert re.search("orders/Sales .* cannot be reached", said := capsys.readouterr().out)
    assert "orders/CustomerHistory" in said
    with pytest.raises(Unavailable, match="the places of note-stock of the context orders cannot be reached"):
        await list_calls(settings, [], Which.WAITING, 10, Output.TEXT)
    assert "ReviewOrder" in capsys.readouterr().out
    await show_standing(settings, [], Output.TEXT)
    said = capsys.readouterr().out
    assert re.search("orders/note-stock .*\n    paused: its place cannot be reached", said)
    assert "orders/review-orders" in said


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
