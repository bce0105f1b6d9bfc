"""The process log."""

from __future__ import annotations

import os
import subprocess
import sys

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


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_traceback_says_where_and_why_but_not_with_what(form: str) -> None:
    environment = {**os.environ, "CEQS_LOG": form}
    done = subprocess.run([sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, check=True)
    assert "no such card" in done.stderr
    assert "PayOrder" in done.stderr
    assert "fail" in done.stderr
    assert "4929" not in done.stderr
    assert done.stdout == ""
