"""`ceqs gen` beside `ceqs dev`, which generates too."""

from __future__ import annotations

import threading
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from ceqs.cli import _generate
from ceqs.cli._generate import generate_project
from ceqs.cli._settings import Settings


def test_who_generates_later_reads_what_is_there_when_the_one_before_has_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else one that began with fewer protos, and ends last, takes away what the other has generated."""
    reading, may_write = threading.Event(), threading.Event()

    def generate(proto: Path, out: Path) -> list[Path]:
        found = sorted(tmp_path.glob("*.proto"))
        reading.set()
        assert may_write.wait(30)
        return found

    monkeypatch.setattr(_generate, "generate", generate)
    (tmp_path / "one.proto").touch()
    settings = Settings(project=tmp_path)
    with ThreadPoolExecutor() as pool:
        first: Future[list[Path]] = pool.submit(generate_project, settings)
        assert reading.wait(30)
        reading.clear()
        second = pool.submit(generate_project, settings)
        assert not reading.wait(0.2)
        (tmp_path / "two.proto").touch()
        may_write.set()
        assert (len(first.result(30)), len(second.result(30))) == (1, 2)
