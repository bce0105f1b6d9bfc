"""The projections of orders, filled by their handlers and read by its queries, on a real database."""

from __future__ import annotations

import datetime as dt
from collections.abc import AsyncIterator

import pytest
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

from ceqs.model import Projection, Recorded
from shop.orders.customer_history import CustomerHistory
from shop.orders.queries import Queries
from shop.orders.sales import Sales
from shop.orders.v1.events_pb2 import CreditNoteIssued, OrderCancelled, OrderPlaced
from shop.orders.v1.queries_pb2 import (
    GetSalesRequest,
    HistoryEntry,
    ListCustomerHistoryRequest,
    ListProductSalesRequest,
    ProductSales,
    ProductSalesOrder,
    SalesSums,
)
from shop.orders.v1.types_pb2 import Line

POUND = 1_000_000
AT = Timestamp(seconds=1_291_191_960)


def line(code: str, quantity: int, pounds: int, *, charge: bool = False) -> Line:
    return Line(
        product_code=code, description=f"A {code}", quantity=quantity, unit_price_micros=pounds * POUND, charge=charge
    )


def placed(order_id: str, *lines: Line, country: str = "France", customer_id: str = "") -> OrderPlaced:
    total = sum(line.quantity * line.unit_price_micros for line in lines)
    return OrderPlaced(
        order_id=order_id, country=country, customer_id=customer_id, lines=lines, total_micros=total, ordered_at=AT
    )


def cancelled(order: OrderPlaced) -> OrderCancelled:
    return OrderCancelled(
        order_id=order.order_id,
        country=order.country,
        customer_id=order.customer_id,
        lines=order.lines,
        total_micros=order.total_micros,
    )


def credited(number: str, *lines: Line, country: str = "France", customer_id: str = "") -> CreditNoteIssued:
    total = sum(line.quantity * line.unit_price_micros for line in lines)
    return CreditNoteIssued(
        credit_note_id=number, country=country, customer_id=customer_id, lines=lines, total_micros=total, issued_at=AT
    )


@pytest.fixture
async def session() -> AsyncIterator[AsyncSession]:
    engine = create_async_engine("sqlite+aiosqlite://")
    async with engine.begin() as connection:
        await connection.run_sync(Sales.metadata.create_all)
        await connection.run_sync(CustomerHistory.metadata.create_all)
    async with AsyncSession(engine) as session:
        yield session
    await engine.dispose()


async def project(session: AsyncSession, projection: Projection, *events: Message) -> None:
    """Do what the projector does: events in order, each in a transaction."""
    for position, event in enumerate(events, start=1):
        meta = Recorded(
            event_id=str(position),
            type=event.DESCRIPTOR.full_name,
            position=position,
            public_position=0,
            recorded_at=dt.datetime(2010, 12, 1, tzinfo=dt.UTC),
        )
        heard = projection.ceqs_heard().get(event.DESCRIPTOR.full_name)
        if heard:
            await heard(session, event, meta)
            await session.commit()


async def test_sales_add_up_by_country_with_the_highest_first(session: AsyncSession) -> None:
    await project(
        session,
        Sales(),
        placed("1", line("A", 2, 3), line("A", 1, 3), line("POST", 1, 1, charge=True)),
        placed("2", line("B", 1, 50), country="Norway"),
        placed("3", line("A", 1, 3)),
        credited("C1", line("A", 1, 3)),
        credited("C2", line("D", 1, 5, charge=True), country="Japan"),
    )
    answer = await Queries().get_sales(GetSalesRequest(), session)
    assert [country.country for country in answer.countries] == ["Norway", "France", "Japan"]
    assert answer.countries[1].sums == SalesSums(
        orders=2,
        order_lines=4,
        sold_micros=13 * POUND,
        credit_notes=1,
        credit_lines=1,
        credited_micros=3 * POUND,
    )
    assert answer.total == SalesSums(
        orders=3,
        order_lines=5,
        sold_micros=63 * POUND,
        credit_notes=2,
        credit_lines=2,
        credited_micros=8 * POUND,
    )


async def test_a_cancelled_order_counts_nowhere(session: AsyncSession) -> None:
    order = placed("1", line("A", 2, 3), line("B", 1, 1))
    await project(session, Sales(), order, placed("2", line("B", 1, 1)), cancelled(order))
    answer = await Queries().get_sales(GetSalesRequest(), session)
    assert answer.total == SalesSums(orders=1, order_lines=1, sold_micros=POUND)
    assert [product.product_code for product in answer.top_products] == ["B"]


