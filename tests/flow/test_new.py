"""From nothing to the first event of one's own within a minute; what `ceqs new` writes is sound."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.ports import free_address

BIN = Path(sys.executable).parent


def run(*command: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=110, check=False)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    parent = tmp_path_factory.mktemp("new")
    made = run(str(BIN / "ceqs"), "new", "bakery", cwd=parent)
    assert made.returncode == 0, made.stderr
    return parent / "bakery"


def test_its_own_tests_pass(written: Path) -> None:
    tested = run(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:asyncio", cwd=written)
    assert tested.returncode == 0, tested.stdout + tested.stderr
    assert "5 passed" in tested.stdout


def test_its_contract_is_clean_by_bufs_standard(written: Path, tmp_path: Path) -> None:
    image = tmp_path / "image.binpb"
    assert run(sys.executable, "-m", "ceqs.codegen", "--image", str(image), cwd=written).returncode == 0
    linted = run(str(BIN / "buf"), "lint", str(image), cwd=written)
    assert linted.returncode == 0, linted.stdout
    formatted = run(str(BIN / "buf"), "format", "proto", "--diff", "--exit-code", cwd=written)
    assert formatted.returncode == 0, formatted.stdout


def test_its_code_is_formatted_and_typed(written: Path, tmp_path: Path) -> None:
    checked = run(str(BIN / "ruff"), "check", "--no-cache", cwd=written)
    assert checked.returncode == 0, checked.stdout
    formatted = run(str(BIN / "ruff"), "format", "--no-cache", "--diff", cwd=written)
    assert formatted.returncode == 0, formatted.stdout
    typed = run(str(BIN / "mypy"), "--cache-dir", str(tmp_path / "mypy"), cwd=written)
    assert typed.returncode == 0, typed.stdout


def test_generating_again_changes_nothing(written: Path) -> None:
    again = run(str(BIN / "ceqs"), "gen", "--output", "json", cwd=written)
    assert json.loads(again.stdout) == {"changed": []}


def test_its_makefile_explains_itself(written: Path) -> None:
    told = run("make", cwd=written)
    assert told.returncode == 0
    assert "make dev" in told.stdout
    assert "Run everything here" in told.stdout


@pytest.fixture
def address() -> str:
    return free_address()


def test_from_nothing_to_the_first_event_takes_less_than_a_minute(tmp_path: Path, address: str) -> None:
    began = time.monotonic()
    assert run(str(BIN / "ceqs"), "new", "corner_shop", cwd=tmp_path).returncode == 0
    project = tmp_path / "corner_shop"
    env = {**os.environ, "CEQS_ADDRESSES": f"corner_shop={address}"}
    command = [str(BIN / "ceqs"), "dev", "--output", "json"]
    with subprocess.Popen(command, cwd=project, env=env, stdout=subprocess.PIPE, text=True) as dev:
        try:
            assert dev.stdout is not None
            assert any(json.loads(line).get("ready") for line in dev.stdout)
            called = run(str(BIN / "ceqs"), "call", "OpenItem", "item_id=1", "title=bread", cwd=project)
            assert called.returncode == 0, called.stderr
            seen = run(*(str(BIN / "ceqs"), "tail", "--after", "0", "--no-follow", "--output", "json"), cwd=project)
            (event,) = map(json.loads, seen.stdout.splitlines())
            assert event["type"] == "corner_shop.v1.ItemOpened"
            assert event["event"]["title"] == "bread"
            assert time.monotonic() - began < 60
        finally:
            dev.send_signal(signal.SIGINT)
            dev.communicate(timeout=30)
    assert dev.returncode == 0
