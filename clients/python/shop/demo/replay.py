"""Sending what the rows come to, through the generated clients, as streams of commands."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar
from urllib.parse import quote

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from ceqs import client
from ceqs.errors import CeqsError, Invalid, Rejected
from shop.demo.documents import CHARGES, Documents, Invoice
from shop.demo.rows import MICROS, Row
from shop.inventory.v1.commands_pb2 import AdjustStockRequest, ReceiveStockRequest
from shop.inventory.v1.inventory_client import InventoryClient
from shop.inventory.v1.types_pb2 import AdjustmentReason
from shop.orders.v1.commands_pb2 import IssueCreditNoteRequest, PayOrderRequest, PlaceOrderRequest
from shop.orders.v1.orders_client import OrdersClient
from shop.orders.v1.types_pb2 import Line

C_co = TypeVar("C_co", bound=Message, covariant=True)
A_MOMENT = Duration(seconds=1)
"""How long a trial may be unpaid after its confirmation."""
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
class Job(Generic[C_co]):
    """A command to send."""

    command: str
    rows: int
    command_id: str
    """Made from the document: sending it again, by whomever, does not do it twice."""
    request: C_co


async def replay(
    documents: Documents, orders: OrdersClient, inventory: InventoryClient, done: Callable[[], None]
) -> list[Outcome]:
    """Send every document, the opening stock first of all and payments last; `done` is called after each."""
    opening, counts = list(_opening(documents)), list(_adjustments(documents))
    sales, paid = [*_trials(documents), *_invoices(documents)], list(_payments(documents))
    opened = await _outcomes(opening, inventory.execute_many(_commands(opening), timeout=PATIENCE), done)
    try:
        async with asyncio.TaskGroup() as both:
            sold = both.create_task(_outcomes(sales, orders.execute_many(_commands(sales), timeout=PATIENCE), done))
            counted = both.create_task(
                _outcomes(counts, inventory.execute_many(_commands(counts), timeout=PATIENCE), done)
            )
    except ExceptionGroup as failed:
        raise failed.exceptions[0] from None
    settled = await _outcomes(paid, orders.execute_many(_commands(paid), timeout=PATIENCE), done)
    return [*opened, *sold.result(), *counted.result(), *settled]


def commands_in(documents: Documents) -> int:
    """Give how many commands `replay` sends."""
    kinds = (documents.opening, documents.trials, documents.credit_notes, documents.adjustments)
    return sum(map(len, kinds)) + 2 * len(documents.orders)


async def _outcomes(
    jobs: Sequence[Job[Any]], sent: AsyncIterator[client.Outcome[Any]], done: Callable[[], None]
) -> list[Outcome]:
    outcomes: list[Outcome] = []
    async for outcome in sent:
        job = jobs[len(outcomes)]
        outcomes.append(Outcome(job.command, job.rows, _reason(outcome.error)))
        done()
    return outcomes


def _commands(jobs: Iterable[Job[C_co]]) -> Iterator[tuple[str, C_co]]:
    return ((job.command_id, job.request) for job in jobs)


def _reason(error: CeqsError | None) -> str:
    if error is None:
        return ""
    if isinstance(error, Rejected):
        return error.reason
    if isinstance(error, Invalid):
        return "INVALID_ARGUMENT"
    raise error


def _opening(documents: Documents) -> Iterator[Job[ReceiveStockRequest]]:
    for product, (description, units) in documents.opening.items():
        request = ReceiveStockRequest(product_code=product, description=description, quantity=units)
        yield Job("ReceiveStock", 0, f"opening/{quote(product)}", request)


def _trials(documents: Documents) -> Iterator[Job[PlaceOrderRequest]]:
    for trial in documents.trials:
        lines = [
            Line(product_code=product, quantity=units, unit_price_micros=MICROS)
            for product, units in trial.units.items()
        ]
        order = PlaceOrderRequest(order_id=trial.number, country=trial.country, lines=lines, pay_within=A_MOMENT)
        yield Job("PlaceOrder", 0, f"trial/{trial.number}", order)


def _payments(documents: Documents) -> Iterator[Job[PayOrderRequest]]:
    for invoice in documents.orders:
        yield Job("PayOrder", 0, f"payment/{quote(invoice.number)}", PayOrderRequest(order_id=invoice.number))


def _invoices(documents: Documents) -> Iterator[Job[PlaceOrderRequest | IssueCreditNoteRequest]]:
    for invoice in documents.orders:
        first = invoice.rows[0]
        order = PlaceOrderRequest(
            order_id=invoice.number,
            customer_id=first.customer,
            country=first.country,
            lines=_lines(invoice, sign=1),
            ordered_at=_timestamp(first),
        )
        yield Job("PlaceOrder", len(invoice.rows), f"order/{quote(invoice.number)}", order)
    for invoice in documents.credit_notes:
        first = invoice.rows[0]
        note = IssueCreditNoteRequest(
            credit_note_id=invoice.number,
            customer_id=first.customer,
            country=first.country,
            lines=_lines(invoice, sign=-1),
            issued_at=_timestamp(first),
        )
        yield Job("IssueCreditNote", len(invoice.rows), f"credit/{quote(invoice.number)}", note)


def _adjustments(documents: Documents) -> Iterator[Job[AdjustStockRequest]]:
    for row in documents.adjustments:
        request = AdjustStockRequest(
            product_code=row.product,
            quantity=row.quantity,
            unit_value_micros=_micros(row),
            reason=AdjustmentReason.ADJUSTMENT_REASON_COUNTED,
            note=f"{row.invoice} {row.description}".strip(),
        )
        yield Job("AdjustStock", 1, f"adjustment/{row.number}", request)


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
