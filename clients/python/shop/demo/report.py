"""The report: tables for people, JSON for programs."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from rich.console import Console
from rich.table import Table

from shop.demo.answers import Answers
from shop.demo.books import Books
from shop.demo.replay import Outcome
from shop.demo.verification import Check, pounds

ROWS = ("part", "rows", "pounds")


@dataclass(frozen=True, slots=True)
class Section:
    """A table. Cells are text, or numbers, which are set to the right."""

    title: str
    columns: tuple[str, ...]
    rows: list[tuple[Any, ...]]


@dataclass(frozen=True, slots=True)
class Report:
    """Everything that the demo found out."""

    source: str
    seconds: float
    restarts: dict[str, int]
    outcomes: list[Outcome]
    answers: Answers
    books: Books
    checks: list[Check]

    @property
    def verified(self) -> bool:
        """Every check holds."""
        return all(check.holds for check in self.checks)

    def as_json(self) -> dict[str, Any]:
        """Give the report as JSON; amounts are decimal strings."""
        return {
            "verified": self.verified,
            "source": self.source,
            "seconds": round(self.seconds, 3),
            "restarts": self.restarts,
            **{section.title: _records(section) for section in self.sections()},
        }

    def show(self, console: Console) -> None:
        """Print the report."""
        for section in self.sections():
            console.print(_table(section))
        if self.restarts:
            started = ", ".join(f"{name} {count}x" for name, count in self.restarts.items())
            console.print(f"Started again after they had died: {started}.")
        failed = sum(not check.holds for check in self.checks)
        console.print(
            f"[bold green]Verified:[/] {len(self.checks)} comparisons of {self.source}, all the same, "
            f"in {self.seconds:.1f} s."
            if not failed
            else f"[bold red]Not verified:[/] {failed} of {len(self.checks)} comparisons of {self.source} differ."
        )

    def sections(self) -> Iterable[Section]:
        """Give the tables in their order."""
        yield Section("commands", ("command", "outcome", "count"), _commands(self.outcomes))
        yield Section("events", ("context", "visibility", "type", "count"), _events(self.answers))
        yield Section("countries", ("country", "orders", "sold", "credit notes", "credited"), _countries(self.answers))
        yield Section("products", ("product", "name", "units", "sold"), _products(self.answers))
        yield Section(
            "models", ("context", "model", "kind", "position", "lag", "time", "refused"), _models(self.answers)
        )
        yield Section("rows", ROWS, _parts(self.books))
        yield Section(
            "verification",
            ("what", "result", "shop and books"),
            [(check.name, "same" if check.holds else "DIFFERS", check.told) for check in self.checks],
        )


def _commands(outcomes: list[Outcome]) -> list[tuple[Any, ...]]:
    counts = Counter((outcome.command, outcome.reason) for outcome in outcomes)
    return [(command, reason or "accepted", count) for (command, reason), count in sorted(counts.items())]


def _events(answers: Answers) -> list[tuple[Any, ...]]:
    return [
        (context, "public" if public else "private", name, count)
        for (context, public, name), count in sorted(answers.events.items(), reverse=True)
    ]


def _countries(answers: Answers) -> list[tuple[Any, ...]]:
    named = [(country.country, country.sums) for country in answers.sales.countries]
    return [
        (name, sums.orders, pounds(sums.sold_micros), sums.credit_notes, pounds(sums.credited_micros))
        for name, sums in (*named, ("all", answers.sales.total))
    ]


def _products(answers: Answers) -> list[tuple[Any, ...]]:
    return [
        (product.product_code, product.description, product.sold_quantity, pounds(product.sold_micros))
        for product in answers.sales.top_products
    ]


def _models(answers: Answers) -> list[tuple[Any, ...]]:
    return [
        (model.context, model.name, model.kind, model.position, model.lag, model.recorded_at, model.refused)
        for model in answers.models
    ]


def _parts(books: Books) -> list[tuple[Any, ...]]:
    named = [("sold", books.sold), ("credited", books.credited), ("adjusted", books.adjusted)]
    rejected = [(f"rejected: {reason}", part) for reason, part in sorted(books.rejected.items())]
    whole = [("rejected", books.rejected_total), ("all", books.total)]
    return [(name, part.rows, part.amount) for name, part in (*named, *rejected, *whole)]


def _records(section: Section) -> list[dict[str, Any]]:
    keys = [column.replace(" ", "_") for column in section.columns]
    return [dict(zip(keys, row, strict=True)) for row in section.rows]


def _table(section: Section) -> Table:
    table = Table(title=section.title.capitalize(), title_justify="left", title_style="bold", header_style="dim")
    for index, column in enumerate(section.columns):
        numbers = bool(section.rows) and isinstance(section.rows[0][index], (int, Decimal))
        table.add_column(column, justify="right" if numbers else "left", no_wrap=index + 1 < len(section.columns))
    for row in section.rows:
        style = "red" if "DIFFERS" in row else "bold" if row[0] == "all" else ""
        table.add_row(*map(_cell, row), style=style)
    return table


def _cell(value: object) -> str:
    if isinstance(value, dt.datetime):
        return f"{value:%Y-%m-%d %H:%M:%S}"
    if isinstance(value, Decimal):
        return f"{value:,.2f}"
    return f"{value:,}" if isinstance(value, int) else str(value or "-")
