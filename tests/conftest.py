"""Fixtures that several rooms' tests share: real servers, and two small contexts to serve."""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import make_url, text
from sqlalchemy.ext.asyncio import create_async_engine

from ceqs.codegen import generate
from ceqs.embedded import NatsServer, PostgresServer
from ceqs.log import open_log

HERE = Path(__file__).parent
CONTEXTS = HERE / "unit"
LONG = {
    HERE / "flow",
    HERE / "torture",
    CONTEXTS / "cli/test_projection.py",
    CONTEXTS / "cli/test_relay.py",
    CONTEXTS / "projectors/test_own_databases.py",
}
AGAIN = 5.0
"""Seconds after which a test whose time is up is told so once more."""
Ceqs = Callable[..., subprocess.CompletedProcess[str]]

# Where it is set, each of the many processes that are started would compile everything again.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long tests come first: workers that take from each other's rest are done at the same time with short ones."""
    items.sort(key=lambda item: LONG.isdisjoint([item.path, *item.path.parents]))


@pytest.hookimpl(wrapper=True)
def pytest_timeout_set_timer() -> Generator[None, object, object]:
    """Tell a test that its time is up again and again: an event loop drops what is raised while it runs a callback."""
    done = yield
    seconds, _ = signal.getitimer(signal.ITIMER_REAL)
    if seconds:
        signal.setitimer(signal.ITIMER_REAL, seconds, AGAIN)
    return done


@pytest.fixture(scope="session")
def nursery() -> Iterator[subprocess.Popen[str]]:
    """Runs the command line without importing everything anew; see nursery.py."""
    command = [sys.executable, str(Path(__file__).with_name("nursery.py"))]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1) as process:
        yield process
        assert process.stdin
        process.stdin.close()


@pytest.fixture
def ceqs(nursery: subprocess.Popen[str], tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Ceqs:
    """Run the command line in a directory (default: tmp_path) and give what came of it."""
    said = tmp_path_factory.mktemp("said")

    def run(*arguments: str, cwd: Path = tmp_path, **env: str) -> subprocess.CompletedProcess[str]:
        files = {name: str(said / name) for name in ("stdout", "stderr")}
        asked = {"arguments": arguments, "cwd": str(cwd), "env": {**os.environ, **env}, **files}
        assert nursery.stdin
        assert nursery.stdout
        nursery.stdin.write(json.dumps(asked) + "\n")
        code = int(nursery.stdout.readline())
        stdout, stderr = (Path(file).read_text() for file in files.values())
        return subprocess.CompletedProcess(arguments, code, stdout, stderr)

    return run


@pytest.fixture
async def nats_server(tmp_path: Path) -> AsyncIterator[NatsServer]:
    async with NatsServer(tmp_path / "nats") as server:
        yield server


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """The url of a PostgreSQL."""
    server = PostgresServer()
    asyncio.run(server.start())
    yield server.url
    asyncio.run(server.stop())


@pytest.fixture
def postgres_url(postgres: str) -> str:
    """A database of its own on PostgreSQL."""
    url, name = make_url(postgres), f"t{uuid.uuid4().hex[:12]}"

    async def create() -> None:
        engine = create_async_engine(url.set(drivername="postgresql+asyncpg"), isolation_level="AUTOCOMMIT")
        async with engine.connect() as connection:
            await connection.execute(text(f"CREATE DATABASE {name}"))
        await engine.dispose()

    asyncio.run(create())
    return url.set(database=name).render_as_string(hide_password=False)


@pytest.fixture(params=["sqlite", "postgresql"])
def models_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where places are, on either database."""
    return f"sqlite:///{tmp_path}/models" if request.param == "sqlite" else request.getfixturevalue("postgres_url")


@pytest.fixture(scope="session")
def bank_path(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Where a process finds the bank's modules, generated ones included: what to put on its path."""
    return _made("bank", tmp_path_factory)


@pytest.fixture(scope="session")
def bank(bank_path: list[str]) -> Any:
    """The messages of bank.v1 by name, `make_context()`, the bank with its handlers, and `BankClient`."""
    return _imported("bank", bank_path)


@pytest.fixture(scope="session")
def campus(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The messages of campus.v1 by name, `make_context()`, courses and their students, and `CampusClient`."""
    return _imported("campus", _made("campus", tmp_path_factory))


@pytest.fixture(scope="session")
def vessels(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The messages of vessels.v1 by name, and `make_context(factor)`: one state, kept in each way that there is."""
    return _imported("vessels", _made("vessels", tmp_path_factory))


@pytest.fixture(scope="session")
def parcels(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The messages of parcels.v1 by name, and `make_context(**handlers)` and `ParcelsClient`.

    Its events were recorded otherwise once.
    """
    return _imported("parcels", _made("parcels", tmp_path_factory))


@pytest.fixture(scope="session")
def shelves(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The messages of shelves.v1 by name, and `make_context(books)` and `ShelvesClient`: it has keyed models."""
    return _imported("shelves", _made("shelves", tmp_path_factory))


@pytest.fixture(scope="session")
def kiosk_path(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Where a process finds the press and the kiosk, which projects what the press tells: what to put on its path."""
    return _made("kiosk", tmp_path_factory)


@pytest.fixture
async def stacks(shelves: Any, models_url: str) -> AsyncIterator[Any]:
    """The shelves with a log in memory, and places that are filled from it when a test says so, on either database."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(CONTEXTS / "shelves")
        kind = importlib.import_module("stacks").Stacks
    log = await open_log("memory:", "shelves")
    stacks = kind(shelves, log, models_url)
    yield stacks
    await stacks.close()
    await log.close()


def _made(context: str, places: pytest.TempPathFactory) -> list[str]:
    generated = places.mktemp("generated")
    generate(CONTEXTS / context / "proto", generated)
    return [str(generated), str(CONTEXTS / context)]


def _imported(context: str, path: list[str]) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [*path, *sys.path])
        handlers = importlib.import_module(f"{context}_context")
        messages = importlib.import_module(f"{context}.v1.{context}_pb2")
        client = importlib.import_module(f"{context}.v1.{context}_client")
    name = f"{context.capitalize()}Client"
    return SimpleNamespace(**vars(messages), **{"make_context": handlers.make_context, name: getattr(client, name)})
