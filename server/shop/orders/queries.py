"""What orders answers from its projections. What it answers from a state needs no code."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

from sqlalchemy import select

from ceqs.queries import read_page
from shop.orders.customer_history import HistoryRow
from shop.orders.sales import CountryRow, ProductRow
from shop.orders.v1.orders_ceqs import OrderQueries
from shop.orders.v1.queries_pb2 import (
    CountrySales,
    GetSalesRequest,
    GetSalesResponse,
    HistoryEntry,
    ListCustomerHistoryRequest,
    ListCustomerHistoryResponse,
    ListProductSalesRequest,
    ListProductSalesResponse,
    ProductSales,
    ProductSalesOrder,
    SalesSums,
)

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

TOP = 10


class Queries(OrderQueries):
    """Reads the sales and the histories of customers."""

    async def get_sales(self, request: GetSalesRequest, session: AsyncSession) -> GetSalesResponse:
        """Give countries and products with the highest sale first, equal ones in the order of their names."""
        countries = await session.scalars(
            select(CountryRow).order_by(CountryRow.sold_micros.desc(), CountryRow.country)
        )
        best = (
            select(ProductRow)
            .where(~ProductRow.charge, ProductRow.sold_micros > 0)
            .order_by(ProductRow.sold_micros.desc(), ProductRow.product_code)
            .limit(request.top or TOP)
        )
        by_country = [CountrySales(country=row.country, sums=_sums(row)) for row in countries]
        total = SalesSums()
        for field in SalesSums.DESCRIPTOR.fields_by_name:
            setattr(total, field, sum(getattr(country.sums, field) for country in by_country))
        return GetSalesResponse(
            total=total,
            countries=by_country,
            top_products=[_product(row) for row in await session.scalars(best)],
        )

    async def list_product_sales(
        self, request: ListProductSalesRequest, session: AsyncSession
    ) -> ListProductSalesResponse:
        """Give one page."""
        products = select(ProductRow)
        if request.HasField("charge"):
            products = products.where(ProductRow.charge == request.charge)
        best_first = request.order == ProductSalesOrder.PRODUCT_SALES_ORDER_SOLD
        by = [ProductRow.sold_micros.desc()] if best_first else []
        page = await read_page(session, products, request, by=[*by, ProductRow.product_code])
        return ListProductSalesResponse(products=map(_product, page.rows), next_page_token=page.next_page_token)

    async def list_customer_history(
        self, request: ListCustomerHistoryRequest, session: AsyncSession
    ) -> ListCustomerHistoryResponse:
        """Give one page."""
        history = select(HistoryRow).where(HistoryRow.customer_id == request.customer_id)
        page = await read_page(session, history, request, by=[HistoryRow.position])
        return ListCustomerHistoryResponse(entries=map(_entry, page.rows), next_page_token=page.next_page_token)


def _sums(row: CountryRow) -> SalesSums:
    return SalesSums(
        orders=row.orders,
        order_lines=row.order_lines,
        sold_micros=row.sold_micros,
        credit_notes=row.credit_notes,
        credit_lines=row.credit_lines,
        credited_micros=row.credited_micros,
    )


def _product(row: ProductRow) -> ProductSales:
    return ProductSales(
        product_code=row.product_code,
        description=row.description,
        charge=row.charge,
        sold_quantity=row.sold_quantity,
        sold_micros=row.sold_micros,
        credited_quantity=row.credited_quantity,
        credited_micros=row.credited_micros,
    )


def _entry(row: HistoryRow) -> HistoryEntry:
    entry = HistoryEntry(total_micros=row.total_micros, cancelled=row.cancelled)
    if row.order_id:
        entry.order_id = row.order_id
    else:
        entry.credit_note_id = row.credit_note_id
    # SQLite gives times back without their zone, which is UTC.
    entry.time.FromDatetime(row.time if row.time.tzinfo else row.time.replace(tzinfo=dt.UTC))
    return entry
