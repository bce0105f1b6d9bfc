"""The process log."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

SCRIPT = """
import structlog
from ceqs.cli._logging import configure_logging

def fail(card_number):
    raise ValueError("no such card")

configure_logging()
try:
    fail("4929-0000")
except ValueError:
    structlog.get_logger("ceqs").exception("it failed", command="PayOrder")
"""


def test_a_command_that_prints_its_result_prints_nothing_else(ceqs: Callable[..., Any]) -> None:
    env = {"CEQS_CONTEXTS": "shop.orders.context:orders", "CEQS_NATS_URL": "nats://127.0.0.1:1"}
    done = ceqs("relay", "status", **env)
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (1, "", 1)


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_traceback_says_where_and_why_but_not_with_what(form: str) -> None:
    environment = {**os.environ, "CEQS_LOG": form}
    done = subprocess.run([sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, check=True)
    assert "no such card" in done.stderr
    assert "PayOrder" in done.stderr
    assert "fail" in done.stderr
    assert "4929" not in done.stderr
    assert done.stdout == ""
