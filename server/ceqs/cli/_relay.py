"""`ceqs relay`: carrying events to JetStream, and looking after the streams."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from ceqs.cli._output import Output, OutputOption, reporting, show


class _Running(TyperGroup):
    """Runs the relay where no other command is named: `ceqs relay orders` is `ceqs relay run orders`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put the command first that is meant."""
        if not args or (args[0] not in self.commands and args[0] not in ctx.help_option_names):
            args = ["run", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    name="relay",
    cls=_Running,
    rich_markup_mode="markdown",
    help="Carry recorded events from the log to NATS JetStream, and look after the streams.\n\n"
    "`ceqs relay` and `ceqs relay orders` are short for `ceqs relay run`.",
)

Contexts = Annotated[list[str] | None, typer.Argument(metavar="[CONTEXT]...", help="Contexts by name; all by default.")]


@app.command()
def run(contexts: Contexts = None, output: OutputOption = Output.TEXT) -> None:
    """Carry recorded events from the log to NATS JetStream.

    Any number of relays may run: they take turns, and nothing is published twice. Whatever is unreachable is tried
    again; a stream that lost something gets it again. What a relay cannot mend, `ceqs relay status` says.

    Examples:  `ceqs relay`,  `CEQS_NATS_URL=nats://nats:4222 ceqs relay orders`,
    `CEQS_NATS_URL=nats://one:4222,nats://two:4222,nats://three:4222 CEQS_STREAM_REPLICAS=3 ceqs relay`
    """
    from ceqs.cli import _roles
    from ceqs.cli._logging import configure_logging
    from ceqs.cli._settings import load_settings
    from ceqs.cli._signals import run as run_until_signalled

    configure_logging()
    with reporting(output):
        work = _roles.relay(load_settings(), contexts or [], lambda text, value: show(output, text, value))
        run_until_signalled(work, fast=True)


@app.command()
def status(contexts: Contexts = None, output: OutputOption = Output.TEXT) -> None:
    """Compare the streams with the log, and say what mends what is wrong. The relay need not run.

    - equal: the stream has all that the log has. behind, missing, earlier epoch: the relay will see to it, if one runs.
    - broken: messages are missing in the middle of a stream. Consumers read these from the log; a new epoch has them.
    - forked: the stream holds events that the log does not have, as when the log was restored from an older backup by
      copying files. The relay publishes nothing any more until a new epoch begins.

    Exit code 1 where a stream is broken or forked.

    Examples:  `ceqs relay status`,  `ceqs relay status orders --output json`
    """
    from ceqs.cli import _streams
    from ceqs.cli._settings import load_settings
    from ceqs.cli._signals import run as run_until_signalled

    with reporting(output):
        alarming = _streams.Alarming()
        run_until_signalled(_streams.status(load_settings(), contexts or [], alarming, output=output))
        if alarming.found:
            raise typer.Exit(1)


@app.command("new-epoch")
def new_epoch(
    context: Annotated[str, typer.Argument(help="A context by name.")],
    output: OutputOption = Output.TEXT,
) -> None:
    """Begin a new epoch: the relay makes new streams and fills them from the log. The old ones stay to be read.

    It mends streams that are broken or forked. It goes through the server of the context where one runs, with the key
    (CEQS_KEY), and to the log itself otherwise. Consumers move over by themselves, and miss nothing.

    Where the old streams hold events that the log does not have, those who read them have seen what never was. The log
    gets a new id then: projections and subscribers notice, stop, and say how to go on.

    Examples:  `ceqs relay new-epoch orders`
    """
    from ceqs.cli import _streams
    from ceqs.cli._settings import load_settings
    from ceqs.cli._signals import run as run_until_signalled

    with reporting(output):
        run_until_signalled(_streams.new_epoch(load_settings(), context, output=output))
