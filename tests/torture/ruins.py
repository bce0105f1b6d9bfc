"""The shop as it is ruined: its processes, its streams, its database, and what its readers are sent."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import shutil
import signal
import sys
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from shop.demo.system import CONTEXTS, NATS, System

KEPT = 2_000
"""How many deliveries of a connection may be repeated, the oldest of them minutes later."""
MOST_BYTES = 8 * 2**20


class Ruins(System):
    """The shop with two projectors for each service, which take turns, and with all that can happen to it."""

    def __init__(self, directory: Path, chance: random.Random, *, postgres: bool) -> None:
        super().__init__(directory, postgres=postgres)
        self.meddler = Meddler(chance, lambda: self._nats.url)
        self._asleep = set[asyncio.Task[None]]()

    @property
    def environment(self) -> dict[str, str]:
        """What the processes must know: of the nats-server, only where the meddler is."""
        return {**super().environment, "CEQS_NATS_URL": self.meddler.url}

    @property
    def nats_url(self) -> str:
        """Where the nats-server itself is."""
        return self._nats.url

    async def __aenter__(self) -> Self:
        """Start everything, and the second projectors."""
        await self.meddler.start()
        await super().__aenter__()
        for context in CONTEXTS:
            command = [sys.executable, "-m", "ceqs.cli", "project", context]
            name = f"project {context}, too"
            await self._supervisor.start(name, command, env=self.environment, cwd=self.directory)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop everything."""
        await super().__aexit__(kind, error, trace)
        await self.meddler.stop()

    def log_url(self, context: str) -> str:
        """Where the log of a context is."""
        return self._postgres.url if self._postgres else f"sqlite:///{self.directory}/logs/{context}.db"

    @property
    def running(self) -> dict[str, int]:
        """The process ids of what runs at this moment, by name."""
        return {name: pid for name, pid in self.pids.items() if pid}

    def kill(self, name: str) -> None:
        """End a process by SIGKILL. It is started again."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.running[name], signal.SIGKILL)

    def pause(self, name: str, seconds: float) -> None:
        """Stop a process by SIGSTOP, and let it go on later, as if nothing had happened."""
        pid = self.running[name]
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)
        self._asleep.add(asyncio.create_task(self._wake(pid, seconds)))

    async def awake(self) -> None:
        """Wait until no process is paused."""
        await asyncio.gather(*self._asleep)

    def wipe(self) -> None:
        """Lose every stream: the nats-server dies, and its disk with it. It is started again, with an empty one."""
        pid = self.running.get(NATS)
        if pid is None:
            return
        self.kill(NATS)
        # Whoever starts it again has no turn before the files are gone.
        until = time.monotonic() + 5
        while time.monotonic() < until and not _is_dead(pid):
            time.sleep(0.001)
        shutil.rmtree(self.directory / "nats/store", ignore_errors=True)

    @property
    def has_database(self) -> bool:
        """Whether there is a database server to be restarted."""
        return self._postgres is not None

    async def crash(self) -> None:
        """End the database server by SIGKILL, and start it again."""
        assert self._postgres
        await self._postgres.kill()
        await self._postgres.start()

    async def _wake(self, pid: int, seconds: float) -> None:
        await asyncio.sleep(seconds)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def _is_dead(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


class Meddler:
    """A proxy before the nats-server: readers are sent events again, late, and in another order.

    It knows the protocol (https://docs.nats.io/reference/reference-protocols/nats-protocol) as far as to tell one
    message from the next, and those that a JetStream consumer delivers from all others.
    """

    def __init__(self, chance: random.Random, upstream: Callable[[], str]) -> None:
        self._chance = chance
        self._upstream = upstream
        self._server: asyncio.Server | None = None
        self._connections = set[asyncio.Task[None]]()
        self.repeated = self.reordered = 0

    @property
    def url(self) -> str:
        """Where clients connect to."""
        assert self._server
        return f"nats://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def start(self) -> None:
        """Listen."""
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)

    async def stop(self) -> None:
        """End all connections."""
        if self._server:
            self._server.close()
            for connection in self._connections:
                connection.cancel()
            await asyncio.gather(*self._connections, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        self._connections.add(task)
        writers = [writer]
        try:
            port = int(self._upstream().rpartition(":")[2])
            server = await asyncio.open_connection("127.0.0.1", port, limit=MOST_BYTES)
            writers.append(server[1])
            async with asyncio.TaskGroup() as both:
                both.create_task(self._up(reader, server[1]))
                both.create_task(self._down(server[0], writer))
        except* (OSError, asyncio.IncompleteReadError):
            pass  # One of the two is gone, and the other will be told.
        finally:
            self._connections.discard(task)
            for one in writers:
                one.close()

    async def _up(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        raise ConnectionResetError

    async def _down(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        chance, kept, held = self._chance, deque[bytes](maxlen=KEPT), list[bytes]()
        while True:
            line = await reader.readuntil(b"\r\n")
            verb, *words = line.split()
            frame = line + (await reader.readexactly(int(words[-1]) + 2) if verb in (b"MSG", b"HMSG") else b"")
            if verb == b"HMSG" and words[2].startswith(b"$JS.ACK."):
                kept.append(frame)
                if chance.random() < 0.05:
                    held.append(frame)
                    self.reordered += 1
                    continue
                frames = [frame]
                if chance.random() < 0.1:
                    frames.append(chance.choice(kept))
                    self.repeated += 1
            else:
                # Also whenever the consumer has nothing to say but that it lives: nothing is held for long.
                frames = [frame, *chance.sample(held, len(held))]
                held.clear()
            writer.write(b"".join(frames))
            await writer.drain()
