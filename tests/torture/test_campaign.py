"""A hundred times SIGKILL, on SQLite and on PostgreSQL: every promise holds."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CYCLES = 50
"""On each store."""


@pytest.mark.timeout(300)  # on two busy cores; on two idle ones it takes a tenth
@pytest.mark.parametrize("store", ["sqlite", "postgres"])
def test_what_was_promised_is_kept_however_often_servers_are_killed(store: str) -> None:
    options = ["--cycles", f"{CYCLES}", "--seed", "1", "--store", store, "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "tests.torture", *options], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    (account,) = json.loads(done.stdout)
    assert account["violations"] == []
    assert (account["cycles"], account["kills"]["servers killed"]) == (CYCLES, CYCLES)
    assert account["found"] == account["operations"]["accepted"] > 5 * CYCLES
    assert account["in_flight"] > CYCLES, "servers were killed under load"
    assert account["landed"] > 0, "some were killed between commit and answer"
    assert account["lost"] > 0
    acts = account["acts"]
    assert min(acts["stream"], acts["leave_stream"], acts["execute_many"]) > 0
    assert account["ordered"] > CYCLES, "commands of streams were followed through the kills"
    if store == "postgres":
        assert min(account["kills"][how] for how in ("cut while committing", "killed in a batch")) > 0


def test_a_broken_promise_fails_the_campaign() -> None:
    """The checker is tested by itself; this is the way from it to the exit code."""
    forget = (
        "from tests.torture import books, campaign\n"
        "take = books.Books._take\n"
        "books.Books._take = lambda self, recorded: () if recorded.position == 5 else take(self, recorded)\n"
        "import sys; sys.exit(campaign.main())"
    )
    options = ["--cycles", "3", "--seed", "1", "--store", "sqlite"]
    done = subprocess.run(
        [sys.executable, "-c", forget, *options], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert done.returncode == 1, done.stderr
    assert "sqlite: gapless" in done.stderr
    assert "Again: --store sqlite --seed 1 --cycles 3" in done.stderr
