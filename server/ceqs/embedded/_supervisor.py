"""Child processes that are restarted when they die, and that never outlive their parent."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from ceqs.embedded._child import bound_to_parent
from ceqs.errors import Misconfigured

Sink = Callable[[str, str], None]
"""Takes the name of a child and a line that it printed, without the line's end."""

FIRST_DELAY, LONGEST_DELAY = 0.25, 5.0
LONG_LIFE = 10.0
"""Seconds after which a child counts as healthy: the next restart is a quick one again."""


@dataclass(slots=True)
class _Child:
    name: str
    argv: tuple[str, ...]
    env: Mapping[str, str] | None
    cwd: Path | None
    keeper: asyncio.Task[None] | None = None
    process: asyncio.subprocess.Process | None = None
    starts: int = 0
    wanted: bool = True


class Supervisor:
    """Keeps child processes running until it is stopped.

    `sink` gets every line that a child prints (stdout and stderr alike) and what is said of its death; not `captured`,
    children print where the supervisor itself does. `grace` is how many seconds a child has between SIGTERM and
    SIGKILL. Each child leads a process group of its own, so that a terminal's Ctrl-C reaches the
    supervisor alone, which then stops the children in the reverse order of their start. Where the supervisor itself
    is killed, the kernel kills the children (Linux).
    """

    def __init__(self, sink: Sink | None = None, *, grace: float = 10.0, captured: bool = True) -> None:
        self._sink: Sink = _nowhere if sink is None else sink
        self._captured = captured
        self._grace = grace
        self._children: dict[str, _Child] = {}

    async def start(
        self, name: str, argv: Sequence[str], *, env: Mapping[str, str] | None = None, cwd: Path | None = None
    ) -> int:
        """Start a child and give its process id. `env` is added to the parent's environment.

        Raises Misconfigured where there is no such program, or a child of that name already.
        """
        if name in self._children:
            raise Misconfigured(f"a child process named {name!r} is running already")
        program = shutil.which(argv[0])
        if program is None:
            raise Misconfigured(f"{name}: there is no program {argv[0]!r}")
        child = self._children[name] = _Child(name, (program, *argv[1:]), env, cwd)
        process, output = await self._spawn(child)
        child.keeper = asyncio.create_task(self._keep(child, process, output), name=f"keep {name}")
        return process.pid

    @property
    def pids(self) -> dict[str, int]:
        """The process ids of the children that run now, by name."""
        return {c.name: c.process.pid for c in self._children.values() if c.process and c.process.returncode is None}

    @property
    def restarts(self) -> dict[str, int]:
        """How many times each child was started again, by name."""
        return {c.name: c.starts - 1 for c in self._children.values()}

    async def restart(self, name: str) -> int:
        """Stop a child gracefully and start it again; give its new process id."""
        child = self._children[name]
        await self.end(name)
        return await self.start(name, child.argv, env=child.env, cwd=child.cwd)

    async def end(self, name: str) -> None:
        """Stop one child for good: SIGTERM, then SIGKILL for what is left of its process group."""
        child = self._children.pop(name)
        child.wanted = False
        if child.process is not None and child.process.returncode is None:
            _signal_group(child.process.pid, signal.SIGTERM)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(child.process.wait(), self._grace)
            _signal_group(child.process.pid, signal.SIGKILL)
        elif child.keeper is not None:
            child.keeper.cancel()  # It sits out the delay before a restart.
        if child.keeper is not None:
            await asyncio.wait([child.keeper])

    async def stop(self) -> None:
        """Stop all children, side by side. Nothing of them is left behind."""
        await asyncio.gather(*map(self.end, list(self._children)))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def _spawn(self, child: _Child) -> tuple[asyncio.subprocess.Process, asyncio.Task[None] | None]:
        if not self._captured:
            return await self._execute(child, None), None
        # A pipe of our own: asyncio's would keep wait() from returning while a grandchild holds it open.
        reading, writing = os.pipe()
        output = asyncio.create_task(self._pump(child.name, reading), name=f"output of {child.name}")
        try:
            return await self._execute(child, writing), output
        finally:
            os.close(writing)

    async def _execute(self, child: _Child, output: int | None) -> asyncio.subprocess.Process:
        child.process = await asyncio.create_subprocess_exec(
            *bound_to_parent(child.argv),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env={**os.environ, **(child.env or {})},
            cwd=child.cwd,
            start_new_session=True,
        )
        child.starts += 1
        return child.process

    async def _keep(
        self, child: _Child, process: asyncio.subprocess.Process, output: asyncio.Task[None] | None
    ) -> None:
        delay = 0.0
        while True:
            born = time.monotonic()
            code = await process.wait()
            _signal_group(process.pid, signal.SIGKILL)  # What it left of its group would hold ports and files.
            if output is not None:
                await asyncio.wait([output], timeout=1)
                output.cancel()
            if not child.wanted:
                return
            longlived = time.monotonic() - born > LONG_LIFE
            delay = FIRST_DELAY if longlived or not delay else min(delay * 2, LONGEST_DELAY)
            self._sink(child.name, f"ended ({_ending(code)}); starting again in {delay:g} s")
            await asyncio.sleep(delay)
            process, output = await self._spawn(child)

    async def _pump(self, name: str, descriptor: int) -> None:
        reader = asyncio.StreamReader()
        pipe = os.fdopen(descriptor, "rb", buffering=0)
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), pipe
        )
        rest = b""
        try:
            # Not readline(): it fails on lines beyond its limit, and a child's output is whatever it is.
            while chunk := await reader.read(65536):
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    self._sink(name, line.decode(errors="replace").rstrip("\r"))
        finally:
            if rest:
                self._sink(name, rest.decode(errors="replace"))
            transport.close()


def _signal_group(leader: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(leader, number)


def _nowhere(_name: str, _line: str) -> None:
    return


def _ending(code: int) -> str:
    return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
