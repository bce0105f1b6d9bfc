"""What is printed: outlines for people, errors on one line, exit codes by the kind of error."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterable
from typing import Any, BinaryIO, cast

import pytest
import typer
from typer.models import CommandInfo
from typer.testing import CliRunner

from ceqs.cli._main import app
from ceqs.cli._output import Listing, Output, outline, reporting, show, show_error
from ceqs.errors import CeqsError, Misconfigured, Rejected, Unavailable


def _names(commands: Iterable[CommandInfo]) -> list[str]:
    return [command.name or command.callback.__name__ for command in commands if command.callback]


COMMANDS = _names(app.registered_commands) + [
    f"{group.typer_instance.info.name} {name}"
    for group in app.registered_groups
    if group.typer_instance
    for name in _names(group.typer_instance.registered_commands)
]


class Pipe(io.RawIOBase):
    """Keeps what is written, write by write."""

    def __init__(self) -> None:
        self.writes: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self.writes.append(bytes(data))
        return len(data)


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_a_line_is_one_write_for_processes_share_a_pipe(stream: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = Pipe()
    # As Python has it where PYTHONUNBUFFERED is set.
    monkeypatch.setattr(sys, stream, io.TextIOWrapper(cast("BinaryIO", pipe), write_through=True))
    for output in Output:
        if stream == "stdout":
            show(output, "text", {"value": 1})
        else:
            show_error(output, Misconfigured("no contexts"))
    assert len(pipe.writes) == 2
    assert all(line.endswith(b"\n") for line in pipe.writes)


def test_an_outline_nests_by_indentation() -> None:
    value = {"order": {"id": "1", "paid": True, "lines": [{"product": "x", "units": 2}, {"product": "y"}], "notes": []}}
    assert outline(value).splitlines() == [
        "order:",
        "  id: 1",
        "  paid: true",
        "  lines:",
        "    - product: x",
        "      units: 2",
        "    - product: y",
        "  notes: []",
    ]


def test_an_outline_quotes_what_is_not_printable() -> None:
    assert outline({"title": "two\nlines"}) == 'title: "two\\nlines"'


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (Misconfigured("no contexts"), 2, "error: no contexts\n"),
        (Rejected("ORDER_EXISTS", "placed before"), 1, "error: ORDER_EXISTS: placed before\n"),
        (Unavailable("nothing answers"), 1, "error: nothing answers\n"),
    ],
)
def test_an_error_ends_the_command_with_its_code(
    error: CeqsError, code: int, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for output in Output:
        with pytest.raises(typer.Exit) as ended, reporting(output):
            raise error
        assert ended.value.exit_code == code
    first, second = capsys.readouterr().err.splitlines(keepends=True)
    assert first == text
    assert json.loads(second) == {"error": error.reason, "message": error.message}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_teaches_and_prints_json_where_asked(command: str) -> None:
    told = CliRunner().invoke(app, [*command.split(), "--help"], env={"COLUMNS": "120", "TERM": "dumb"})
    assert told.exit_code == 0
    assert "--output" in told.stdout
    assert "Examples:" in told.stdout or command == "version"


def test_an_unknown_command_is_wrong_usage() -> None:
    assert CliRunner().invoke(app, ["sevre"]).exit_code == 2
    assert CliRunner().invoke(app, ["version", "--output", "xml"]).exit_code == 2


def test_version_prints_the_version() -> None:
    assert CliRunner().invoke(app, ["version"]).stdout.startswith("ceqs ")
    assert set(json.loads(CliRunner().invoke(app, ["version", "-o", "json"]).stdout)) == {"version"}


@pytest.mark.parametrize(
    ("found", "output", "said"),
    [
        (0, Output.TEXT, ["nothing is there"]),
        (0, Output.JSON, []),
        (2, Output.TEXT, ["0", "1"]),
        (5, Output.TEXT, ["0", "1", "and 3 more: --limit 5"]),
        (5, Output.JSON, ['{"n": 0}', '{"n": 1}', '{"more": 3}']),
    ],
)
def test_of_a_long_list_the_first_are_printed_and_the_others_counted(
    found: int, output: Output, said: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    listing = Listing(output, 2)
    for n in range(found):
        listing.add(str(n), {"n": n})
    listing.end("nothing is there")
    assert capsys.readouterr().out.splitlines() == said
