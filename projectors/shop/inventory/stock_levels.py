"""The projection `StockLevels`: what came, went and is left of every product."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import BigInteger
from sqlalchemy.orm import DeclarativeBase, Mapped, MappedAsDataclass, mapped_column

from ceqs.model import Recorded
from shop.inventory.v1.events_pb2 import StockAdjusted, StockMoved, StockReceived, StockReturned
from shop.inventory.v1.inventory_ceqs import StockLevelsProjection

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession


class Base(MappedAsDataclass, DeclarativeBase):
    """The tables of this projection."""

    type_annotation_map = {int: BigInteger}  # noqa: RUF012  # SQLAlchemy reads it from the class


class StockRow(Base):
    """The stock of one product, in units."""

    __tablename__ = "stock"

    product_code: Mapped[str] = mapped_column(primary_key=True)
    description: Mapped[str] = mapped_column(default="")
    received: Mapped[int] = mapped_column(default=0)
    moved: Mapped[int] = mapped_column(default=0)
    returned: Mapped[int] = mapped_column(default=0)
    adjustments: Mapped[int] = mapped_column(default=0)
    adjusted: Mapped[int] = mapped_column(default=0)
    adjusted_micros: Mapped[int] = mapped_column(default=0)
    on_hand: Mapped[int] = mapped_column(default=0)


class StockLevels(StockLevelsProjection):
    """Adds up the movements of every product."""

    metadata = Base.metadata

    async def on_stock_received(self, session: AsyncSession, event: StockReceived, meta: Recorded) -> None:
        """Count what came."""
        row = await _row(session, event.product_code)
        row.description = event.description or row.description
        row.received += event.quantity
        row.on_hand += event.quantity

    async def on_stock_moved(self, session: AsyncSession, event: StockMoved, meta: Recorded) -> None:
        """Count what an order took."""
        row = await _row(session, event.product_code)
        row.moved += event.quantity
        row.on_hand -= event.quantity

    async def on_stock_returned(self, session: AsyncSession, event: StockReturned, meta: Recorded) -> None:
        """Count what an order gave back."""
        row = await _row(session, event.product_code)
        row.returned += event.quantity
        row.on_hand += event.quantity

    async def on_stock_adjusted(self, session: AsyncSession, event: StockAdjusted, meta: Recorded) -> None:
        """Count what was found or is missing."""
        row = await _row(session, event.product_code)
        row.adjustments += 1
        row.adjusted += event.quantity
        row.adjusted_micros += event.quantity * event.unit_value_micros
        row.on_hand += event.quantity


async def _row(session: AsyncSession, product_code: str) -> StockRow:
    row = await session.get(StockRow, product_code)
    if row is None:
        row = StockRow(product_code)
        session.add(row)
    return row
