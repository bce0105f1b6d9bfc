"""The projection `CustomerHistory`: the orders and credit notes of each customer."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

from sqlalchemy import BigInteger, DateTime, update
from sqlalchemy.orm import DeclarativeBase, Mapped, MappedAsDataclass, mapped_column

from ceqs.model import Recorded
from shop.orders.v1.events_pb2 import CreditNoteIssued, OrderCancelled, OrderPlaced
from shop.orders.v1.orders_ceqs import CustomerHistoryProjection

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession


class Base(MappedAsDataclass, DeclarativeBase):
    """The tables of this projection."""

    type_annotation_map = {int: BigInteger, dt.datetime: DateTime(timezone=True)}  # noqa: RUF012  # read from the class


class HistoryRow(Base):
    """An order or a credit note of a customer."""

    __tablename__ = "history"

    position: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    customer_id: Mapped[str] = mapped_column(index=True)
    total_micros: Mapped[int]
    time: Mapped[dt.datetime]
    order_id: Mapped[str] = mapped_column(default="", index=True)
    credit_note_id: Mapped[str] = mapped_column(default="")
    cancelled: Mapped[bool] = mapped_column(default=False)


class CustomerHistory(CustomerHistoryProjection):
    """Remembers what customers with an account did. Nobody's history is empty: the others have none."""

    metadata = Base.metadata

    async def on_order_placed(self, session: AsyncSession, event: OrderPlaced, meta: Recorded) -> None:
        """Enter the order."""
        if event.customer_id:
            session.add(
                HistoryRow(
                    meta.position,
                    event.customer_id,
                    event.total_micros,
                    event.ordered_at.ToDatetime(dt.UTC),
                    order_id=event.order_id,
                )
            )

    async def on_order_cancelled(self, session: AsyncSession, event: OrderCancelled, meta: Recorded) -> None:
        """Keep it, as cancelled."""
        await session.execute(update(HistoryRow).where(HistoryRow.order_id == event.order_id).values(cancelled=True))

    async def on_credit_note_issued(self, session: AsyncSession, event: CreditNoteIssued, meta: Recorded) -> None:
        """Enter the credit note."""
        if event.customer_id:
            session.add(
                HistoryRow(
                    meta.position,
                    event.customer_id,
                    event.total_micros,
                    event.issued_at.ToDatetime(dt.UTC),
                    credit_note_id=event.credit_note_id,
                )
            )
