"""Every query of the shop, as of any moment, answers what a fresh system answers that has seen as much."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.message import Message

from ceqs.contract import QueryRpc, bucket_of, new_id, tags_of
from ceqs.errors import NotFound, Rejected
from ceqs.log import Entry, Log, NewEvent, open_log
from ceqs.model import Context
from ceqs.projectors import ModelReader, Past, fill, place_of
from ceqs.queries import Answers, QueryCall, States
from ceqs.server import CommandCall, CommandExecutor
from ceqs.v1.events_pb2 import RecordedEvent
from shop.inventory.context import inventory
from shop.inventory.v1 import commands_pb2 as stock
from shop.inventory.v1.types_pb2 import AdjustmentReason
from shop.orders.context import orders
from shop.orders.v1 import commands_pb2 as sales
from shop.orders.v1.types_pb2 import Line

CODES, CUSTOMERS = ("22423", "85123A", "POST"), ("", "17850", "13047")


def order_commands(dice: random.Random) -> Iterator[Message]:
    while True:
        number = str(dice.randint(1, 40))
        lines = [
            Line(product_code=code, description=f"A {code}", quantity=dice.randint(1, 9), unit_price_micros=10**6)
            for code in dice.sample(CODES, dice.randint(1, 3))
        ]
        about: dict[str, Any] = {"customer_id": dice.choice(CUSTOMERS), "country": dice.choice(("France", "Eire"))}
        yield dice.choice(
            (
                sales.PlaceOrderRequest(order_id=number, lines=lines, **about),
                sales.PlaceOrderRequest(order_id=number, lines=lines, **about),
                sales.CancelOrderRequest(order_id=number),
                sales.PayOrderRequest(order_id=number),
                sales.ConfirmOrderRequest(order_id=number),
                sales.IssueCreditNoteRequest(credit_note_id=f"C{number}", lines=lines, **about),
                sales.MarkProductDepletedRequest(product_code=lines[0].product_code),
                sales.MarkProductAvailableRequest(product_code=lines[0].product_code),
            )
        )


def stock_commands(dice: random.Random) -> Iterator[Message]:
    while True:
        code, number = dice.choice(CODES), str(dice.randint(1, 20))
        yield dice.choice(
            (
                stock.ReceiveStockRequest(product_code=code, description=code, quantity=dice.randint(1, 20)),
                stock.MoveStockRequest(product_code=code, order_id=number, quantity=dice.randint(1, 9)),
                stock.ReturnStockRequest(product_code=code, order_id=number),
                stock.AdjustStockRequest(
                    product_code=code,
                    quantity=dice.randint(-3, 3),
                    unit_value_micros=10**6,
                    reason=AdjustmentReason.ADJUSTMENT_REASON_COUNTED,
                ),
            )
        )


SHOP = {"orders": (orders, order_commands), "inventory": (inventory, stock_commands)}


def _says(call: CommandCall, _: Message) -> CommandCall:
    return call


async def record(context: Context, log: Log, commands: Iterator[Message], events: int) -> None:
    executor = CommandExecutor(context, log, States(context, log))
    while (await log.head()).position < events:
        command = next(commands)
        try:
            # Nobody guards them here: gatekeepers would ask queries of a server.
            call = CommandCall(command_id=new_id())
            await executor.submit(
                context.contract.command_of(command), command.SerializeToString(), partial(_says, call)
            )
        except Rejected:
            continue


def asked(rpc: QueryRpc, dice: random.Random) -> Message:
    """Ask about anything that may be there."""
    values: Mapping[str, Any] = {
        "order_id": str(dice.randint(1, 40)),
        "credit_note_id": f"C{dice.randint(1, 40)}",
        "product_code": dice.choice(CODES),
        "customer_id": dice.choice(CUSTOMERS[1:]),
        "page_size": dice.randint(1, 5),
        "top": 3,
    }
    named = rpc.request.DESCRIPTOR.fields_by_name
    given = {name: value for name, value in values.items() if name in named}
    return rpc.request(**{name: [value] if named[name].is_repeated else value for name, value in given.items()})


async def answered(answers: Answers, rpc: QueryRpc, request: Message, call: QueryCall) -> Message | None:
    """Give the answer without its age."""
    try:
        response = (await answers.answer(rpc, request, call)).response
    except NotFound:
        return None
    for name in filter(None, (rpc.age_field, rpc.parts_field)):
        response.ClearField(name)
    return response


@asynccontextmanager
async def fresh(context: Context, log: Log, url: str, position: int) -> AsyncIterator[Answers]:
    """Give a system that has seen nothing but the first events."""
    copy = await open_log("memory:", context.name)
    for stored in (await log.read(until=position)).events:
        event = RecordedEvent.FromString(stored.envelope)
        kind = context.contract.events[event.type]
        tags = tags_of(kind.message.FromString(event.payload), kind.tags)
        new = NewEvent(id=event.id, type=event.type, payload=event.payload, tags=tags, bucket=bucket_of(kind, tags))
        await copy.append(Entry(command_id=event.id, events=(new,)))
    models: dict[str, ModelReader] = {}
    for name, projection in context.projections.items():
        place = place_of(url, f"fresh_{position}", name)
        await fill(place, projection, context.decoder, copy, position)
        models[name] = ModelReader(place)
    yield Answers(context, copy, States(context, copy), models)
    for model in models.values():
        await model.close()
    await copy.close()


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    found: str = request.getfixturevalue("postgres") if request.param == "postgres" else f"sqlite:///{tmp_path}"
    return found


@pytest.mark.parametrize("name", SHOP)
async def test_every_query_answers_as_of_any_moment_as_a_fresh_system_does(name: str, url: str) -> None:
    context, commands = SHOP[name]
    dice = random.Random(12)
    log = await open_log("memory:", name)
    events, moments = (120, 6) if url.startswith("sqlite") else (40, 2)
    await record(context, log, commands(dice), events)
    past = {name: Past(projection, context.decoder, log, url) for name, projection in context.projections.items()}
    # The present is not asked: without a model of it, nothing can come from there.
    absent = {name: ModelReader(place_of(url, "absent", name)) for name in context.projections}
    answers = Answers(context, log, States(context, log), absent, past=past)
    try:
        for position in [0, *dice.sample(range(1, events), moments), events]:
            async with fresh(context, log, url, position) as seen_as_much:
                for rpc in context.contract.queries.values():
                    if rpc.streaming:
                        continue
                    for _ in range(3):
                        asking, call = asked(rpc, dice), QueryCall(as_of={log.log_id: position})
                        then = await answered(answers, rpc, asking, call)
                        assert then == await answered(seen_as_much, rpc, asking, QueryCall()), (rpc.name, position)
    finally:
        for one in past.values():
            await one.close()
        for model in absent.values():
            await model.close()
        await log.close()
