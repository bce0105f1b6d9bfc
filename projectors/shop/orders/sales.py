"""The projection `Sales`: what was sold and credited, by country and by product."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from sqlalchemy import BigInteger, select
from sqlalchemy.orm import DeclarativeBase, Mapped, MappedAsDataclass, mapped_column

from ceqs.model import Recorded
from shop.orders.v1.events_pb2 import CreditNoteIssued, OrderCancelled, OrderPlaced
from shop.orders.v1.orders_ceqs import SalesProjection
from shop.orders.v1.types_pb2 import Line

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession


class Base(MappedAsDataclass, DeclarativeBase):
    """The tables of this projection."""

    type_annotation_map = {int: BigInteger}  # noqa: RUF012  # SQLAlchemy reads it from the class


class CountryRow(Base):
    """What was sold and credited to one country. An order that was cancelled counts nowhere."""

    __tablename__ = "countries"

    country: Mapped[str] = mapped_column(primary_key=True)
    orders: Mapped[int] = mapped_column(default=0)
    order_lines: Mapped[int] = mapped_column(default=0)
    sold_micros: Mapped[int] = mapped_column(default=0)
    credit_notes: Mapped[int] = mapped_column(default=0)
    credit_lines: Mapped[int] = mapped_column(default=0)
    credited_micros: Mapped[int] = mapped_column(default=0)


class ProductRow(Base):
    """What was sold and credited of one product or charge."""

    __tablename__ = "products"

    product_code: Mapped[str] = mapped_column(primary_key=True)
    description: Mapped[str] = mapped_column(default="")
    charge: Mapped[bool] = mapped_column(default=False)
    sold_quantity: Mapped[int] = mapped_column(default=0)
    sold_micros: Mapped[int] = mapped_column(default=0)
    credited_quantity: Mapped[int] = mapped_column(default=0)
    credited_micros: Mapped[int] = mapped_column(default=0)


class Sales(SalesProjection):
    """Counts orders and credit notes where they belong."""

    metadata = Base.metadata

    async def on_order_placed(self, session: AsyncSession, event: OrderPlaced, meta: Recorded) -> None:
        """Count the order."""
        await _count_order(session, event, 1)

    async def on_order_cancelled(self, session: AsyncSession, event: OrderCancelled, meta: Recorded) -> None:
        """Count it no more."""
        await _count_order(session, event, -1)

    async def on_credit_note_issued(self, session: AsyncSession, event: CreditNoteIssued, meta: Recorded) -> None:
        """Count credit beside the sales, not against them: it may be for orders of long ago."""
        country = await _country(session, event.country)
        country.credit_notes += 1
        country.credit_lines += len(event.lines)
        country.credited_micros += event.total_micros
        products = await _products(session, event.lines)
        for line in event.lines:
            product = products[line.product_code]
            product.credited_quantity += line.quantity
            product.credited_micros += line.quantity * line.unit_price_micros


async def _count_order(session: AsyncSession, event: OrderPlaced | OrderCancelled, sign: int) -> None:
    country = await _country(session, event.country)
    country.orders += sign
    country.order_lines += sign * len(event.lines)
    country.sold_micros += sign * event.total_micros
    products = await _products(session, event.lines)
    for line in event.lines:
        product = products[line.product_code]
        product.sold_quantity += sign * line.quantity
        product.sold_micros += sign * line.quantity * line.unit_price_micros


async def _country(session: AsyncSession, name: str) -> CountryRow:
    row = await session.get(CountryRow, name)
    if row is None:
        row = CountryRow(name)
        session.add(row)
    return row


async def _products(session: AsyncSession, lines: Iterable[Line]) -> dict[str, ProductRow]:
    """Give the rows of the lines' products, with the names that the lines give them."""
    named = {line.product_code: line for line in lines}
    found = await session.scalars(select(ProductRow).where(ProductRow.product_code.in_(named)))
    rows = {row.product_code: row for row in found}
    for code, line in named.items():
        if code not in rows:
            rows[code] = ProductRow(code)
            session.add(rows[code])
        rows[code].description = line.description or rows[code].description
        rows[code].charge = line.charge
    return rows
