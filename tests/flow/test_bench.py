"""The benchmarks run. What they measure is not judged here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

BENCH = Path(__file__).parents[1] / "bench" / "run.py"


def test_every_measure_stands_beside_its_floor(tmp_path: Path) -> None:
    results = tmp_path / "results.json"
    options = ["--runs", "1", "--seconds", "0.3", "--store", "sqlite", "--results", str(results)]
    done = subprocess.run([sys.executable, str(BENCH), *options], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    measures = json.loads(results.read_text())
    assert len(measures) == 4
    for measure in measures:
        assert measure["name"] in done.stdout
        assert measure["ratio"] == measure["min"] == measure["max"] == measure["value"] / measure["floor"]
