"""A project of one's own, as `ceqs new` writes it, for the tests of the commands."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Ceqs = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(autouse=True)
def no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("CEQS_"):
            monkeypatch.delenv(name)


@pytest.fixture
def ceqs(tmp_path: Path) -> Ceqs:
    """Run the command line in a directory (default: tmp_path) and give what came of it."""

    def run(*arguments: str, cwd: Path = tmp_path, **env: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "ceqs.cli", *arguments]
        return subprocess.run(
            command, cwd=cwd, env={**os.environ, **env}, capture_output=True, text=True, timeout=60, check=False
        )

    return run


@pytest.fixture
def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port: int = taken.getsockname()[1]
    return port