async def test_the_top_products_are_the_best_sold_without_charges(session: AsyncSession) -> None:
    await project(
        session,
        Sales(),
        placed("1", line("A", 2, 3), line("POST", 1, 100, charge=True), line("B", 1, 7), line("C", 7, 1)),
    )
    answer = await Queries().get_sales(GetSalesRequest(top=2), session)
    assert [product.product_code for product in answer.top_products] == ["B", "C"]


async def test_sales_by_product_come_in_pages(session: AsyncSession) -> None:
    await project(
        session,
        Sales(),
        placed("1", line("C", 1, 3), line("A", 2, 1), line("B", 1, 1)),
        credited("C1", line("A", 1, 1)),
    )
    first = await Queries().list_product_sales(ListProductSalesRequest(page_size=2), session)
    assert list(first.products) == [
        ProductSales(
            product_code="A",
            description="A A",
            sold_quantity=2,
            sold_micros=2 * POUND,
            credited_quantity=1,
            credited_micros=POUND,
        ),
        ProductSales(product_code="B", description="A B", sold_quantity=1, sold_micros=POUND),
    ]
    last = await Queries().list_product_sales(
        ListProductSalesRequest(page_size=2, page_token=first.next_page_token), session
    )
    assert [product.product_code for product in last.products] == ["C"]
    assert last.next_page_token == ""


async def test_sales_by_product_come_in_the_order_that_is_asked_for_and_with_charges_or_without(
    session: AsyncSession,
) -> None:
    post = Line(product_code="POST", quantity=1, unit_price_micros=9, charge=True)
    await project(session, Sales(), placed("1", line("A", 1, 1), line("B", 1, 3), line("C", 1, 3), post))
    best_first = ProductSalesOrder.PRODUCT_SALES_ORDER_SOLD
    answer = await Queries().list_product_sales(ListProductSalesRequest(order=best_first, charge=False), session)
    assert [product.product_code for product in answer.products] == ["B", "C", "A"]
    answer = await Queries().list_product_sales(ListProductSalesRequest(charge=True), session)
    assert [product.product_code for product in answer.products] == ["POST"]


async def test_a_page_that_ends_with_the_last_product_is_the_last_page(session: AsyncSession) -> None:
    await project(session, Sales(), placed("1", line("A", 1, 1), line("B", 1, 1)))
    answer = await Queries().list_product_sales(ListProductSalesRequest(page_size=2), session)
    assert (len(answer.products), answer.next_page_token) == (2, "")


async def test_a_product_keeps_its_name_when_an_invoice_leaves_it_out(session: AsyncSession) -> None:
    nameless = line("A", 1, 1)
    nameless.description = ""
    await project(session, Sales(), placed("1", line("A", 1, 1)), placed("2", nameless))
    answer = await Queries().get_sales(GetSalesRequest(), session)
    assert answer.top_products[0].description == "A A"


async def test_amounts_beyond_what_a_column_holds_fail_instead_of_being_rounded(session: AsyncSession) -> None:
    largest = Line(product_code="A", quantity=1, unit_price_micros=2**63 - 1)
    await project(session, Sales(), placed("1", largest))
    with pytest.raises(OverflowError):
        await project(session, Sales(), placed("2", largest))


async def test_a_customer_has_a_history_of_orders_and_credit_in_pages(session: AsyncSession) -> None:
    first, theirs = placed("1", line("A", 1, 1), customer_id="17850"), placed("2", line("A", 1, 1), customer_id="9")
    await project(
        session,
        CustomerHistory(),
        first,
        theirs,
        placed("3", line("A", 1, 1)),
        credited("C1", line("A", 1, 1), customer_id="17850"),
        cancelled(first),
    )
    page = await Queries().list_customer_history(ListCustomerHistoryRequest(customer_id="17850", page_size=1), session)
    assert list(page.entries) == [HistoryEntry(order_id="1", total_micros=POUND, time=AT, cancelled=True)]
    last = await Queries().list_customer_history(
        ListCustomerHistoryRequest(customer_id="17850", page_size=1, page_token=page.next_page_token), session
    )
    assert list(last.entries) == [HistoryEntry(credit_note_id="C1", total_micros=POUND, time=AT)]
    assert last.next_page_token == ""


async def test_customers_without_an_account_have_no_history(session: AsyncSession) -> None:
    await project(session, CustomerHistory(), placed("1", line("A", 1, 1)), credited("C1", line("A", 1, 1)))
    answer = await Queries().list_customer_history(ListCustomerHistoryRequest(customer_id=""), session)
    assert not answer.entries
