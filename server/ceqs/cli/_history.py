"""`ceqs history`: everything that happened to something, with what led to it and what followed, as a tree."""

from __future__ import annotations

import contextlib
import difflib
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence

from rich.console import Console
from rich.text import Text
from rich.tree import Tree

from ceqs.cli._contexts import choose, load_contexts
from ceqs.cli._events import EventsClient, as_value, fields_of
from ceqs.cli._output import Output, show
from ceqs.cli._running import whereabouts
from ceqs.cli._settings import Settings
from ceqs.client import History, HistoryCommand, HistoryEvent, read_history
from ceqs.contract import Contract
from ceqs.errors import Misconfigured

PATIENCE = 3.0
"""Seconds that a server has to answer."""
WIDTH = 100
"""How much of an event's fields a line shows, in characters."""


async def history(
    settings: Settings, tags: Sequence[str], names: Iterable[str], *, last: int | None, whole: bool, output: Output
) -> None:
    """Print what happened to what the tags name, in the contexts (all where none is named)."""
    contexts = load_contexts(settings)
    addresses, key = whereabouts(settings, contexts, "events")
    contracts = {name: context.contract for name, context in choose(contexts, names).items()}
    _check(tags, contracts)
    async with contextlib.AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(EventsClient.of(contract, addresses[name], key, timeout=PATIENCE))
            for name, contract in contracts.items()
        ]
        with Console(stderr=True).status("reading") if sys.stderr.isatty() else contextlib.nullcontext():
            found = await read_history(clients, tags, last=last)
    for name, error in found.silent.items():
        print(f"{name} does not answer, so what happened there is not told: {error.message}", file=sys.stderr)
    if output is Output.JSON:
        for command in found.commands:
            for event, by in _flat(command):
                value = as_value(event.context, event.event)
                show(output, "", {**value, "handler": by.handler, "carries": event.carries})
        return
    _print(found, tags, whole=whole)


def _check(tags: Sequence[str], contracts: Mapping[str, Contract]) -> None:
    known = {tag.key for contract in contracts.values() for event in contract.events.values() for tag in event.tags}
    for tag in tags:
        key, colon, value = tag.partition(":")
        if not (colon and value):
            raise Misconfigured(f"{tag!r} is no tag; write key:value, as in order:536365")
        if key not in known:
            near = difflib.get_close_matches(key, known, 1)
            hint = f"did you mean {near[0]}:{value}?" if near else f"there are {', '.join(sorted(known)) or 'none'}"
            raise Misconfigured(f"no event has a tag {key!r}; {hint}")


def _flat(command: HistoryCommand) -> Iterator[tuple[HistoryEvent, HistoryCommand]]:
    for event in command.events:
        yield event, command
        for followed in event.followed:
            yield from _flat(followed)


def _print(found: History, tags: Sequence[str], *, whole: bool) -> None:
    events = list(found)
    where = ", ".join(dict.fromkeys(event.context for event in events))
    told = f"{len(events)} events in {where}" if events else "nothing is recorded"
    tree = Tree(Text.assemble((" ".join(tags), "bold"), f"  {told}"))
    for command in found.commands:
        _add(tree, command, whole=whole)
    # A terminal breaks lines; whoever pipes them on wants each whole.
    Console(highlight=False, width=None if sys.stdout.isatty() else 1_000_000).print(tree)


def _add(tree: Tree, command: HistoryCommand, *, whole: bool) -> None:
    first = command.events[0].event
    branch = tree.add(Text.assemble((f"{first.recorded_at:%Y-%m-%d %H:%M:%S} ", "dim"), _sender(command)))
    for event in command.events:
        one = event.event
        fields = fields_of(one)
        line = Text.assemble(
            (one.type.rpartition(".")[2], "bold cyan" if event.carries else "cyan"),
            (f"  {event.context} {one.position}{'*' if one.public_position else ''}  ", "dim"),
            fields if whole or len(fields) <= WIDTH else f"{fields[: WIDTH - 1]}\N{HORIZONTAL ELLIPSIS}",
        )
        twig = branch.add(line)
        for followed in event.followed:
            _add(twig, followed, whole=whole)


def _sender(command: HistoryCommand) -> Text:
    if command.handler:
        return Text.assemble((command.handler, "magenta"))
    by = f" by {command.actor}" if command.actor else ""
    return Text.assemble(("command", "green"), f" {command.command_id}{by}")
