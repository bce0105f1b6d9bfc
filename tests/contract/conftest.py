"""The places where a log is kept."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from ceqs.embedded import PostgresServer
from ceqs.log import Log, open_log


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    server = PostgresServer()
    asyncio.run(server.start())
    yield server.url
    asyncio.run(server.stop())


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
