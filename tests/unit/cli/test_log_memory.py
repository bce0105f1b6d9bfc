"""`ceqs log remember` and `ceqs log purge`, with and without a server."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from ceqs.cli._admin import PATIENCE
from ceqs.log import Entry, open_log
from ceqs.testing import eventually

Ceqs = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def env(tmp_path: Path, free_port: int) -> dict[str, str]:
    return {
        "CEQS_CONTEXTS": "shop.orders.context:orders",
        "CEQS_ADDRESSES": f"orders=127.0.0.1:{free_port}",
        "CEQS_DATA": str(tmp_path / "data"),
        "CEQS_KEY": "secret",
    }


@pytest.fixture
def log_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/data/logs/orders.db"


@pytest.fixture
def history(log_url: str) -> None:
    """Record a command of 40 days ago, under a promise of 30, and a younger one."""

    async def record() -> None:
        for days_ago in (40, 20):
            past = dt.datetime.now(dt.UTC) - dt.timedelta(days=days_ago)
            log = await open_log(log_url, "orders", clock=lambda past=past: past)  # type: ignore[misc]
            await log.remember(30)
            await log.append(Entry(command_id=f"{days_ago} days ago", remember=True))
            await log.close()

    asyncio.run(record())


@pytest.fixture
def hours() -> float:
    """How long a server waits from one pass of forgetting to the next."""
    return 0


@pytest.fixture
def serving(env: dict[str, str], tmp_path: Path, history: None, hours: float) -> Iterator[int]:
    """Serve; give the process id."""
    command = [sys.executable, "-m", "ceqs.cli", "serve", "--output", "json"]
    with subprocess.Popen(
        command,
        cwd=tmp_path,
        env={**os.environ, **env, "CEQS_PURGE_HOURS": f"{hours}"},
        stdout=subprocess.PIPE,
        text=True,
    ) as server:
        assert server.stdout is not None
        server.stdout.readline()
        yield server.pid
        server.terminate()


def said(done: subprocess.CompletedProcess[str]) -> dict[str, object]:
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def purged(forgotten: int, examined: int, *, dry_run: bool = False) -> dict[str, object]:
    return {"purged": "orders", "examined": examined, "forgotten": forgotten, "dry_run": dry_run}


@pytest.mark.usefixtures("history")
def test_what_has_lapsed_is_purged_where_no_server_runs(ceqs: Ceqs, env: dict[str, str]) -> None:
    assert said(ceqs("log", "purge", "--dry-run", "-o", "json", **env)) == purged(1, 2, dry_run=True)
    assert ceqs("log", "purge", **env).stdout == "orders: forgot 1 of 2 commands\n"
    assert said(ceqs("log", "purge", "-o", "json", **env)) == purged(0, 1)


@pytest.mark.usefixtures("serving")
def test_what_has_lapsed_is_purged_through_the_server_by_whoever_has_the_key(ceqs: Ceqs, env: dict[str, str]) -> None:
    for key in ("", "wrong"):
        refused = ceqs("log", "purge", **{**env, "CEQS_KEY": key})
        assert refused.returncode == 1, refused.stdout
    assert said(ceqs("log", "purge", "-o", "json", **env)) == purged(1, 2)
    assert said(ceqs("log", "remember", "orders", "-o", "json", **env)) == {"remembers": "orders", "days": 30}
    in_use = ceqs("log", "remember", "orders", "--days", "60", **env)
    assert in_use.returncode == 2
    assert "is being written by another process" in in_use.stderr


def test_a_server_that_is_too_busy_to_answer_at_once_is_not_taken_for_one_that_does_not_run(
    ceqs: Ceqs, env: dict[str, str], serving: int
) -> None:
    os.kill(serving, signal.SIGSTOP)
    again = threading.Timer(PATIENCE + 1, os.kill, [serving, signal.SIGCONT])
    again.start()
    try:
        assert said(ceqs("log", "purge", "-o", "json", **env)) == purged(1, 2)
    finally:
        again.join()


@pytest.mark.usefixtures("serving")
@pytest.mark.parametrize("hours", [0.0001])
async def test_a_server_forgets_by_itself(log_url: str) -> None:
    with closing(sqlite3.connect(log_url.removeprefix("sqlite:///"))) as database:

        def remembered() -> list[str]:
            return [row[0] for row in database.execute("SELECT command_id FROM commands")]

        await eventually(lambda: remembered() == ["20 days ago"])


@pytest.mark.usefixtures("history")
def test_a_promise_is_lengthened_freely_and_shortened_only_on_demand(ceqs: Ceqs, env: dict[str, str]) -> None:
    assert ceqs("log", "remember", "orders", "--forever", **env).stdout == "orders: commands are remembered for ever\n"
    refused = ceqs("log", "remember", "orders", "--days", "7", **env)
    assert refused.returncode == 2
    assert "ceqs log remember orders --days 7 --shorten" in refused.stderr
    asked = ceqs("log", "remember", "orders", "--days", "7", "--shorten", **env)
    assert asked.stdout == "orders: commands are remembered for 7 days\n"
    assert said(ceqs("log", "purge", "-o", "json", **env)) == purged(0, 2), "what was promised before is kept"


def test_there_must_be_a_log(ceqs: Ceqs, env: dict[str, str], log_url: str) -> None:
    for arguments in (["purge"], ["remember", "orders", "--days", "7"]):
        missing = ceqs("log", *arguments, **env)
        assert missing.returncode == 1
        assert "there is no log at" in missing.stderr
    assert not Path(log_url.removeprefix("sqlite:///")).exists()


def test_two_times_are_one_too_many(ceqs: Ceqs, env: dict[str, str]) -> None:
    assert "not both" in ceqs("log", "remember", "orders", "--days", "7", "--forever", **env).stderr
