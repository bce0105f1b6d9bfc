"""Progress: a bar with rate and time left on a terminal, a line a second for programs, nothing in a file of text."""

from __future__ import annotations

import json
import re

import pytest

from ceqs.cli._output import Output
from ceqs.cli._progress import progress


def test_a_terminal_shows_how_much_is_done_how_fast_and_how_long_it_will_take(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "120")
    with progress("rebuilds", "Sales v2", "events", Output.TEXT) as report:
        for done in (0, 400, 500):
            report(done, 1000)
    said = capsys.readouterr().err
    for part in ("Sales v2", "500/1000", r"[\d,]+ events/s", r"\d:\d\d:\d\d"):
        assert re.search(part, said)


def test_no_terminal_is_told_nothing_of_it(capsys: pytest.CaptureFixture[str]) -> None:
    with progress("rebuilds", "Sales v2", "events", Output.TEXT) as report:
        report(1, 2)
    assert capsys.readouterr() == ("", "")


def test_a_program_is_told_once_a_second(capsys: pytest.CaptureFixture[str]) -> None:
    with progress("rebuilds", "Sales v2", "events", Output.JSON) as report:
        report(1, 2)
        report(2, 2)
    assert json.loads(capsys.readouterr().out) == {"rebuilds": "Sales v2", "events": 1, "of": 2}
