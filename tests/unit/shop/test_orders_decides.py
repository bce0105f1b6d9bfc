"""What orders decides, rule by rule."""

from __future__ import annotations

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from ceqs.testing import NOW, given
from shop.orders.context import orders
from shop.orders.v1.commands_pb2 import (
    CancelOrderRequest,
    ConfirmOrderRequest,
    ExpireOrderRequest,
    IssueCreditNoteRequest,
    MarkProductAvailableRequest,
    MarkProductDepletedRequest,
    PayOrderRequest,
    PlaceOrderRequest,
)
from shop.orders.v1.events_pb2 import (
    CreditNoteIssued,
    OrderCancelled,
    OrderConfirmed,
    OrderPaid,
    OrderPlaced,
    ProductMarkedAvailable,
    ProductMarkedDepleted,
)
from shop.orders.v1.types_pb2 import Line

LANTERN = Line(product_code="71053", description="WHITE METAL LANTERN", quantity=6, unit_price_micros=3_390_000)
POSTAGE = Line(product_code="POST", description="POSTAGE", quantity=1, unit_price_micros=18_000_000, charge=True)
PLACED = OrderPlaced(
    order_id="536365",
    customer_id="17850",
    country="United Kingdom",
    lines=[LANTERN, POSTAGE],
    total_micros=38_340_000,
    ordered_at=NOW,
    pay_within=Duration(seconds=14 * 24 * 3600),
)
CANCELLED = OrderCancelled(
    order_id="536365",
    customer_id="17850",
    country="United Kingdom",
    lines=[LANTERN, POSTAGE],
    total_micros=38_340_000,
    reason="changed her mind",
    cancelled_at=NOW,
)
CREDITED = CreditNoteIssued(
    credit_note_id="C536379", country="United Kingdom", lines=[LANTERN], total_micros=20_340_000, issued_at=NOW
)
LARGEST = 2**63 - 1


def place(*lines: Line, order_id: str = "536365") -> PlaceOrderRequest:
    return PlaceOrderRequest(order_id=order_id, customer_id="17850", country="United Kingdom", lines=lines)


def credit(*lines: Line) -> IssueCreditNoteRequest:
    return IssueCreditNoteRequest(credit_note_id="C536379", country="United Kingdom", lines=lines)


def test_an_order_is_placed_with_its_exact_total() -> None:
    given(orders).when(place(LANTERN, POSTAGE)).yields(PLACED)


def test_an_order_keeps_the_time_at_which_it_was_ordered() -> None:
    then = Timestamp(seconds=1_291_191_960)
    request = place(LANTERN)
    request.ordered_at.CopyFrom(then)
    outcome = given(orders, now=Timestamp(seconds=1_800_000_000)).when(request)
    assert [event.ordered_at for event in outcome.events if isinstance(event, OrderPlaced)] == [then]


def test_a_customer_without_an_account_may_order() -> None:
    request = place(LANTERN)
    request.ClearField("customer_id")
    assert len(given(orders).when(request).events) == 1


def test_products_that_an_order_repeats_stay_separate_lines() -> None:
    outcome = given(orders).when(place(LANTERN, LANTERN))
    assert [list(event.lines) for event in outcome.events if isinstance(event, OrderPlaced)] == [[LANTERN, LANTERN]]


def test_an_order_is_placed_once() -> None:
    given(orders, PLACED).when(place(LANTERN)).rejects("ORDER_EXISTS")


def test_the_number_of_a_cancelled_order_is_not_free_again() -> None:
    given(orders, PLACED, CANCELLED).when(place(LANTERN)).rejects("ORDER_EXISTS")


def test_another_order_does_not_stand_in_the_way() -> None:
    assert given(orders, PLACED).when(place(LANTERN, order_id="536366")).events


def test_an_order_has_lines() -> None:
    given(orders).when(place()).rejects("NO_LINES")


@pytest.mark.parametrize("quantity", [0, -1, -(2**63)])
def test_an_order_has_positive_quantities(quantity: int) -> None:
    bad = Line(product_code="71053", quantity=quantity, unit_price_micros=3_390_000)
    given(orders).when(place(LANTERN, bad)).rejects("QUANTITY_NOT_POSITIVE")


