"""A bank that is served by `ceqs serve`, by processes that can be counted and killed."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg
import grpc.aio
import pytest
from sqlalchemy import make_url

from ceqs.client._channel import OPTIONS
from ceqs.log import open_reader
from ceqs.testing import eventually
from ceqs.v1.events_pb2 import RecordedEvent

KEY = "the key of the bank"
START = 40.0
"""Seconds that a server may take to start on a busy machine."""


@pytest.fixture
async def database(postgres: str) -> str:
    """A database of one's own."""
    name = f"db_{uuid.uuid4().hex}"
    connection = await asyncpg.connect(postgres)
    await connection.execute(f"CREATE DATABASE {name}")
    await connection.close()
    return make_url(postgres).set(database=name).render_as_string(hide_password=False)


@dataclass
class Serving:
    """A running `ceqs serve` of the bank."""

    process: asyncio.subprocess.Process
    log: Path
    bank: Any
    address: str = ""
    said: list[dict[str, Any]] = field(default_factory=list)
    """What it has printed."""
    clients: AsyncExitStack = field(default_factory=AsyncExitStack)

    async def listen(self) -> None:
        """Take down what it prints."""
        assert self.process.stdout
        while line := await self.process.stdout.readline():
            self.said.append(json.loads(line))
            self.address = self.said[-1]["address"]

    async def serves(self, processes: int) -> None:
        """Wait until so many processes have said, since the start, that they serve."""
        await eventually(lambda: self.process.returncode is not None or len(self.said) >= processes, START)
        assert self.process.returncode is None, self.logged

    @property
    def logged(self) -> str:
        """The process log."""
        return self.log.read_text()

    @property
    def pids(self) -> list[int]:
        """The server processes that live: children of the command, or itself."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return [int(child) for child in children] or [self.process.pid]

    def connected(self) -> set[int]:
        """Give those of the processes that clients are connected to."""
        return self.owners(int(self.address.rpartition(":")[2]))

    def owners(self, port: int) -> set[int]:
        """Give those of the processes that have a connection whose local port it is."""
        # gRPC listens on 127.0.0.1 as IPv6 has it.
        tables = (Path(f"/proc/net/{table}").read_text().splitlines() for table in ("tcp", "tcp6"))
        sockets = [line.split() for table in tables for line in table]
        found = {f"socket:[{s[9]}]" for s in sockets if s[1].endswith(f":{port:04X}") and s[3] == "01"}
        return {pid for pid in self.pids if any(_target(file) in found for file in Path(f"/proc/{pid}/fd").iterdir())}

    async def client(self, **arguments: Any) -> Any:
        """Give a client with a connection of its own, which the kernel assigns to one of the processes."""
        options = (*OPTIONS, ("grpc.use_local_subchannel_pool", 1))
        channel = await self.clients.enter_async_context(grpc.aio.insecure_channel(self.address, options=options))
        client = self.bank.BankClient(channel, key=KEY, **arguments)
        await client.get_motto(self.bank.GetMottoRequest(), timeout=START)
        return client

    async def clients_of_each(self, count: int = 0) -> list[Any]:
        """Give so many clients or more, until every process has one."""
        clients: list[Any] = []

        async def enough() -> bool:
            clients.append(await self.client())
            return len(clients) >= count and self.connected() == set(self.pids)

        await eventually(enough, START)
        return clients

    async def ends(self, number: signal.Signals = signal.SIGTERM, within: float = 30.0) -> int:
        """Send it a signal and give its exit code."""
        if self.process.returncode is None:
            self.process.send_signal(number)
        try:
            return await asyncio.wait_for(self.process.wait(), within)
        except TimeoutError:
            self.process.kill()  # Its children die with it.
            raise


def _target(file: Path) -> str:
    try:
        return os.readlink(file)
    except FileNotFoundError:  # It was closed meanwhile.
        return ""


class BankServers:
    """Starts servers of the bank on one database."""

    def __init__(self, bank: Any, path: list[str], url: str, directory: Path) -> None:
        self.bank, self.url, self.directory = bank, url, directory
        (directory / "served.py").write_text("from bank_context import make_context\n\nbank = make_context()\n")
        store = {"CEQS_STORE": "postgres", "CEQS_DATABASE_URL": url} if url.startswith("postgresql") else {}
        self.env = {
            **{name: value for name, value in os.environ.items() if not name.startswith("CEQS_")},
            "PYTHONPATH": os.pathsep.join([str(directory), *path]),
            "CEQS_CONTEXTS": "served:bank",
            "CEQS_DATA": str(directory / "data"),
            "CEQS_KEY": KEY,
            "CEQS_GRACE": "5",
            **store,
        }
        self._started = 0

    async def recorded(self) -> list[RecordedEvent]:
        """Give everything that the log has."""
        found, after = list[RecordedEvent](), 0
        reader = await open_reader(self.url, "bank")
        while (part := await reader.read(after=after)).events:
            found += [RecordedEvent.FromString(event.envelope) for event in part.events]
            after = part.through
        await reader.close()
        return found

    @asynccontextmanager
    async def serving(
        self,
        processes: int = 1,
        address: str = "127.0.0.1:0",
        *,
        roles: Sequence[str] = (),
        **env: str,
    ) -> AsyncIterator[Serving]:
        """Serve the bank by so many processes, in some roles; give them when they serve."""
        self._started += 1
        log = self.directory / f"server-{self._started}.log"
        with log.open("w") as stderr:
            process = await asyncio.create_subprocess_exec(
                *[sys.executable, "-m", "ceqs.cli", "serve", "--processes", str(processes), "--output", "json"],
                *[word for role in roles for word in ("--role", role)],
                env={**self.env, "CEQS_ADDRESSES": f"bank={address}", **env},
                cwd=self.directory,
                stdout=asyncio.subprocess.PIPE,
                stderr=stderr,
            )
        serving = Serving(process, log, self.bank)
        listening = asyncio.create_task(serving.listen())
        try:
            await serving.serves(processes)
            async with serving.clients:
                yield serving
        finally:
            await serving.ends()
            await listening


@pytest.fixture
def servers(bank: Any, bank_path: list[str], database: str, tmp_path: Path) -> BankServers:
    """Servers of the bank on PostgreSQL."""
    return BankServers(bank, bank_path, database, tmp_path)


@pytest.fixture
def servers_on_files(bank: Any, bank_path: list[str], tmp_path: Path) -> BankServers:
    """Servers of the bank on SQLite."""
    return BankServers(bank, bank_path, "sqlite", tmp_path)
