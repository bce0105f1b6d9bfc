"""What the commands print: text for people, JSON for programs."""

from __future__ import annotations

import contextlib
import enum
import json
import sys
from collections.abc import Generator, Iterable, Iterator, Mapping
from typing import Annotated, Any, TextIO

import typer

from ceqs.errors import CeqsError, Misconfigured, Rejected, as_json


class Output(enum.StrEnum):
    """How a command prints its results."""

    TEXT = "text"
    JSON = "json"


LimitOption = Annotated[int, typer.Option(min=1, help="How many are listed; of more, the number is said.")]
LIMIT = 100
OutputOption = Annotated[Output, typer.Option("--output", "-o", help="Print text, or one JSON object per line.")]


def show(output: Output, text: str, value: Mapping[str, Any]) -> None:
    """Print a result: the text, or the value as one line of JSON."""
    _write(sys.stdout, json.dumps(value, default=str, ensure_ascii=False) if output is Output.JSON else text)


class Listing:
    """Prints the first of many results, and how many more there are."""

    def __init__(self, output: Output, limit: int) -> None:
        self._output, self._limit, self._found = output, limit, 0

    @property
    def room(self) -> int:
        """For how many more there is room."""
        return max(0, self._limit - self._found)

    def add(self, text: str, value: Mapping[str, Any]) -> None:
        """Print a result, as long as there is room for it."""
        self._found += 1
        if self._found <= self._limit:
            show(self._output, text, value)

    def leave_out(self, count: int) -> None:
        """Count results that are not printed."""
        self._found += count

    def end(self, nothing: str) -> None:
        """Say what was left out, or to people that there is `nothing`."""
        if (more := self._found - self._limit) > 0:
            show(self._output, f"and {more} more: --limit {self._found}", {"more": more})
        elif not self._found and self._output is Output.TEXT:
            show(self._output, nothing, {})


def show_error(output: Output, error: CeqsError) -> None:
    """Print an error to stderr: one line that says what is wrong and how to mend it, or JSON."""
    if output is Output.JSON:
        _write(sys.stderr, as_json(error))
        return
    named = f"{error.reason}: {error.message}" if isinstance(error, Rejected) else error.message
    label = typer.style("error", fg="red", bold=True) if sys.stderr.isatty() else "error"
    _write(sys.stderr, f"{label}: {named}")


def show_progress(output: Output, text: str) -> None:
    """Tell a person on stderr what takes its time."""
    if output is Output.TEXT:
        _write(sys.stderr, text)


def _write(stream: TextIO, line: str) -> None:
    # In one piece, for several processes may print to one pipe; at once, for its reader waits for this line.
    stream.write(f"{line}\n")
    stream.flush()


@contextlib.contextmanager
def reporting(output: Output) -> Generator[None]:
    """End the command with exit code 2 for a Misconfigured error and 1 for any other of ours, after printing it."""
    try:
        yield
    except CeqsError as error:
        show_error(output, error)
        raise typer.Exit(2 if isinstance(error, Misconfigured) else 1) from error


def outline(value: Mapping[str, Any]) -> str:
    """Give what JSON has as an object as indented lines `name: value`."""
    return "\n".join(_lines(value.items(), ""))


def _lines(entries: Iterable[tuple[str, Any]], indent: str) -> Iterator[str]:
    for name, value in entries:
        label = f"{indent}{name}" if name == "-" else f"{indent}{name}:"
        if isinstance(value, (dict, list)) and value:
            nested = list(_lines(_entries(value), f"{indent}  "))
            # The first field of an item stands beside its dash.
            yield f"{label} {nested.pop(0).lstrip()}" if name == "-" else label
            yield from nested
        else:
            yield f"{label} {value if isinstance(value, str) and value.isprintable() else json.dumps(value)}"


def _entries(value: Any) -> Iterable[tuple[str, Any]]:
    return value.items() if hasattr(value, "items") else [("-", one) for one in value]
