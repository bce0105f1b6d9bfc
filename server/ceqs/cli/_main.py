"""The commands, their arguments and what `--help` says about them."""

from __future__ import annotations

import enum
from collections.abc import Callable, Coroutine
from dataclasses import replace
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

# Everything heavier is imported by the command that needs it: `ceqs --help` answers at once.
from ceqs.cli import _log, _outbox, _parked, _projection, _relay
from ceqs.cli._output import Output, OutputOption, reporting, show

if TYPE_CHECKING:
    from ceqs.cli._roles import Announce
    from ceqs.cli._settings import Settings

app = typer.Typer(
    name="ceqs",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Event-centric gRPC services from protobuf contracts.\n\n"
    "From nothing to an event of your own:  `ceqs new bakery`,  `cd bakery`,  `ceqs dev`,  and in another terminal "
    "`ceqs call OpenItem item_id=1 title=bread`  and  `ceqs tail`.\n\n"
    "Settings stand under `[tool.ceqs]` of pyproject.toml; `CEQS_*` in the environment overrides each of them. "
    "Exit codes: 0 done, 1 the call failed, 2 wrong usage or configuration.",
)

Contexts = Annotated[list[str] | None, typer.Argument(metavar="[CONTEXT]...", help="Contexts by name; all by default.")]

app.add_typer(_relay.app)
app.add_typer(_log.app)
app.add_typer(_parked.app)
app.add_typer(_outbox.app)
app.add_typer(_projection.app)


class Part(enum.StrEnum):
    """What `ceqs serve` may be told to serve."""

    COMMANDS = "commands"
    QUERIES = "queries"
    EVENTS = "events"
    ALL = "all"


@app.command()
def new(
    name: Annotated[str, typer.Argument(help="The name of the context, and of the directory to make: `bakery`.")],
    output: OutputOption = Output.TEXT,
) -> None:
    """Write a new project: a contract, its handlers and a test, ready to run.

    Examples:  `ceqs new bakery`
    """
    from ceqs.cli._new import write_project

    with reporting(output):
        directory = write_project(Path.cwd(), name)
        show(
            output,
            f"Wrote {directory.name}/. Now try:\n\n"
            f"  cd {directory.name}\n"
            "  ceqs dev\n\n"
            "and in another terminal, in the same directory:\n\n"
            "  ceqs tail\n"
            "  ceqs call OpenItem item_id=1 title='My first event'\n"
            "  ceqs call GetItem item_id=1\n\n"
            f"Your contract is proto/{name}/v1/{name}.proto, your code {name}/context.py, its test python -m pytest.",
            {"directory": str(directory)},
        )


@app.command()
def gen(output: OutputOption = Output.TEXT) -> None:
    """Generate Python from the protos: messages, typed bases for handlers, a typed client.

    Examples:  `ceqs gen`,  `CEQS_PROTO=api ceqs gen`
    """
    from ceqs.cli._generate import generate_project
    from ceqs.cli._settings import load_settings

    with reporting(output):
        settings = load_settings()
        changed = [str(path) for path in generate_project(settings)]
        lines = [f"{len(changed)} files changed under {settings.generated}" if changed else "nothing changed"]
        show(output, "\n".join([*changed, *lines]), {"changed": changed})


@app.command()
def dev(output: OutputOption = Output.TEXT) -> None:
    """Run the whole project on this machine: nats-server, servers, relay and projectors.

    Restarts what dies, generates and restarts when a proto or Python file changes. Ctrl-C ends everything.

    Examples:  `ceqs dev`,  `CEQS_ADDRESSES=bakery=127.0.0.1:6000 ceqs dev`
    """
    from ceqs.cli import _dev
    from ceqs.cli._logging import configure_logging
    from ceqs.cli._settings import load_settings
    from ceqs.cli._signals import run

    configure_logging(usual="text")
    with reporting(output):
        run(_dev.dev(load_settings(), output))


