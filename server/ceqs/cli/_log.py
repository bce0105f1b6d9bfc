"""`ceqs log`: looking after the event logs of a project."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ceqs.cli._output import Output, OutputOption, reporting

app = typer.Typer(
    name="log",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="Look after the event logs of the project's contexts.",
)

Contexts = Annotated[list[str] | None, typer.Argument(metavar="[CONTEXT]...", help="Contexts by name; all by default.")]


@app.command()
def retag(
    contexts: Contexts = None,
    anew: Annotated[bool, typer.Option("--anew", help="Tag all events anew even where no annotation changed.")] = False,
    output: OutputOption = Output.TEXT,
) -> None:
    """Tag recorded events as the contract now annotates their fields.

    Tags (`order:536365`) are an index: they come from the fields of events that carry `(ceqs.v1.field).tag`. When a
    field of a recorded event has gained or lost that annotation, a server refuses commands until the tags of all events
    are derived anew. That is what this does. Events themselves stay as they are, and keep their partition buckets.

    On PostgreSQL, servers of the earlier contract go on meanwhile. They refuse commands from the moment when the new
    tags take the place of the old ones, and servers of the new contract accept them from then on. On SQLite, stop the
    server first.

    Killed and started again, it goes on where it stood.

    Examples:  `ceqs log retag`,  `ceqs log retag orders`,  `ceqs log retag orders --output json`
    """
    from ceqs.cli import _retag
    from ceqs.cli._settings import load_settings
    from ceqs.cli._signals import run

    with reporting(output):
        run(_retag.retag(load_settings(), contexts or [], anew=anew, output=output))


@app.command()
def remember(
    context: Annotated[str, typer.Argument(help="A context by name.")],
    days: Annotated[int | None, typer.Option(min=1, help="Remember each command for so many days.")] = None,
    forever: Annotated[bool, typer.Option("--forever", help="Remember all commands for ever.")] = False,
    shorten: Annotated[bool, typer.Option("--shorten", help="Even if that is shorter than was promised.")] = False,
    output: OutputOption = Output.TEXT,
) -> None:
    """Say, or promise, for how long commands are remembered: how late a repeated one is still done only once.

    A log remembers the ids of commands and what they were answered for ever, until something else is promised. The
    promise stands in the log and binds every process. A longer one holds for all commands that are remembered, a
    shorter one (`--shorten`) for the commands to come: each is kept for as long as was promised when it was recorded.
    Ids that the platform derives itself are kept for good.

    What nothing is promised to any more, servers forget within the hour (`purge_hours`, CEQS_PURGE_HOURS), or
    `ceqs log purge` does at once. On SQLite, stop the server first.

    Examples:  `ceqs log remember orders`,  `ceqs log remember orders --days 30 --shorten`,
    `ceqs log remember orders --forever`
    """
    from ceqs.cli import _memory
    from ceqs.cli._settings import load_settings
    from ceqs.cli._signals import run

    with reporting(output):
        run(_memory.remember(load_settings(), context, days=days, forever=forever, shorten=shorten, output=output))


@app.command()
def purge(
    contexts: Contexts = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say how many there are, and forget nothing.")] = False,
    output: OutputOption = Output.TEXT,
) -> None:
    """Forget commands that the log no longer promises to remember (see `ceqs log remember`). Events stay.

    It goes through the server of the context where one runs, with the key (CEQS_KEY), and to the log itself otherwise,
    in short steps between which commands go on. Servers do it by themselves, too, every hour unless `purge_hours`
    (CEQS_PURGE_HOURS) says otherwise.

    Examples:  `ceqs log purge --dry-run`,  `ceqs log purge orders`
    """
    from ceqs.cli import _memory
    from ceqs.cli._settings import load_settings
    from ceqs.cli._signals import run

    with reporting(output):
        run(_memory.purge(load_settings(), contexts or [], dry_run=dry_run, output=output))


@app.command()
def backup(
    context: Annotated[str, typer.Argument(help="A context by name.")],
    file: Annotated[Path, typer.Argument(help="The file to write; there must be none of that name.")],
    output: OutputOption = Output.TEXT,
) -> None:
    """Copy the log of a context into a file, as it is at one moment. Servers go on meanwhile.

    The file is the whole log in SQLite, whichever database it comes from: no other tool is needed to make it, to look
    into it, or to restore it, into SQLite or PostgreSQL. It appears under its name when it is complete and checked.

    Streams and query models need no backup: they are made from the log.

    Examples:  `ceqs log backup orders /backups/orders-2026-11-25.db`
    """
    from ceqs.cli import _backup
    from ceqs.cli._settings import load_settings
    from ceqs.cli._signals import run

    with reporting(output):
        run(_backup.backup(load_settings(), context, file, output=output))


@app.command()
def restore(
    context: Annotated[str, typer.Argument(help="A context by name.")],
    file: Annotated[Path, typer.Argument(help="What `ceqs log backup` wrote.")],
    replace: Annotated[bool, typer.Option("--replace", help="Even where there is a log with events.")] = False,
    output: OutputOption = Output.TEXT,
) -> None:
    """Put a backup in the place of the log of a context. Interrupted, it has changed nothing.

    What was recorded after the backup is gone, so the restored log is another log: it gets a new id, and its streams a
    new epoch. Relays and servers go on with it by themselves, and the relay makes new streams. Projections and
    subscribers have seen what no longer is: they stop, and say how to be built anew. Clients' tokens of the old log
    wait for nothing.

    On SQLite, stop the server first. To move a log to another database, restore its backup there.

    Examples:  `ceqs log restore orders /backups/orders-2026-11-25.db`,
    `CEQS_STORE=postgres ceqs log restore orders orders.db --replace`
    """
    from ceqs.cli import _backup
    from ceqs.cli._settings import load_settings
    from ceqs.cli._signals import run

    with reporting(output):
        run(_backup.restore(load_settings(), context, file, replace=replace, output=output))
