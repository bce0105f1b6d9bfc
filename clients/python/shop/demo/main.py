"""`python -m shop.demo`: run the shop, replay transactions, and see whether the books balance."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shlex
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeElapsedColumn
from rich.text import Text

from ceqs.errors import CeqsError, Misconfigured
from shop.demo.answers import ask, caught_up
from shop.demo.books import keep_books
from shop.demo.documents import documents_of
from shop.demo.generator import write_csv
from shop.demo.replay import commands_in, replay
from shop.demo.report import Report
from shop.demo.rows import Row, Unreadable, read_rows
from shop.demo.system import System
from shop.demo.verification import verify

WIDTH = 100
ASIDE = Console(stderr=True)
"""For what is not the result."""

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


class Rate(ProgressColumn):
    """How many per second, over all of the time."""

    def render(self, task: Task) -> Text:
        """Give the rate."""
        seconds = task.finished_time or task.elapsed
        return Text(f"{task.completed / seconds:,.0f}/s" if seconds else "")


@app.command()
def demo(
    data: Annotated[Path | None, typer.Option(help="Transactions as CSV, with the columns of Online Retail.")] = None,
    rows: Annotated[int, typer.Option(min=1, help="How many to invent where there is no file.")] = 2000,
    seed: Annotated[int, typer.Option(help="What to invent them from: the same seed, the same transactions.")] = 1,
    store: Annotated[str, typer.Option(help="Where events and models lie: sqlite or postgres.")] = "sqlite",
    output: Annotated[str, typer.Option(help="text or json.")] = "text",
    keep_running: Annotated[bool, typer.Option("--keep-running", "--keep", help="Go on until Ctrl-C.")] = False,
) -> None:
    """Run two services as real processes, replay transactions through them, and verify every number.

    Exit codes: 0 verified, 1 something differs or did not answer, 2 wrong usage or configuration.
    """
    if output not in ("text", "json"):
        raise typer.BadParameter(f"{output} is neither text nor json", param_hint="--output")
    if store not in ("sqlite", "postgres"):
        raise typer.BadParameter(f"{store} is neither sqlite nor postgres", param_hint="--store")
    work = _demo(data, rows, seed, postgres=store == "postgres", as_json=output == "json", keep_running=keep_running)
    try:
        verified = asyncio.run(work)
    except CeqsError as error:
        print(f"error: {error.message}", file=sys.stderr)
        raise typer.Exit(2 if isinstance(error, Misconfigured) else 1) from error
    except asyncio.CancelledError:
        raise typer.Exit(130) from None
    raise typer.Exit(0 if verified else 1)


async def _demo(data: Path | None, rows: int, seed: int, *, postgres: bool, as_json: bool, keep_running: bool) -> bool:
    _cancel_on_signals()
    directory = Path(tempfile.mkdtemp(prefix="ceqs-demo-"))
    log, telling = directory / "processes.log", False
    try:
        source = str(data) if data else f"{rows:,} invented transactions (seed {seed})"
        if data is None:
            data = directory / "transactions.csv"
            write_csv(data, rows=rows, seed=seed)
        lines = list(read_rows(data))
        ASIDE.print(f"Starting the shop in {directory}", highlight=False)
        began = time.monotonic()
        async with System(directory, postgres=postgres, usual=True) as system:
            report = await _run(system, lines, source, began)
            telling = not report.verified
            if as_json:
                print(json.dumps(report.as_json(), default=str), flush=True)
            else:
                report.show(_console())
            if keep_running:
                ASIDE.print(_to_try(system), highlight=False, soft_wrap=True)
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.Event().wait()
        return report.verified
    except CeqsError:
        telling = log.exists()
        raise
    finally:
        if telling:
            ASIDE.print(f"What the processes said is in {log}", highlight=False, soft_wrap=True)
        else:
            shutil.rmtree(directory)


async def _run(system: System, lines: list[Row | Unreadable], source: str, began: float) -> Report:
    documents = documents_of(line for line in lines if isinstance(line, Row))
    with _progress() as progress:
        sent = progress.add_task("commands", total=commands_in(documents))
        outcomes = await replay(documents, system.orders, system.inventory, lambda: progress.advance(sent))
        read = progress.add_task("models", total=None)
        models = await caught_up(system, lambda at, of: progress.update(read, completed=at, total=of))
    answers = await ask(system, models)
    opening = {product: units for product, (_, units) in documents.opening.items()}
    books = keep_books(lines, opening, [trial.units for trial in documents.trials])
    checks = verify(books, outcomes, answers)
    return Report(source, time.monotonic() - began, system.restarts, outcomes, answers, books, checks)


def _cancel_on_signals() -> None:
    """Let Ctrl-C and SIGTERM end the demo in order: nothing of it is left behind."""
    task = asyncio.current_task()
    assert task
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)


def _console() -> Console:
    # A pipe has no width; the tables have one.
    return Console() if sys.stdout.isatty() else Console(width=WIDTH)


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description:>8}"),
        BarColumn(),
        MofNCompleteColumn(),
        Rate(),
        TimeElapsedColumn(),
        console=ASIDE,
    )


def _to_try(system: System) -> str:
    ceqs = Path(sys.executable).parent / "ceqs"
    exports = "\n".join(f"  export {name}={shlex.quote(value)}" for name, value in system.environment.items())
    return (
        f"\nThe shop is running; Ctrl-C ends it. In another terminal:\n\n{exports}\n\n"
        f"  {ceqs} call GetSales top=3\n"
        f"  {ceqs} call PlaceOrder order_id=1 country=France "
        f"'lines[0].product_code=POST' 'lines[0].quantity=1' 'lines[0].unit_price_micros=18000000' "
        f"'lines[0].charge=true'\n"
        f"  {ceqs} call GetOrder order_id=1\n"
        f"  {ceqs} tail orders\n"
    )
