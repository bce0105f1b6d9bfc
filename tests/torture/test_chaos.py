"""The shop is ruined for a while, and ends where its logs say."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from tests.torture.chaos import UNPAID

ROOT = Path(__file__).parents[2]
ACTS = 12


def ruined(*arguments: str, store: str) -> subprocess.CompletedProcess[str]:
    options = ["--cycles", f"{ACTS}", "--seed", "11", "--store", store, "--json"]
    return subprocess.run(
        [sys.executable, *arguments, *options], capture_output=True, text=True, check=False, cwd=ROOT, timeout=280
    )


@pytest.mark.timeout(300)  # on two busy cores; on two idle ones it takes a tenth
def test_every_service_ends_where_the_logs_say_whatever_is_killed_paused_wiped_and_repeated() -> None:
    done = ruined("-m", "tests.torture.chaos", store="postgres")
    assert done.returncode == 0, done.stderr
    (account,) = json.loads(done.stdout)
    assert account["violations"] == []
    acts = account["acts"]
    assert sum(acts.values()) == ACTS
    assert {name.partition(":")[0] for name in acts} == {"killed", "paused", "streams wiped", "database crashed"}
    assert account["timers"] == UNPAID
    assert account["repeated"] > 0
    assert account["reordered"] > 0
    assert account["outcomes"]["accepted"] > 100, "each command by two clients"
    assert account["messages"] > account["events"] > 100
    assert account["model_rows"] > 50
