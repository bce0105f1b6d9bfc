"""`ceqs parked`: events that handlers could not apply."""

from __future__ import annotations

from typing import Annotated

import typer

from ceqs.cli._output import LIMIT, LimitOption, Output, OutputOption, reporting

app = typer.Typer(
    name="parked",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="Look after events that a projection, publisher or subscriber could not apply.\n\n"
    "Such an event is parked after some tries, with its error; later events of the same partition key wait behind it, "
    "in order, and all others go on. Mend what was wrong, deploy it, and have the event tried again (`retry`), or go "
    "on without it (`skip`). Answers of a model with parked events say so.",
)

Handler = Annotated[str, typer.Argument(metavar="HANDLER", help="A handler by name, `Sales` or `orders/Sales`.")]
Handlers = Annotated[list[str] | None, typer.Argument(metavar="[HANDLER]...", help="Handlers by name; all by default.")]
Wait = Annotated[float, typer.Option(min=0, help="Seconds that a projector has to see to it.")]


@app.command("list")
def list_(
    handlers: Handlers = None,
    given_up: Annotated[bool, typer.Option("--given-up", help="Events that were skipped, with who and why.")] = False,
    limit: LimitOption = LIMIT,
    output: OutputOption = Output.TEXT,
) -> None:
    """List the events that are parked, and how many wait behind each.

    Examples:  `ceqs parked list`,  `ceqs parked list orders/Sales -o json`,  `ceqs parked list --given-up`
    """
    from ceqs.cli import _parking
    from ceqs.cli._settings import load_settings
    from ceqs.cli._signals import run

    with reporting(output):
        settings = load_settings()
        listing = _parking.list_given_up if given_up else _parking.list_parked
        run(listing(settings, handlers or [], limit, output))


@app.command()
def show(
    handler: Handler,
    position: Annotated[int, typer.Argument(min=1, help="Of the event, as `ceqs parked list` says.")],
    output: OutputOption = Output.TEXT,
) -> None:
    """Show a parked event: what it says, why it is parked, where in the code it failed, and who waits behind it.

    Examples:  `ceqs parked show Sales 4711`
    """
    from ceqs.cli import _parking
    from ceqs.cli._settings import load_settings
    from ceqs.cli._signals import run

    with reporting(output):
        run(_parking.show_parked(load_settings(), handler, position, output))


@app.command()
def retry(
    handler: Handler,
    positions: Annotated[
        list[int] | None, typer.Argument(metavar="[POSITION]...", help="Of events that failed.")
    ] = None,
    all_: Annotated[bool, typer.Option("--all", help="Every event that failed.")] = False,
    wait: Wait = 10.0,
    output: OutputOption = Output.TEXT,
) -> None:
    """Have parked events tried again, each followed by those that wait behind it, in order.

    The projector does it; where none runs, the next one that starts. An event that fails again stays parked, with its
    new error, and so do those behind it.

    Examples:  `ceqs parked retry Sales 4711`,  `ceqs parked retry orders/Sales --all`
    """
    from ceqs.cli import _parking
    from ceqs.cli._settings import load_settings
    from ceqs.cli._signals import run

    with reporting(output):
        run(_parking.retry(load_settings(), handler, positions or [], every=all_, wait=wait, output=output))


@app.command()
def skip(
    handler: Handler,
    positions: Annotated[list[int], typer.Argument(metavar="POSITION...", help="Of events that failed.")],
    why: Annotated[str, typer.Option(help="Why the model can do without; kept for the record.")],
    actor: Annotated[str | None, typer.Option(help="Who decides it; you by default.")] = None,
    wait: Wait = 10.0,
    output: OutputOption = Output.TEXT,
) -> None:
    """Go on without parked events, for good: those that wait behind them are applied, in order.

    The log keeps the event, and a new version of the projection meets it again. Who skipped it and why is kept in the
    place: `ceqs parked list --given-up`.

    Examples:  `ceqs parked skip Sales 4711 --why "a test order of the old shop"`
    """
    from ceqs.cli import _parking
    from ceqs.cli._settings import load_settings
    from ceqs.cli._signals import run

    with reporting(output):
        run(_parking.skip(load_settings(), handler, positions, why=why, actor=actor, wait=wait, output=output))
