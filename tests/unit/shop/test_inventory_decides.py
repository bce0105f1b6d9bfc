"""What inventory decides, rule by rule."""

from __future__ import annotations

import pytest

from ceqs.testing import given
from shop.inventory.context import inventory
from shop.inventory.v1.commands_pb2 import (
    AdjustStockRequest,
    MoveStockRequest,
    ReceiveStockRequest,
    ReceiveStockResponse,
    ReleaseOrderRequest,
    ReserveOrderRequest,
    ReturnStockRequest,
    SettleOrderRequest,
)
from shop.inventory.v1.events_pb2 import (
    OrderReservationBegun,
    OrderReservationCompleted,
    OrderReservationFailed,
    OrderReservationReleased,
    ProductDepleted,
    ProductReplenished,
    StockAdjusted,
    StockMoved,
    StockReceived,
    StockRefused,
    StockReturned,
)
from shop.inventory.v1.types_pb2 import AdjustmentReason, OrderLine

CODE = "71053"
LARGEST = 2**63 - 1
TEN = StockReceived(product_code=CODE, quantity=10)
MOVED = StockMoved(product_code=CODE, order_id="1", quantity=4)
RETURNED = StockReturned(product_code=CODE, order_id="1", quantity=4)
DEPLETED = ProductDepleted(product_code=CODE)


def receive(quantity: int) -> ReceiveStockRequest:
    return ReceiveStockRequest(product_code=CODE, quantity=quantity)


def move(quantity: int, order_id: str = "1") -> MoveStockRequest:
    return MoveStockRequest(product_code=CODE, order_id=order_id, quantity=quantity)


def put_back(order_id: str = "1") -> ReturnStockRequest:
    return ReturnStockRequest(product_code=CODE, order_id=order_id)


def adjust(quantity: int, value: int = 0) -> AdjustStockRequest:
    return AdjustStockRequest(product_code=CODE, quantity=quantity, unit_value_micros=value)


def test_a_receipt_answers_with_what_is_there() -> None:
    given(inventory, TEN).when(receive(5)).yields(StockReceived(product_code=CODE, quantity=5)).answers(
        ReceiveStockResponse(on_hand=15)
    )


def test_the_first_receipt_is_no_replenishment() -> None:
    given(inventory).when(receive(10)).yields(TEN)


def test_a_receipt_of_a_depleted_product_replenishes_it() -> None:
    given(inventory, TEN).when(move(10)).when(receive(3)).yields(
        StockReceived(product_code=CODE, quantity=3), ProductReplenished(product_code=CODE, on_hand=3)
    )


@pytest.mark.parametrize("quantity", [0, -1])
def test_a_receipt_has_a_positive_quantity(quantity: int) -> None:
    given(inventory).when(receive(quantity)).rejects("QUANTITY_NOT_POSITIVE")


def test_the_largest_stock_is_accepted() -> None:
    assert given(inventory, TEN).when(receive(LARGEST - 10)).events


def test_one_unit_beyond_the_largest_stock_is_refused() -> None:
    given(inventory, TEN).when(receive(LARGEST - 9)).rejects("STOCK_OVERFLOW")


def test_an_order_moves_stock() -> None:
    given(inventory, TEN).when(move(4)).yields(MOVED)


def test_the_last_unit_depletes_the_product() -> None:
    given(inventory, TEN).when(move(10)).yields(StockMoved(product_code=CODE, order_id="1", quantity=10), DEPLETED)


def test_an_order_moves_a_product_once() -> None:
    given(inventory, TEN, MOVED).when(move(4)).changes_nothing()


def test_a_move_has_a_positive_quantity() -> None:
    given(inventory, TEN).when(move(0)).rejects("QUANTITY_NOT_POSITIVE")


def test_an_unknown_product_is_refused() -> None:
    given(inventory).when(move(1)).yields(StockRefused(product_code=CODE, order_id="1", quantity=1))


def test_an_order_does_not_take_more_than_there_is() -> None:
    refused = StockRefused(product_code=CODE, order_id="2", quantity=7)
    given(inventory, TEN, MOVED).when(move(7, order_id="2")).yields(refused)


def test_a_withdrawn_order_gives_back_what_it_moved() -> None:
    given(inventory, TEN, MOVED).when(put_back()).yields(RETURNED)


def test_what_comes_back_replenishes_a_depleted_product() -> None:
    given(inventory, TEN).when(move(10)).when(put_back()).yields(
        StockReturned(product_code=CODE, order_id="1", quantity=10), ProductReplenished(product_code=CODE, on_hand=10)
    )


def test_a_withdrawn_order_gives_back_once() -> None:
    given(inventory, TEN, MOVED, RETURNED).when(put_back()).changes_nothing()


def test_a_withdrawn_order_moves_nothing_any_more() -> None:
    given(inventory, TEN, MOVED, RETURNED).when(move(4)).changes_nothing()


