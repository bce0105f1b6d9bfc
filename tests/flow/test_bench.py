"""The benchmarks run. What they measure is not judged here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def bench(results: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.bench", "--quick", "--results", str(results), *options]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)


@pytest.mark.timeout(300)  # on two busy cores; on two idle ones it takes a fifth
def test_every_measure_stands_beside_its_floor(tmp_path: Path) -> None:
    results = tmp_path / "results.json"
    done = bench(results, "--store", "sqlite")
    assert done.returncode == 0, done.stderr
    measures = json.loads(results.read_text())
    assert len([m for m in measures if m["reach"]]) == 25
    for measure in measures:
        assert measure["name"] in done.stdout
        assert measure["ratio"] == measure["min"] == measure["max"] == measure["value"] / measure["floor"]
        assert measure["generator"] in done.stdout


def test_one_measure_is_picked_by_its_name(tmp_path: Path) -> None:
    done = bench(tmp_path / "results.json", "--only", "1 client", "--store", "sqlite", "--json")
    assert done.returncode == 0, done.stderr
    (measure,) = json.loads(done.stdout)
    assert (measure["name"], measure["store"]) == ("unary command, 1 client, p50", "sqlite")
    assert json.loads((tmp_path / "results.json").read_text()) == [measure]


def test_a_name_that_no_measure_has_is_answered_with_those_that_there_are(tmp_path: Path) -> None:
    done = bench(tmp_path / "results.json", "--only", "nonsense")
    assert done.returncode == 1
    assert "hot boundary" in done.stderr