@pytest.mark.parametrize("price", [0, -1])
def test_an_order_has_positive_prices(price: int) -> None:
    bad = Line(product_code="71053", quantity=1, unit_price_micros=price)
    given(orders).when(place(LANTERN, bad)).rejects("PRICE_NOT_POSITIVE")


def test_the_largest_amount_is_accepted() -> None:
    outcome = given(orders).when(place(Line(product_code="71053", quantity=1, unit_price_micros=LARGEST)))
    assert [event.total_micros for event in outcome.events if isinstance(event, OrderPlaced)] == [LARGEST]


@pytest.mark.parametrize(
    "lines",
    [
        [Line(product_code="71053", quantity=2, unit_price_micros=LARGEST)],
        [Line(product_code="71053", quantity=1, unit_price_micros=LARGEST), Line(product_code="1", quantity=1)],
    ],
)
def test_one_millionth_beyond_the_largest_amount_is_refused(lines: list[Line]) -> None:
    lines[-1].unit_price_micros = lines[-1].unit_price_micros or 1
    given(orders).when(place(*lines)).rejects("AMOUNT_OVERFLOW")


def test_an_order_is_cancelled_with_all_that_it_was() -> None:
    cancel = CancelOrderRequest(order_id="536365", reason="changed her mind")
    given(orders, PLACED).when(cancel).yields(CANCELLED)


def test_an_unknown_order_is_not_cancelled() -> None:
    given(orders).when(CancelOrderRequest(order_id="536365")).rejects("ORDER_UNKNOWN")


def test_a_cancelled_order_is_not_cancelled_again() -> None:
    cancel = CancelOrderRequest(order_id="536365")
    given(orders, PLACED).when(cancel).when(cancel).rejects("ORDER_ALREADY_CANCELLED")


def test_a_credit_note_is_issued_with_its_exact_total() -> None:
    given(orders).when(credit(LANTERN)).yields(CREDITED)


def test_a_credit_note_is_issued_once() -> None:
    given(orders, CREDITED).when(credit(LANTERN)).rejects("CREDIT_NOTE_EXISTS")


def test_a_credit_note_has_lines() -> None:
    given(orders).when(credit()).rejects("NO_LINES")


def test_a_credit_note_has_positive_quantities() -> None:
    given(orders).when(credit(Line(product_code="D", quantity=-1, unit_price_micros=1))).rejects(
        "QUANTITY_NOT_POSITIVE"
    )


def test_a_credit_note_has_positive_prices() -> None:
    given(orders).when(credit(Line(product_code="D", quantity=1))).rejects("PRICE_NOT_POSITIVE")


def test_a_credit_note_does_not_overflow() -> None:
    given(orders).when(credit(Line(product_code="D", quantity=LARGEST, unit_price_micros=2))).rejects("AMOUNT_OVERFLOW")


def test_a_product_is_marked_as_depleted() -> None:
    given(orders).when(MarkProductDepletedRequest(product_code="71053")).yields(
        ProductMarkedDepleted(product_code="71053")
    )


def test_marking_a_product_again_changes_nothing() -> None:
    mark = MarkProductDepletedRequest(product_code="71053")
    given(orders).when(mark).when(mark).changes_nothing()


def test_a_depleted_product_becomes_available_again() -> None:
    given(orders, ProductMarkedDepleted(product_code="71053")).when(
        MarkProductAvailableRequest(product_code="71053")
    ).yields(ProductMarkedAvailable(product_code="71053"))


def test_a_product_that_is_available_stays_so() -> None:
    given(orders).when(MarkProductAvailableRequest(product_code="71053")).changes_nothing()


def test_a_product_runs_out_a_second_time() -> None:
    marked, available = ProductMarkedDepleted(product_code="71053"), ProductMarkedAvailable(product_code="71053")
    given(orders, marked, available).when(MarkProductDepletedRequest(product_code="71053")).yields(marked)


