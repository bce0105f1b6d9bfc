"""`make` explains itself, and says what is missing where it cannot work."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
TARGETS = ["setup", "gen", "check", "lint", "test", "demo", "run", "bench", "clean"]


def make(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    env = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    return subprocess.run(
        ["make", *arguments], cwd=directory, env=env, capture_output=True, text=True, timeout=60, check=False
    )


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """A copy of the house before anything was set up."""
    shutil.copy(ROOT / "Makefile", tmp_path)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def test_bare_make_prints_every_target_with_what_it_does(bare: Path) -> None:
    printed = make(bare)
    assert printed.returncode == 0
    for target in TARGETS:
        (line,) = [line for line in printed.stdout.splitlines() if line.startswith(f"  make {target} ")]
        assert len(line.split()) > 3
    assert not (bare / ".venv").exists()


def test_a_python_that_is_too_old_is_named(bare: Path) -> None:
    old = bare / "python3.9"
    aged = 'import sys; sys.version_info = (3, 9, 1); sys.version = "3.9.1 (old)"; exec(sys.argv[2])'
    old.write_text(f"#!/bin/sh\nexec {sys.executable} -c '{aged}' \"$@\"\n")
    old.chmod(0o755)
    refused = make(bare, "setup", f"PYTHON={old}")
    assert refused.returncode != 0
    assert f"needs Python 3.11 or newer; {old} is 3.9.1" in refused.stderr
    assert not (bare / ".venv").exists()


def test_a_missing_python_is_named(bare: Path) -> None:
    refused = make(bare, "setup", "PYTHON=no-such-python")
    assert refused.returncode != 0
    assert "finds no no-such-python" in refused.stderr


def test_clean_removes_what_the_targets_made(bare: Path) -> None:
    for made in (".venv/bin", ".ceqs/logs", "server/__pycache__"):
        (bare / made).mkdir(parents=True)
    assert make(bare, "clean").returncode == 0
    assert sorted(path.name for path in bare.iterdir()) == ["Makefile", "pyproject.toml", "server"]
    assert list((bare / "server").iterdir()) == []
