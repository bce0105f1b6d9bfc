"""A project of one's own, as `ceqs new` writes it, for the tests of the commands."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

Ceqs = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(autouse=True)
def no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("CEQS_"):
            monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def nursery() -> Iterator[subprocess.Popen[str]]:
    """Runs the command line without importing everything anew; see nursery.py."""
    command = [sys.executable, str(Path(__file__).with_name("nursery.py"))]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1) as process:
        yield process
        assert process.stdin
        process.stdin.close()


@pytest.fixture
def ceqs(nursery: subprocess.Popen[str], tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Ceqs:
    """Run the command line in a directory (default: tmp_path) and give what came of it."""
    said = tmp_path_factory.mktemp("said")

    def run(*arguments: str, cwd: Path = tmp_path, **env: str) -> subprocess.CompletedProcess[str]:
        files = {name: str(said / name) for name in ("stdout", "stderr")}
        asked = {"arguments": arguments, "cwd": str(cwd), "env": {**os.environ, **env}, **files}
        assert nursery.stdin
        assert nursery.stdout
        nursery.stdin.write(json.dumps(asked) + "\n")
        code = int(nursery.stdout.readline())
        stdout, stderr = (Path(file).read_text() for file in files.values())
        return subprocess.CompletedProcess(arguments, code, stdout, stderr)

    return run


@pytest.fixture
def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port: int = taken.getsockname()[1]
    return port
