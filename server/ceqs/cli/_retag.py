"""`ceqs log retag`: tagging the events of contexts anew, with progress."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from ceqs.cli._contexts import choose, load_contexts
from ceqs.cli._output import Output, show
from ceqs.cli._settings import Settings
from ceqs.log import Retagged, retag_log

_EVERY = 1.0
"""Seconds between two lines of progress for programs."""


async def retag(settings: Settings, names: Iterable[str], *, anew: bool, output: Output) -> None:
    """Tag the events of contexts (all where none is named) as their contracts annotate them."""
    for name, context in choose(load_contexts(settings), names).items():
        with _reporting(name, output) as report:
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


@contextmanager
def _reporting(name: str, output: Output) -> Generator[Callable[[int, int], None]]:
    """Give a function that takes how many events are tagged, of how many."""
    if output is Output.JSON:
        said = 0.0

        def say(done: int, total: int) -> None:
            nonlocal said
            if time.monotonic() - said >= _EVERY:
                said = time.monotonic()
                show(output, "", {"retags": name, "events": done, "of": total})

        yield say
        return
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), _RateColumn(), TimeRemainingColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(name, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


class _RateColumn(ProgressColumn):
    """Events per second."""

    def render(self, task: Task) -> Text:
        """Give the rate as text."""
        return Text(f"{task.speed:,.0f} events/s" if task.speed else "")
