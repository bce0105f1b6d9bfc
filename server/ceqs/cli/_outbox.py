"""`ceqs outbox`: what publishers and subscribers send, and what was refused."""

from __future__ import annotations

from typing import Annotated

import typer

from ceqs.cli._output import LIMIT, LimitOption, Output, OutputOption, reporting

app = typer.Typer(
    name="outbox",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="Look after the commands and public events that subscribers and publishers send.\n\n"
    "They wait in an outbox until the server has accepted them. What passes by itself is waited out: a server that is "
    "down, a wrong key, a build to come. What is refused for good stays, with the reason: a rule said no (`rejected`), "
    "or it cannot be done as it is (`failed`). Mend that, and have it sent again (`retry`), or go on without it "
    "(`skip`).",
)

Handler = Annotated[str, typer.Argument(metavar="HANDLER", help="A handler by name: `fulfil-orders`, `orders/...`.")]
Handlers = Annotated[list[str] | None, typer.Argument(metavar="[HANDLER]...", help="Handlers by name; all by default.")]
Wait = Annotated[float, typer.Option(min=0, help="Seconds that a projector has to see to it.")]


@app.command()
def status(handlers: Handlers = None, output: OutputOption = Output.TEXT) -> None:
    """Say where publishers and subscribers stand, what of theirs waits or was refused, and who runs them.

    One that is paused says why: the reason passes by itself, or names what mends it.

    Examples:  `ceqs outbox status`,  `ceqs outbox status fulfil-orders -o json`
    """
    from ceqs.cli import _standing
    from ceqs.cli._settings import load_settings
    from ceqs.cli._signals import run

    with reporting(output):
        run(_standing.show_standing(load_settings(), handlers or [], output))


@app.command("list")
def list_(
    handlers: Handlers = None,
    waiting: Annotated[bool, typer.Option("--waiting", help="What is yet to be sent, instead.")] = False,
    skipped: Annotated[bool, typer.Option("--skipped", help="What was skipped, instead, with who and why.")] = False,
    timers: Annotated[bool, typer.Option("--timers", help="What is to be sent at its time, instead.")] = False,
    limit: LimitOption = LIMIT,
    output: OutputOption = Output.TEXT,
) -> None:
    """List what was refused, each with its number and the reason.

    Examples:  `ceqs outbox list`,  `ceqs outbox list inventory/deliver-orders -o json`,  `ceqs outbox list --waiting`,
    `ceqs outbox list --timers --limit 5`
    """
    from ceqs.cli import _sending
    from ceqs.cli._settings import load_settings
    from ceqs.cli._signals import run

    with reporting(output):
        if timers:
            run(_sending.list_timers(load_settings(), handlers or [], limit, output))
            return
        which = _sending.Which.WAITING if waiting else _sending.Which.SKIPPED if skipped else _sending.Which.REFUSED
        run(_sending.list_calls(load_settings(), handlers or [], which, limit, output))


@app.command()
def show(
    handler: Handler,
    number: Annotated[int, typer.Argument(min=1, help="As `ceqs outbox list` says.")],
    output: OutputOption = Output.TEXT,
) -> None:
    """Show what is in one of them, why it was refused, and which event it follows from.

    Examples:  `ceqs outbox show deliver-orders 12`
    """
    from ceqs.cli import _sending
    from ceqs.cli._settings import load_settings
    from ceqs.cli._signals import run

    with reporting(output):
        run(_sending.show_call(load_settings(), handler, number, output))


@app.command()
def retry(
    handler: Handler,
    numbers: Annotated[list[int] | None, typer.Argument(metavar="[NUMBER]...", help="Of what was refused.")] = None,
    all_: Annotated[bool, typer.Option("--all", help="Everything that was refused.")] = False,
    wait: Wait = 10.0,
    output: OutputOption = Output.TEXT,
) -> None:
    """Have what was refused sent again, under the same id: what was done meanwhile is not done twice.

    It comes after whatever waits of the same keys. The projector sends it; where none runs, the next one that starts.

    Examples:  `ceqs outbox retry deliver-orders 12`,  `ceqs outbox retry inventory/deliver-orders --all`
    """
    from ceqs.cli import _sending
    from ceqs.cli._settings import load_settings
    from ceqs.cli._signals import run

    with reporting(output):
        run(_sending.retry(load_settings(), handler, numbers or [], every=all_, wait=wait, output=output))


@app.command()
def skip(
    handler: Handler,
    numbers: Annotated[list[int], typer.Argument(metavar="NUMBER...", help="Of what was refused.")],
    why: Annotated[str, typer.Option(help="Why it is not needed; kept for the record.")],
    actor: Annotated[str | None, typer.Option(help="Who decides it; you by default.")] = None,
    wait: Wait = 10.0,
    output: OutputOption = Output.TEXT,
) -> None:
    """Go on without what was refused. Who decided it and why is kept: `ceqs outbox list --skipped`.

    Examples:  `ceqs outbox skip deliver-orders 12 --why "the order was cancelled by phone"`
    """
    from ceqs.cli import _sending
    from ceqs.cli._settings import load_settings
    from ceqs.cli._signals import run

    with reporting(output):
        run(_sending.skip(load_settings(), handler, numbers, why=why, actor=actor, wait=wait, output=output))