@pytest.mark.parametrize("order_id", ["", "x" * 65, "536\x00365", "536\n365", "\x7f"])
def test_an_order_id_that_is_empty_oversized_or_has_control_characters_is_invalid(order_id: str) -> None:
    given(orders).when(place(LANTERN, order_id=order_id)).is_invalid("order_id")


@pytest.mark.parametrize("order_id", ["*", ">", "a.b", "order 5", "ceqs.>", "Ünïcødé", "536365:1"])
def test_an_order_id_may_look_like_a_subject(order_id: str) -> None:
    assert given(orders).when(place(LANTERN, order_id=order_id)).events


@pytest.mark.parametrize("code", ["", "x" * 65, "710\x0053"])
def test_a_line_with_a_malformed_product_code_is_invalid(code: str) -> None:
    bad = Line(product_code=code, quantity=1, unit_price_micros=1)
    given(orders).when(place(LANTERN, bad)).is_invalid("lines[1].product_code")


def test_an_order_of_too_many_lines_is_invalid() -> None:
    given(orders).when(place(*[LANTERN] * 2001)).is_invalid("lines")


def test_an_order_without_a_country_is_invalid() -> None:
    given(orders).when(PlaceOrderRequest(order_id="1", lines=[LANTERN])).is_invalid("country")


@pytest.mark.parametrize(
    "time",
    [
        Timestamp(seconds=-1),
        Timestamp(seconds=2**40),
        Timestamp(seconds=1, nanos=-1),
        Timestamp(seconds=1, nanos=1_000_000_000),
    ],
)
def test_a_time_outside_the_calendar_is_invalid(time: Timestamp) -> None:
    request = place(LANTERN)
    request.ordered_at.CopyFrom(time)
    given(orders).when(request).is_invalid("ordered_at")


PAID = OrderPaid(order_id="536365", paid_at=NOW)
CONFIRMED = OrderConfirmed(
    order_id="536365", confirmed_at=NOW, expires_at=Timestamp(seconds=NOW.seconds + 14 * 24 * 3600)
)


def test_an_order_is_paid_once() -> None:
    pay = PayOrderRequest(order_id="536365")
    given(orders, PLACED).when(pay).yields(PAID)
    given(orders, PLACED, PAID).when(pay).changes_nothing()
    given(orders, PLACED, CANCELLED).when(pay).rejects("ORDER_ALREADY_CANCELLED")
    given(orders).when(pay).rejects("ORDER_UNKNOWN")


def test_a_confirmed_order_has_its_time_to_be_paid() -> None:
    confirm = ConfirmOrderRequest(order_id="536365")
    given(orders, PLACED).when(confirm).yields(CONFIRMED)
    given(orders, PLACED, PAID).when(confirm).yields(OrderConfirmed(order_id="536365", confirmed_at=NOW))
    given(orders, OrderPlaced(order_id="536365")).when(confirm).yields(CONFIRMED)
    given(orders, PLACED, CONFIRMED).when(confirm).changes_nothing()
    given(orders, PLACED, CANCELLED).when(confirm).changes_nothing()
    given(orders).when(confirm).rejects("ORDER_UNKNOWN")


def test_an_order_that_nobody_paid_expires() -> None:
    expire = ExpireOrderRequest(order_id="536365")
    expired = OrderCancelled()
    expired.CopyFrom(CANCELLED)
    expired.reason = "not paid in time"
    given(orders, PLACED, CONFIRMED).when(expire).yields(expired)
    given(orders, PLACED, CONFIRMED, PAID).when(expire).changes_nothing()
    given(orders, PLACED, CANCELLED).when(expire).changes_nothing()
    given(orders).when(expire).rejects("ORDER_UNKNOWN")


@pytest.mark.parametrize("seconds", [0, -1, 31_622_401])
def test_the_time_to_pay_is_positive_and_at_most_a_year(seconds: int) -> None:
    request = place(LANTERN)
    request.pay_within.seconds = seconds
    given(orders).when(request).is_invalid("pay_within")