def test_an_order_that_moved_nothing_gives_nothing_back() -> None:
    given(inventory, TEN, MOVED).when(put_back("2")).rejects("NOTHING_MOVED")


def test_a_return_names_a_known_product() -> None:
    given(inventory).when(put_back()).rejects("PRODUCT_UNKNOWN")


def test_a_return_does_not_overflow_the_stock() -> None:
    full = StockReceived(product_code=CODE, quantity=LARGEST - 6)
    given(inventory, TEN, MOVED, full).when(put_back()).rejects("STOCK_OVERFLOW")


@pytest.mark.parametrize("quantity", [7, -7])
def test_a_count_corrects_the_books_both_ways(quantity: int) -> None:
    given(inventory, TEN).when(adjust(quantity, 250_000)).yields(
        StockAdjusted(
            product_code=CODE,
            quantity=quantity,
            unit_value_micros=250_000,
            reason=AdjustmentReason.ADJUSTMENT_REASON_COUNTED,
        )
    )


def test_a_count_of_nothing_depletes_the_product() -> None:
    assert given(inventory, TEN).when(adjust(-10)).events[1:] == (DEPLETED,)


def test_what_a_count_finds_replenishes_a_depleted_product() -> None:
    given_events = given(inventory, TEN).when(adjust(-10)).when(adjust(2)).events
    assert given_events[1:] == (ProductReplenished(product_code=CODE, on_hand=2),)


def test_an_adjustment_adjusts_something() -> None:
    given(inventory, TEN).when(adjust(0)).rejects("QUANTITY_ZERO")


def test_an_adjustment_names_a_known_product() -> None:
    given(inventory).when(adjust(1)).rejects("PRODUCT_UNKNOWN")


def test_no_more_is_missing_than_there_was() -> None:
    given(inventory, TEN).when(adjust(-11)).rejects("STOCK_WOULD_BE_NEGATIVE")


def test_an_adjustment_does_not_overflow_the_stock() -> None:
    given(inventory, TEN).when(adjust(LARGEST)).rejects("STOCK_OVERFLOW")


def test_no_unit_is_worth_less_than_nothing() -> None:
    given(inventory, TEN).when(adjust(1, -1)).rejects("VALUE_NEGATIVE")


@pytest.mark.parametrize("quantity", [2, -2])
def test_the_value_of_an_adjustment_does_not_overflow(quantity: int) -> None:
    given(inventory, TEN).when(adjust(quantity, 2**62)).rejects("AMOUNT_OVERFLOW")


def test_an_unknown_reason_is_invalid() -> None:
    request = adjust(1)
    request.MergeFromString(b"\x20\x63")  # reason = 99, as a newer client might send it
    given(inventory, TEN).when(request).is_invalid("reason")


@pytest.mark.parametrize("code", ["", "x" * 65, "710\x0053"])
def test_a_malformed_product_code_is_invalid(code: str) -> None:
    given(inventory).when(ReceiveStockRequest(product_code=code, quantity=1)).is_invalid("product_code")


BEGUN = OrderReservationBegun(order_id="1", lines=[OrderLine(product_code=CODE, quantity=4)])
COMPLETED = OrderReservationCompleted(order_id="1")
FAILED = OrderReservationFailed(order_id="1", missing=[CODE])
RELEASED = OrderReservationReleased(order_id="1")


def test_an_order_is_reserved_once() -> None:
    reserve = ReserveOrderRequest(order_id="1", lines=BEGUN.lines)
    given(inventory).when(reserve).yields(BEGUN)
    given(inventory, BEGUN).when(reserve).changes_nothing()
    twice = ReserveOrderRequest(order_id="1", lines=[*BEGUN.lines, *BEGUN.lines])
    given(inventory).when(twice).rejects("PRODUCT_TWICE")
    given(inventory).when(ReserveOrderRequest(order_id="1", lines=[OrderLine(product_code=CODE)])).is_invalid(
        "lines[0].quantity"
    )


def test_what_became_of_a_reservation_is_said_once() -> None:
    given(inventory, BEGUN).when(SettleOrderRequest(order_id="1")).yields(COMPLETED)
    given(inventory, BEGUN).when(SettleOrderRequest(order_id="1", missing=[CODE])).yields(FAILED)
    for end in (COMPLETED, FAILED, RELEASED):
        given(inventory, BEGUN, end).when(SettleOrderRequest(order_id="1")).changes_nothing()
    given(inventory).when(SettleOrderRequest(order_id="1")).rejects("ORDER_UNKNOWN")


def test_an_order_that_has_stock_or_waits_for_it_is_released() -> None:
    release = ReleaseOrderRequest(order_id="1")
    given(inventory, BEGUN).when(release).yields(RELEASED)
    given(inventory, BEGUN, COMPLETED).when(release).yields(RELEASED)
    given(inventory, BEGUN, FAILED).when(release).changes_nothing()
    given(inventory, BEGUN, RELEASED).when(release).changes_nothing()
    given(inventory).when(release).rejects("ORDER_UNKNOWN")
