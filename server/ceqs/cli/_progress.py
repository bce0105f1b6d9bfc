"""Progress of what takes its time: a bar for people, a line a second for programs."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from ceqs.cli._output import Output, show

_EVERY = 1.0
"""Seconds between two lines of progress for programs."""


@contextmanager
def progress(verb: str, name: str, unit: str, output: Output) -> Generator[Callable[[int, int], None]]:
    """Give a function that hears how much is done, of how much. For programs, `verb` names what is done to what."""
    if output is Output.JSON:
        said = 0.0

        def say(done: int, total: int) -> None:
            nonlocal said
            if time.monotonic() - said >= _EVERY:
                said = time.monotonic()
                show(output, "", {verb: name, unit: done, "of": total})

        yield say
        return
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), _Rate(unit), TimeRemainingColumn()
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(name, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


class _Rate(ProgressColumn):
    """How many a second."""

    def __init__(self, unit: str) -> None:
        super().__init__()
        self._unit = unit

    def render(self, task: Task) -> Text:
        """Give the rate as text."""
        return Text(f"{task.speed:,.0f} {self._unit}/s" if task.speed else "")
