"""Where a server listens, and what it refuses before it does."""

from __future__ import annotations

import socket
import subprocess
from pathlib import Path
from typing import Any

import grpc
import pytest

from ceqs.errors import Misconfigured
from ceqs.server import Served, Server, ServerSettings
from ceqs.testing import eventually
from ceqs.v1 import events_pb2


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.1", "example.org", ""])
def test_other_than_loopback_is_refused_without_tls(host: str) -> None:
    with pytest.raises(Misconfigured, match=r"without TLS.*Configure TLS"):
        ServerSettings(host=host)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "localhost", "::1"])
def test_loopback_needs_no_tls(host: str) -> None:
    assert ServerSettings(host=host).host == host


def test_half_of_a_tls_configuration_is_refused() -> None:
    with pytest.raises(Misconfigured, match="needs both"):
        ServerSettings(tls_certificate=Path("certificate.pem"))


async def test_a_taken_port_is_named(context: Any, served: Any) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        server = Server([Served(context, served.log, {"Total": served.model})], ServerSettings(port=port))
        with pytest.raises(Misconfigured, match=f"cannot listen on 127.0.0.1:{port}: address already in use"):
            await server.start()


async def test_two_servers_never_share_a_port(context: Any, served: Any) -> None:
    settings = ServerSettings(port=served.server.port)
    with pytest.raises(Misconfigured, match=str(served.server.port)):
        await Server([Served(context, served.log, {"Total": served.model})], settings).start()


def listening(port: int) -> int:
    """Give how many sockets of this machine listen on a port."""
    lines = [line.split() for kind in ("tcp", "tcp6") for line in Path(f"/proc/net/{kind}").read_text().splitlines()]
    return sum(line[1].endswith(f":{port:04X}") and line[3] == "0A" for line in lines)


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="only Linux says so")
async def test_calls_are_accepted_side_by_side_until_the_server_stops(context: Any, served: Any) -> None:
    server = Server([Served(context, served.log, {"Total": served.model})], ServerSettings())
    await server.start()
    try:
        # gRPC accepts the calls of a server one after the other.
        assert listening(server.port) > 1
    finally:
        await server.stop()
    await eventually(lambda: listening(server.port) == 0)


async def test_a_certificate_that_cannot_be_read_is_named(context: Any, served: Any, tmp_path: Path) -> None:
    missing = tmp_path / "missing.pem"
    settings = ServerSettings(tls_certificate=missing, tls_key=missing)
    with pytest.raises(Misconfigured, match=r"missing\.pem"):
        await Server([Served(context, served.log, {"Total": served.model})], settings).start()


async def test_tls_is_spoken_where_it_is_configured(context: Any, served: Any, tmp_path: Path) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    command = (
        "openssl req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=localhost -addext subjectAltName=DNS:localhost"
    )
    made = subprocess.run(
        [*command.split(), "-keyout", str(key), "-out", str(certificate)], capture_output=True, check=False
    )
    if made.returncode:
        pytest.skip("there is no openssl here to make a certificate with")
    settings = ServerSettings(host="0.0.0.0", tls_certificate=certificate, tls_key=key)
    server = Server([Served(context, served.log, {"Total": served.model})], settings)
    await server.start()
    credentials = grpc.ssl_channel_credentials(certificate.read_bytes())
    async with grpc.aio.secure_channel(f"localhost:{server.port}", credentials) as channel:
        get_head: Any = channel.unary_unary("/ceqs.v1.EventsService/GetHead")
        raw = await get_head(b"", timeout=10)
        assert events_pb2.GetHeadResponse.FromString(raw).head.log == "bank"
    await server.stop()


async def test_a_projection_without_a_reader_is_refused_at_start(context: Any, log: Any) -> None:
    with pytest.raises(Misconfigured, match="Total, which has no reader"):
        await Server([Served(context, log)], ServerSettings()).start()


def test_a_server_of_nothing_is_refused(context: Any, served: Any) -> None:
    one = Served(context, served.log, {"Total": served.model})
    for several in ([], [one, one]):
        with pytest.raises(Misconfigured, match="one context or several"):
            Server(several, ServerSettings())
