"""`ceqs projection`: the places of query models."""

from __future__ import annotations

from typing import Annotated

import typer

from ceqs.cli._output import Output, OutputOption, reporting

app = typer.Typer(
    name="projection",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="Look after projections: fill them anew, go back, pause, drop, without downtime.\n\n"
    "Each version of a projection has a place of its own (a SQLite file, a PostgreSQL schema), called `v2`; filled "
    "anew, it is `v2.2`, `v2.3`. One place answers. A new projection, or one whose `version` was raised in code, fills "
    "itself from the first event while the old place answers, and takes over when it is not behind. The old one is "
    "fed, by builds that have its version, until it is dropped.\n\n"
    "These commands work beside running projectors (`ceqs project`, `ceqs dev`), which notice within a second.",
)

Name = Annotated[str, typer.Argument(metavar="PROJECTION", help="By name, `Sales` or `orders/Sales`.")]
PlaceOption = Annotated[str | None, typer.Option("--place", help="Only this place, `v1`; all by default.")]


@app.command("list")
def list_(
    contexts: Annotated[
        list[str] | None, typer.Argument(metavar="[CONTEXT]...", help="Contexts by name; all by default.")
    ] = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """List the projections and their places: which answers, where each stands, and who feeds it.

    Examples:  `ceqs projection list`,  `ceqs projection list orders -o json`
    """
    from ceqs.cli import _placing
    from ceqs.cli._settings import load_settings
    from ceqs.cli._signals import run

    with reporting(output):
        run(_placing.list_places(load_settings(), contexts or [], output))


@app.command()
def status(name: Name, output: OutputOption = Output.TEXT) -> None:
    """Show everything that is known about the places of a projection.

    Examples:  `ceqs projection status Sales`
    """
    from ceqs.cli import _placing
    from ceqs.cli._settings import load_settings
    from ceqs.cli._signals import run

    with reporting(output):
        run(_placing.show_places(load_settings(), name, output))


@app.command()
def rebuild(
    name: Name,
    to_version: Annotated[
        int | None, typer.Option("--to-version", min=1, help="The version to fill; by default the newest in code.")
    ] = None,
    follow: Annotated[bool, typer.Option(help="Show the progress until it has taken over, or return at once.")] = True,
    output: OutputOption = Output.TEXT,
) -> None:
    """Fill a projection anew from the log, beside the place that answers, and let it take over.

    The projector fills it (`ceqs project`, `ceqs dev`); where none runs, the next one that starts. Answers go on
    meanwhile, and are never older than before. Whatever is killed goes on where it stood, and this command, given
    again, follows the same rebuild. Subscribers and publishers are not touched: nothing is sent twice.

    The place before is fed until it is dropped: `ceqs projection rollback` goes back to it, `ceqs projection drop` ends
    it. To give up a rebuild, drop its place.

    Examples:  `ceqs projection rebuild Sales`,  `ceqs projection rebuild orders/Sales --to-version 2`,
    `ceqs projection rebuild Sales --no-follow -o json`
    """
    from ceqs.cli import _placing
    from ceqs.cli._settings import load_settings
    from ceqs.cli._signals import run

    with reporting(output):
        run(_placing.rebuild(load_settings(), name, version=to_version, follow=follow, output=output))


@app.command()
def rollback(
    name: Name,
    to: Annotated[
        str | None, typer.Option("--to", help="A place, `v1`; by default the one that answered before.")
    ] = None,
    wait: Annotated[float, typer.Option(min=0, help="Seconds that it has to catch up.")] = 10.0,
    output: OutputOption = Output.TEXT,
) -> None:
    """Let an earlier place answer again. Answers never go back in time: it takes over when it is not behind.

    Servers of a build that reads other tables than that place has go on with the newest that it can read.
    `--to` with the newer place goes forward again.

    Examples:  `ceqs projection rollback Sales`,  `ceqs projection rollback Sales --to v1`
    """
    from ceqs.cli import _placing
    from ceqs.cli._settings import load_settings
    from ceqs.cli._signals import run

    with reporting(output):
        run(_placing.roll_back_to(load_settings(), name, to=to, wait=wait, output=output))


@app.command()
def pause(name: Name, place: PlaceOption = None, output: OutputOption = Output.TEXT) -> None:
    """Stop feeding a projection. It goes on answering, and its answers say how old they are.

    Examples:  `ceqs projection pause Sales`,  `ceqs projection pause Sales --place v1.2`
    """
    _hold(name, place, True, output)


@app.command()
def resume(name: Name, place: PlaceOption = None, output: OutputOption = Output.TEXT) -> None:
    """Feed a projection again, from where it stands.

    Examples:  `ceqs projection resume Sales`
    """
    _hold(name, place, False, output)


@app.command()
def drop(
    name: Name,
    place: Annotated[str, typer.Argument(metavar="PLACE", help="As `ceqs projection list` calls it: `v1`.")],
    wait: Annotated[float, typer.Option(min=0, help="Seconds that those who use it have to end.")] = 30.0,
    output: OutputOption = Output.TEXT,
) -> None:
    """Delete a place that does not answer, once nobody writes or reads it any more.

    Examples:  `ceqs projection drop Sales v1`
    """
    from ceqs.cli import _placing
    from ceqs.cli._settings import load_settings
    from ceqs.cli._signals import run

    with reporting(output):
        run(_placing.drop_place(load_settings(), name, place, wait=wait, output=output))


def _hold(name: str, place: str | None, held: bool, output: Output) -> None:
    from ceqs.cli import _placing
    from ceqs.cli._settings import load_settings
    from ceqs.cli._signals import run

    with reporting(output):
        run(_placing.hold_places(load_settings(), name, place, held=held, output=output))