@app.command()
def serve(
    contexts: Contexts = None,
    processes: Annotated[
        int | None,
        typer.Option(min=1, help="Server processes behind each address; more than one on PostgreSQL only."),
    ] = None,
    role: Annotated[
        list[Part] | None,
        typer.Option(help="What to serve; repeatable, everything by default. Without commands, nothing is written."),
    ] = None,
    shared_port: Annotated[bool, typer.Option("--shared-port", hidden=True)] = False,
    output: OutputOption = Output.TEXT,
) -> None:
    """Serve commands, queries and events over gRPC, each context at its address.

    With several processes, the kernel spreads connections among them, and one that dies is started again.

    Processes that serve queries or events alone only read: any number of them may run beside the one that serves
    commands, on a database user who may only read, or on a replica (`read_url`, CEQS_READ_URL). They listen at
    `query_addresses` and `event_addresses` (CEQS_QUERY_ADDRESSES, CEQS_EVENT_ADDRESSES) where these are set, and need
    the contexts' log to exist, for which they wait. Health is told per service, and per role (`queries`).

    Examples:  `ceqs serve`,  `CEQS_KEY=... CEQS_DATA=/var/lib/shop ceqs serve orders`,
    `CEQS_STORE=postgres CEQS_DATABASE_URL=postgresql://... ceqs serve --processes 4`,
    `CEQS_READ_URL=postgresql://reader@... CEQS_QUERY_ADDRESSES=orders=127.0.0.1:50061 ceqs serve orders --role queries`
    """
    from ceqs.cli import _processes, _roles

    def work(settings: Settings, names: list[str], announce: Announce) -> Coroutine[Any, Any, None]:
        wanted = settings if processes is None else replace(settings, processes=processes)
        roles = _roles.roles_of(role or [])
        if wanted.processes > 1:
            return _processes.serve_by_processes(wanted, names, output, roles)
        return _roles.serve(wanted, names, announce, roles=roles, shared=shared_port)

    _role(work, contexts, output)


@app.command()
def project(contexts: Contexts = None, output: OutputOption = Output.TEXT) -> None:
    """Run projections, publishers and subscribers.

    Examples:  `CEQS_KEY=... ceqs project`,  `ceqs project orders`
    """
    from ceqs.cli import _roles

    _role(_roles.project, contexts, output)


@app.command()
def call(
    rpc: Annotated[str, typer.Argument(help="Its name: `PlaceOrder`, or the full one where that is not enough.")],
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE | JSON]...", help="The request: `a.b=1`, `lines[0].product=x`, or JSON."),
    ] = None,
    address: Annotated[str | None, typer.Option(help="host:port; by default wherever the project serves it.")] = None,
    command_id: Annotated[str | None, typer.Option(help="Sent twice under one id, a command is done once.")] = None,
    at_least: Annotated[
        str | None, typer.Option(help="A token, or `now`: the answer shall include what it stands for.")
    ] = None,
    as_of: Annotated[
        str | None, typer.Option(help="A moment of the past: `2010-12-02`, in UTC, `15m` ago, or a token.")
    ] = None,
    actor: Annotated[str | None, typer.Option(help="Who sends the command.")] = None,
    wait: Annotated[
        float, typer.Option(min=0, help="Seconds that a server may need to start, and a model to catch up.")
    ] = 30.0,
    output: OutputOption = Output.TEXT,
) -> None:
    """Call a command or query of a running server, by gRPC reflection.

    Examples:  `ceqs call OpenItem item_id=1 title=bread`,  `ceqs call GetItem '{"item_id": "1"}' --output json`,
    `ceqs call ListOpenItems --at-least now --wait 30`,
    `ceqs call GetItem item_id=1 --as-of 2010-12-02`,
    `ceqs call ceqs.v1.EventsService.GetHead --address 127.0.0.1:50051`
    """
    from ceqs.cli import _call
    from ceqs.cli._settings import load_settings
    from ceqs.cli._signals import run

    with reporting(output):
        settings = load_settings()
        run(
            _call.call(
                settings,
                rpc,
                words or [],
                address=address,
                command_id=command_id,
                at_least=at_least,
                as_of=as_of,
                actor=actor,
                wait=wait,
                output=output,
            )
        )


