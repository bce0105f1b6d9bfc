"""The places where a log is kept, and what may happen on the way to one."""

from __future__ import annotations

import asyncio
import contextlib
import re
import sqlite3
import uuid
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from sqlalchemy import make_url

from ceqs.log import Log, open_log


@pytest.fixture(params=["memory", "sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "memory":
        return "memory:"
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/log.db"
    return str(request.getfixturevalue("postgres"))


@pytest.fixture
def name() -> str:
    """A log of one's own, in whatever database."""
    return f"log_{uuid.uuid4().hex}"


@pytest.fixture
async def log(url: str, name: str) -> AsyncIterator[Log]:
    log = await open_log(url, name)
    yield log
    await log.close()


@dataclass
class Proxy:
    """Stands between a log and its server, and cuts the connection when a COMMIT passes, or what else commits."""

    host: str
    port: int
    cut_before: int = 0
    """So many COMMITs are lost with the connection."""
    cut_after: int = 0
    """So many are delivered, but their answers are lost with the connection."""
    delay: float = 0.0
    """Seconds by which a cut connection's COMMIT is delivered late."""
    refuse: bool = False
    commit: bytes = b"COMMIT\0"
    """By what a COMMIT is known."""
    address: int = 0
    cuts: int = 0
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Proxy]:
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.address = server.sockets[0].getsockname()[1]
        async with server:
            yield self
            server.close()
            while self._tasks:
                await self._tasks.pop()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._tasks.append(asyncio.create_task(self._serve(reader, writer)))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.refuse:
            writer.transport.abort()
            return
        from_server, to_server = await asyncio.open_connection(self.host, self.port)
        back = asyncio.create_task(self._copy(from_server, writer))
        commit = b""
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                if self.commit in data and self.cut_before + self.cut_after > 0:
                    commit = data
                    break
                to_server.write(data)
        back.cancel()
        await asyncio.wait([back])
        if commit:
            self.cuts += 1
            if self.cut_before:
                self.cut_before -= 1
            else:
                self.cut_after -= 1
                if self.delay:
                    writer.transport.abort()
                    await asyncio.sleep(self.delay)
                to_server.write(commit)
                assert re.search(b"COMMIT|SELECT [01]", await from_server.read(65536))
        to_server.close()
        await to_server.wait_closed()
        writer.transport.abort()

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                writer.write(data)
        writer.close()


@pytest.fixture
async def proxy(postgres: str) -> AsyncIterator[Proxy]:
    url = make_url(postgres)
    assert url.host
    assert url.port
    async with Proxy(url.host, url.port).running() as proxy:
        yield proxy


@pytest.fixture
def through(postgres: str, proxy: Proxy) -> str:
    return make_url(postgres).set(port=proxy.address).render_as_string(hide_password=False)


class Database:
    """The database of a log, past the log itself."""

    def __init__(self, url: str, name: str) -> None:
        self.url, self.name = url, name

    async def run(self, statement: str) -> Sequence[Any]:
        if self.url.startswith("sqlite"):
            path = self.url.removeprefix("sqlite:///")
            with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
                return connection.execute(statement).fetchall()
        postgres = await asyncpg.connect(self.url, server_settings={"search_path": f"ceqs_{self.name}"})
        try:
            return [tuple(row) for row in await postgres.fetch(statement)]
        finally:
            await postgres.close()


@pytest.fixture
def database(url: str, name: str) -> Database:
    if url == "memory:":
        pytest.skip("a log in memory has no database")
    return Database(url, name)
