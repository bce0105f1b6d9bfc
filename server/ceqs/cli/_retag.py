"""`ceqs log retag`: tagging the events of contexts anew, with progress."""

from __future__ import annotations

from collections.abc import Iterable

from ceqs.cli._contexts import choose, load_contexts
from ceqs.cli._output import Output, show
from ceqs.cli._progress import progress
from ceqs.cli._settings import Settings
from ceqs.log import Retagged, retag_log


async def retag(settings: Settings, names: Iterable[str], *, anew: bool, output: Output) -> None:
    """Tag the events of contexts (all where none is named) as their contracts annotate them."""
    for name, context in choose(load_contexts(settings), names).items():
        with progress("retags", name, "events", output) as report:
            done = await retag_log(settings.log_url(name), name, context.decoder, anew=anew, report=report)
        show(
            output,
            _summary(name, done),
            {"retagged": name, "generation": done.generation, "changed": done.changed, "events": done.events},
        )


def _summary(name: str, done: Retagged) -> str:
    if not done.changed and not done.events:
        return f"{name}: the tags are those of the contract, nothing to do"
    changed = ", ".join(full_name.rpartition(".")[2] for full_name in done.changed)
    return f"{name}: tagged {done.events} events" + (f"; what had changed: {changed}" if changed else "")