@app.command()
def tail(
    contexts: Contexts = None,
    type_: Annotated[list[str] | None, typer.Option("--type", help="Only events of this type; repeatable.")] = None,
    tag: Annotated[list[str] | None, typer.Option(help="Only events with this tag, `item:1`; repeatable.")] = None,
    after: Annotated[int | None, typer.Option(min=0, help="Begin after this position; 0 is the start.")] = None,
    since: Annotated[str | None, typer.Option(help="Begin at a time, `2010-12-02T08:26` UTC, or `15m` ago.")] = None,
    last: Annotated[int | None, typer.Option(min=1, help="Begin with so many of the last events, per context.")] = None,
    private: Annotated[
        bool | None, typer.Option("--private/--public", help="Every event, or public ones; every one with a key.")
    ] = None,
    follow: Annotated[bool, typer.Option(help="Wait for more, or end with what there is.")] = True,
    limit: Annotated[int | None, typer.Option(min=1, help="End after this many events.")] = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Print events as they are recorded, decoded. A star marks public ones.

    Examples:  `ceqs tail`,  `ceqs tail orders --type OrderPlaced --tag order:536365`,
    `ceqs tail orders --after 0 --no-follow --output json`,  `ceqs tail --since 2010-12-02`,  `ceqs tail --last 20`
    """
    from ceqs.cli import _tail
    from ceqs.cli._settings import load_settings
    from ceqs.cli._signals import run

    with reporting(output):
        settings = load_settings()
        run(
            _tail.tail(
                settings,
                contexts or [],
                types=type_ or [],
                tags=tag or [],
                after=after,
                since=since,
                last=last,
                private=private,
                follow=follow,
                limit=limit,
                output=output,
            )
        )


@app.command()
def history(
    tags: Annotated[list[str], typer.Argument(metavar="TAG...", help="`order:536365`; several: events with all.")],
    context: Annotated[list[str] | None, typer.Option(help="Look in this context; repeatable, all by default.")] = None,
    last: Annotated[int | None, typer.Option(min=1, help="Only the last so many events of each context.")] = None,
    whole: Annotated[bool, typer.Option("--whole", help="Show the fields of events at any length.")] = False,
    output: OutputOption = Output.TEXT,
) -> None:
    """Print everything that happened to something: events under the commands that brought them, and what followed.

    Under each event stands what reactions to it have done, in whichever of the contexts: a publisher's public events,
    a subscriber's commands and their outcome. A star marks public events. Needs the contexts' key (CEQS_KEY). With
    `--output json`, one event a line, each with its `causation_id`, `command_id` and `handler`.

    Examples:  `ceqs history order:536365`,  `ceqs history product:85123A --last 20`,
    `ceqs history order:536365 product:85123A --context inventory --output json`
    """
    from ceqs.cli import _history
    from ceqs.cli._settings import load_settings
    from ceqs.cli._signals import run

    with reporting(output):
        run(_history.history(load_settings(), tags, context or [], last=last, whole=whole, output=output))


@app.command()
def republish(
    publisher: Annotated[str, typer.Argument(metavar="PUBLISHER", help="By name, `publish-orders`, `orders/...`.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    output: OutputOption = Output.TEXT,
) -> None:
    """Publish everything again: what a publisher derives from history is recorded once more, as new public events.

    Every service that hears them acts on them again, so this is for when what was published was wrong. Nothing else
    publishes again: a changed publisher begins where the one before it ended, and one whose place was lost goes on
    where the log says. For public events of a new kind, add a publisher: it begins with the first event by itself.

    Examples:  `ceqs republish publish-orders`,  `ceqs republish orders/publish-orders --yes`
    """
    from ceqs.cli import _republishing
    from ceqs.cli._settings import load_settings
    from ceqs.cli._signals import run

    with reporting(output):
        run(_republishing.republish(load_settings(), publisher, sure=yes, output=output))


@app.command()
def version(output: OutputOption = Output.TEXT) -> None:
    """Print the version of ceqs."""
    number = installed_version("ceqs")
    show(output, f"ceqs {number}", {"version": number})


def _role(
    work: Callable[[Settings, list[str], Announce], Coroutine[Any, Any, None]],
    contexts: list[str] | None,
    output: Output,
) -> None:
    from ceqs.cli._logging import configure_logging
    from ceqs.cli._settings import load_settings
    from ceqs.cli._signals import run

    configure_logging()
    with reporting(output):
        run(work(load_settings(), contexts or [], lambda text, value: show(output, text, value)), fast=True)
