"""The process of an order: all that it takes or nothing, paid in time or lost."""

from __future__ import annotations

import itertools
import random

import pytest
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from ceqs.testing import given
from shop.inventory.context import inventory
from shop.inventory.fulfilment import FulfilOrders
from shop.inventory.v1.commands_pb2 import MoveStockRequest, ReturnStockRequest, SettleOrderRequest
from shop.inventory.v1.events_pb2 import OrderReservationBegun, OrderReservationReleased, StockMoved, StockRefused
from shop.inventory.v1.public_events_pb2 import OrderReserved, OrderUnavailable
from shop.inventory.v1.states_pb2 import Fulfilment
from shop.inventory.v1.types_pb2 import OrderLine
from shop.orders.context import orders
from shop.orders.v1.commands_pb2 import CancelOrderRequest, ConfirmOrderRequest, ExpireOrderRequest
from shop.orders.v1.events_pb2 import OrderCancelled, OrderConfirmed, OrderPaid

BEGUN = OrderReservationBegun(
    order_id="1", lines=[OrderLine(product_code="A", quantity=2), OrderLine(product_code="B", quantity=1)]
)
RELEASED = OrderReservationReleased(order_id="1")
DONE, SHORT = SettleOrderRequest(order_id="1"), SettleOrderRequest(order_id="1", missing=["B"])
PUT_BACK = {code: ReturnStockRequest(product_code=code, order_id="1") for code in "AB"}


def moved(code: str) -> StockMoved:
    return StockMoved(product_code=code, order_id="1")


def refused(code: str) -> StockRefused:
    return StockRefused(product_code=code, order_id="1")


def test_every_product_is_asked_for() -> None:
    given(inventory).hears(BEGUN, by=FulfilOrders).sends(
        MoveStockRequest(product_code="A", order_id="1", quantity=2),
        MoveStockRequest(product_code="B", order_id="1", quantity=1),
    )


def test_an_order_that_takes_nothing_is_fulfilled_at_once() -> None:
    given(inventory).hears(OrderReservationBegun(order_id="1"), by=FulfilOrders).sends(DONE)


def test_an_order_is_fulfilled_when_its_last_product_is_there() -> None:
    given(inventory, BEGUN).hears(moved("A"), by=FulfilOrders).sends()
    given(inventory, BEGUN, moved("A")).hears(moved("B"), by=FulfilOrders).sends(DONE).keeps(
        Fulfilment(order_id="1", moved=["A", "B"])
    )


def test_what_was_moved_goes_back_where_another_product_is_missing() -> None:
    given(inventory, BEGUN, moved("A")).hears(refused("B"), by=FulfilOrders).sends(PUT_BACK["A"], SHORT).keeps(
        Fulfilment()
    )
    given(inventory, BEGUN).hears(refused("B"), by=FulfilOrders).sends()
    given(inventory, BEGUN, refused("B")).hears(moved("A"), by=FulfilOrders).sends(PUT_BACK["A"], SHORT)


def test_a_withdrawn_order_gives_back_what_it_has_and_what_is_still_to_come() -> None:
    done = given(inventory, BEGUN, moved("A"), moved("B"))
    done.hears(RELEASED, by=FulfilOrders).sends(PUT_BACK["A"], PUT_BACK["B"]).keeps(Fulfilment())
    half = given(inventory, BEGUN, moved("A"))
    half.hears(RELEASED, by=FulfilOrders).sends(PUT_BACK["A"])
    late = given(inventory, BEGUN, moved("A"), RELEASED)
    late.hears(moved("B"), by=FulfilOrders).sends(PUT_BACK["B"]).keeps(Fulfilment())


def test_whatever_the_order_of_the_answers_all_is_given_back_that_was_moved_in_vain() -> None:
    dice = random.Random(4)
    codes = [f"P{n}" for n in range(6)]
    begun = OrderReservationBegun(order_id="1", lines=[OrderLine(product_code=code, quantity=1) for code in codes])
    for _ in range(50):
        answers = [(moved if dice.random() < 0.7 else refused)(code) for code in codes]
        dice.shuffle(answers)
        told: list[Message] = [*answers]
        if withdrawn := dice.random() < 0.5:
            told.insert(dice.randrange(len(told) + 1), RELEASED)
        sent: list[Message] = []
        for heard, event in enumerate(told):
            outcome = given(inventory, begun, *told[:heard]).hears(event, by=FulfilOrders)
            sent += itertools.chain.from_iterable(reacted.messages for _, reacted in outcome.reacted)
        lost = withdrawn or any(isinstance(answer, StockRefused) for answer in answers)
        back = [request.product_code for request in sent if isinstance(request, ReturnStockRequest)]
        took = [answer.product_code for answer in answers if isinstance(answer, StockMoved)]
        assert sorted(back) == (sorted(took) if lost else [])
        settled = [request for request in sent if isinstance(request, SettleOrderRequest)]
        assert len(settled) <= 1
        assert settled or withdrawn


def test_what_another_order_took_is_nothing_to_the_process() -> None:
    given(inventory).hears(StockMoved(product_code="A", order_id="2"), by=FulfilOrders).sends().keeps(
        Fulfilment(order_id="2")
    )


def test_orders_confirms_what_is_reserved_and_cancels_what_is_not() -> None:
    given(orders).hears(OrderReserved(order_id="1")).sends(ConfirmOrderRequest(order_id="1"))
    given(orders).hears(OrderUnavailable(order_id="1", missing=["A", "B"])).sends(
        CancelOrderRequest(order_id="1", reason="out of stock: A, B")
    )


@pytest.mark.parametrize("code", ["A" * 64, "\u00e4" * 64])
def test_the_reason_fits_whatever_is_missing(code: str) -> None:
    (command,) = given(orders).hears(OrderUnavailable(order_id="1", missing=[code] * 2000)).reacted[0][1].messages
    assert isinstance(command, CancelOrderRequest)
    assert len(command.reason) <= 200


def test_a_confirmed_order_expires_unless_it_is_paid_or_cancelled() -> None:
    later = Timestamp(seconds=1_900_000_000)
    confirmed = OrderConfirmed(order_id="1", expires_at=later)
    given(orders).hears(confirmed).schedules(ExpireOrderRequest(order_id="1"), key="1", at=later).sends()
    given(orders).hears(OrderConfirmed(order_id="1")).does_nothing()
    given(orders).hears(OrderPaid(order_id="1")).cancels("1").publishes()
    given(orders).hears(OrderCancelled(order_id="1")).cancels("1").sends()
