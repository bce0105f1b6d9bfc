"""The supervisor restarts what dies and leaves nothing behind."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ceqs.embedded import Supervisor
from ceqs.errors import Misconfigured

SLEEPER = [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(60)"]
STUBBORN = [
    sys.executable,
    "-c",
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(60)",
]


def alive(pid: int) -> bool:
    """Say whether the process runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def until(condition: Callable[[], object], within: float = 10.0) -> None:
    deadline = time.monotonic() + within
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true"
        await asyncio.sleep(0.01)


class Lines(list[tuple[str, str]]):
    def __call__(self, name: str, line: str) -> None:
        self.append((name, line))


async def test_lines_of_a_child_reach_the_sink_under_its_name() -> None:
    lines = Lines()
    script = "import sys; print('out'); print('err', file=sys.stderr); print('x' * 200_000); print('end', end='')"
    async with Supervisor(lines) as supervisor:
        await supervisor.start("talker", [sys.executable, "-uc", script])
        await until(lambda: ("talker", "end") in lines)
    assert lines[:4] == [("talker", "out"), ("talker", "err"), ("talker", "x" * 200_000), ("talker", "end")]


async def test_children_that_are_not_captured_print_where_the_supervisor_does(
    capfd: pytest.CaptureFixture[str],
) -> None:
    lines = Lines()
    async with Supervisor(lines, captured=False) as supervisor:
        await supervisor.start(
            "talker", [sys.executable, "-c", "import sys; print('out'); print('err', file=sys.stderr)"]
        )
        await until(lambda: lines)
    said = capfd.readouterr()
    assert (said.out, said.err) == ("out\n", "err\n")
    assert lines[0][1].startswith("ended (exit code 0); starting again")


async def test_a_killed_child_is_started_again() -> None:
    lines = Lines()
    async with Supervisor(lines) as supervisor:
        first = await supervisor.start("sleeper", SLEEPER)
        await until(lambda: ("sleeper", "up") in lines)
        os.kill(first, signal.SIGKILL)
        await until(lambda: supervisor.pids.get("sleeper", first) != first)
        assert supervisor.restarts == {"sleeper": 1}
        assert any("killed by SIGKILL" in line for _, line in lines)


async def test_a_child_that_keeps_dying_is_started_ever_more_slowly() -> None:
    lines = Lines()
    async with Supervisor(lines) as supervisor:
        await supervisor.start("dier", [sys.executable, "-c", "raise SystemExit(3)"])
        await until(lambda: supervisor.restarts["dier"] >= 2)
    delays = [line for _, line in lines if line.startswith("ended (exit code 3)")]
    assert delays[0].endswith("0.25 s")
    assert delays[1].endswith("0.5 s")


async def test_stop_leaves_no_process_even_of_one_that_ignores_sigterm() -> None:
    lines = Lines()
    supervisor = Supervisor(lines, grace=0.3)
    pids = [await supervisor.start("stubborn", STUBBORN), await supervisor.start("sleeper", SLEEPER)]
    await until(lambda: {("stubborn", "up"), ("sleeper", "up")} <= set(lines))
    await supervisor.stop()
    assert not any(alive(pid) for pid in pids)
    assert supervisor.pids == {}


async def test_stop_ends_grandchildren_too() -> None:
    lines = Lines()
    script = "import subprocess as s, sys; print(s.Popen([sys.executable, '-c', 'import time; time.sleep(60)']).pid)"
    async with Supervisor(lines) as supervisor:
        await supervisor.start("parent", [sys.executable, "-uc", script + "; import time; time.sleep(60)"])
        await until(lambda: lines)
    grandchild = int(lines[0][1])
    await until(lambda: not alive(grandchild))


async def test_what_a_dead_child_started_is_gone_before_it_starts_again() -> None:
    lines = Lines()
    script = "import subprocess as s, sys; print(s.Popen([sys.executable, '-c', 'import time; time.sleep(60)']).pid)"
    async with Supervisor(lines) as supervisor:
        await supervisor.start("parent", [sys.executable, "-uc", script])
        await until(lambda: supervisor.restarts["parent"])
        assert not alive(int(lines[0][1]))


async def test_stop_does_not_wait_for_the_delay_of_a_dead_child() -> None:
    supervisor = Supervisor()
    await supervisor.start("dier", [sys.executable, "-c", "raise SystemExit(1)"])
    await until(lambda: not supervisor.pids)
    await asyncio.wait_for(supervisor.stop(), 2)


async def test_restart_gives_a_fresh_process_with_the_same_environment() -> None:
    lines = Lines()
    async with Supervisor(lines) as supervisor:
        script = "import os, time; print(os.environ['COLOUR'], flush=True); time.sleep(60)"
        first = await supervisor.start("child", [sys.executable, "-c", script], env={"COLOUR": "red"})
        await until(lambda: lines.count(("child", "red")) == 1)
        assert await supervisor.restart("child") != first
        await until(lambda: lines.count(("child", "red")) == 2)
        assert not alive(first)


async def test_a_program_that_does_not_exist_is_named() -> None:
    async with Supervisor() as supervisor:
        with pytest.raises(Misconfigured, match="no program '/no/such/program'"):
            await supervisor.start("ghost", ["/no/such/program"])
        assert supervisor.pids == {}


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child that its parent has died")
async def test_children_die_with_a_supervisor_that_is_killed() -> None:
    silent = [sys.executable, "-c", "import time; time.sleep(60)"]  # It shall not die of a broken pipe.
    script = f"""
        import asyncio
        from ceqs.embedded import Supervisor
        async def main():
            print(await Supervisor().start("sleeper", {silent!r}), flush=True)
            await asyncio.sleep(60)
        asyncio.run(main())
    """
    with subprocess.Popen([sys.executable, "-c", textwrap.dedent(script)], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        # It is tethered once it has become the program: its command line no longer begins with `python -I`.
        await until(lambda: b"-I" not in Path(f"/proc/{child}/cmdline").read_bytes())
        parent.kill()
    await until(lambda: not alive(child))
