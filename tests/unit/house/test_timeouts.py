"""A test that hangs ends, wherever its time runs out."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]
HANGS = """
import asyncio, time, pytest

@pytest.mark.timeout(0.3)
async def test_it_hangs():
    asyncio.get_running_loop().call_soon(time.sleep, 0.6)
    await asyncio.Event().wait()
"""


def test_a_test_whose_time_is_up_in_a_callback_of_its_event_loop_ends(tmp_path: Path) -> None:
    (tmp_path / "test_hangs.py").write_text(HANGS)
    command = [sys.executable, "-m", "pytest", "-p", "tests.conftest", "-o", "asyncio_mode=auto", "-q", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=100)
    assert "Failed: Timeout" in done.stdout, done.stdout + done.stderr
    assert "1 failed" in done.stdout
