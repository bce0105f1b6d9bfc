"""Sending what the rows come to, through the generated clients, many at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from functools import partial
from urllib.parse import quote

from google.protobuf.timestamp_pb2 import Timestamp

from ceqs.errors import Invalid, Rejected
from shop.demo.documents import CHARGES, Documents, Invoice
from shop.demo.rows import MICROS, Row
from shop.inventory.v1.commands_pb2 import AdjustStockRequest, ReceiveStockRequest
from shop.inventory.v1.inventory_client import InventoryClient
from shop.inventory.v1.types_pb2 import AdjustmentReason
from shop.orders.v1.commands_pb2 import IssueCreditNoteRequest, PlaceOrderRequest
from shop.orders.v1.orders_client import OrdersClient
from shop.orders.v1.types_pb2 import Line

AT_ONCE = 64
PATIENCE = 120.0
"""Seconds that a command may take over all of its attempts: a process that was killed is back long before."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a command came to."""

    command: str
    rows: int
    """How many rows it stands for."""
    reason: str = ""
    """Why it was refused; empty where it was accepted."""


@dataclass(frozen=True, slots=True)
class Job:
    """A command to send."""

    command: str
    rows: int
    send: Callable[[], Awaitable[object]]


async def replay(
    documents: Documents, orders: OrdersClient, inventory: InventoryClient, done: Callable[[], None]
) -> list[Outcome]:
    """Send every document, the opening stock first of all; `done` is called after each.

    Every command has an id made from its document, so that sending it again, by whomever, does not do it twice.
    """
    opened = await _send_all(list(_opening(documents, inventory)), done)
    return opened + await _send_all([*_invoices(documents, orders), *_adjustments(documents, inventory)], done)


def commands_in(documents: Documents) -> int:
    """Give how many commands `replay` sends."""
    return sum(map(len, (documents.opening, documents.orders, documents.credit_notes, documents.adjustments)))


async def _send_all(jobs: list[Job], done: Callable[[], None]) -> list[Outcome]:
    waiting = iter(jobs)
    outcomes: list[Outcome] = []

    async def work() -> None:
        for job in waiting:
            outcomes.append(await _send(job))
            done()

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(AT_ONCE):
                group.create_task(work())
    except ExceptionGroup as failed:
        raise failed.exceptions[0] from None
    return outcomes


async def _send(job: Job) -> Outcome:
    try:
        await job.send()
    except Rejected as refused:
        return Outcome(job.command, job.rows, refused.reason)
    except Invalid:
        return Outcome(job.command, job.rows, "INVALID_ARGUMENT")
    return Outcome(job.command, job.rows)


def _opening(documents: Documents, inventory: InventoryClient) -> Iterator[Job]:
    for product, (description, units) in documents.opening.items():
        request = ReceiveStockRequest(product_code=product, description=description, quantity=units)
        yield Job(
            "ReceiveStock",
            0,
            partial(inventory.receive_stock, request, command_id=f"opening/{quote(product)}", timeout=PATIENCE),
        )


def _invoices(documents: Documents, orders: OrdersClient) -> Iterator[Job]:
    for invoice in documents.orders:
        first = invoice.rows[0]
        order = PlaceOrderRequest(
            order_id=invoice.number,
            customer_id=first.customer,
            country=first.country,
            lines=_lines(invoice, sign=1),
            ordered_at=_timestamp(first),
        )
        yield Job(
            "PlaceOrder",
            len(invoice.rows),
            partial(orders.place_order, order, command_id=f"order/{quote(invoice.number)}", timeout=PATIENCE),
        )
    for invoice in documents.credit_notes:
        first = invoice.rows[0]
        note = IssueCreditNoteRequest(
            credit_note_id=invoice.number,
            customer_id=first.customer,
            country=first.country,
            lines=_lines(invoice, sign=-1),
            issued_at=_timestamp(first),
        )
        yield Job(
            "IssueCreditNote",
            len(invoice.rows),
            partial(orders.issue_credit_note, note, command_id=f"credit/{quote(invoice.number)}", timeout=PATIENCE),
        )


def _adjustments(documents: Documents, inventory: InventoryClient) -> Iterator[Job]:
    for row in documents.adjustments:
        request = AdjustStockRequest(
            product_code=row.product,
            quantity=row.quantity,
            unit_value_micros=_micros(row),
            reason=AdjustmentReason.ADJUSTMENT_REASON_COUNTED,
            note=f"{row.invoice} {row.description}".strip(),
        )
        yield Job(
            "AdjustStock",
            1,
            partial(inventory.adjust_stock, request, command_id=f"adjustment/{row.number}", timeout=PATIENCE),
        )


def _lines(invoice: Invoice, *, sign: int) -> list[Line]:
    return [
        Line(
            product_code=row.product,
            description=row.description,
            quantity=sign * row.quantity,
            unit_price_micros=_micros(row),
            charge=row.product in CHARGES,
        )
        for row in invoice.rows
    ]


def _micros(row: Row) -> int:
    return int(row.price * MICROS)


def _timestamp(row: Row) -> Timestamp:
    return Timestamp(seconds=int(row.time.timestamp()))
