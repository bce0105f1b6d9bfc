"""How a server listens, and what it refuses before it does."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc

from ceqs.errors import Misconfigured
from ceqs.log import MAX_WAITING_ENTRIES
from ceqs.server._roles import EVERY_ROLE, Role


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSettings:
    """Where and how to listen. `port` 0 takes a free one."""

    host: str = "127.0.0.1"
    port: int = 0
    roles: frozenset[Role] = EVERY_ROLE
    """What to serve. A server without commands never writes the log, and takes one that is opened for reading only."""
    shared: bool = False
    """Whether sibling processes listen on the same port; the kernel spreads the connections among them."""
    key: str = ""
    """The context's key; where it is empty, everything private stays shut."""
    tls_certificate: Path | None = None
    """The certificate chain, PEM. Needed, with `tls_key`, to listen on other than the loopback interface."""
    tls_key: Path | None = None
    grace: float = 10.0
    """How long, in seconds, running calls may take to finish when the server stops."""
    max_message: int = 4 * 1024 * 1024
    """The largest request, in bytes; of a larger one gRPC says so with RESOURCE_EXHAUSTED."""
    max_metadata: int = 16 * 1024
    """The most metadata of a call, in bytes, 32 for each pair on top, as HTTP/2 counts; beyond, RESOURCE_EXHAUSTED."""
    max_waiting: int = MAX_WAITING_ENTRIES
    """How many commands of each context may wait for their transaction, or fewer where that takes more than a second;
    one more is Overloaded."""
    states: int = 10_000
    """How many states of each context are kept in memory."""

    def __post_init__(self) -> None:
        if not self.roles:
            raise Misconfigured(f"a server without a role serves nothing; give it one of {', '.join(Role)}")
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise Misconfigured("TLS needs both, a certificate and its key (tls_certificate, tls_key)")
        if self.tls_certificate is None and not _is_loopback(self.host):
            raise Misconfigured(
                f"refusing to listen on {self.host} without TLS: what is sent there, the context's key included, could "
                "be read on the network. Configure TLS (tls_certificate, tls_key), or listen on 127.0.0.1"
            )


@contextmanager
def reserved(settings: ServerSettings) -> Generator[int]:
    """Keep a port for those who are going to share it by SO_REUSEPORT, and for nobody else; give its number.

    Raises Misconfigured, naming host and port, where it cannot be had.
    """
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as reserved:
        try:
            # Over what connections of an earlier server have left behind, but beside nobody.
            reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            reserved.bind((settings.host, settings.port))
        except OSError as error:
            raise _cannot_listen(settings, settings.port, (error.strerror or str(error)).lower()) from error
        # It is ours now. From here on others may bind it too, and none that does not mean to share it.
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        yield reserved.getsockname()[1]


def listen(servers: Iterable[grpc.aio.Server], settings: ServerSettings, port: int) -> None:
    """Make servers listen on one port. Raises Misconfigured, naming host and port, where they cannot."""
    address, credentials = _address(settings, port), _credentials(settings)
    for server in servers:
        try:
            if credentials is not None:
                server.add_secure_port(address, credentials)
            else:
                server.add_insecure_port(address)
        except RuntimeError as error:
            raise _cannot_listen(settings, port, str(error)) from error


def _cannot_listen(settings: ServerSettings, port: int, why: str) -> Misconfigured:
    return Misconfigured(f"cannot listen on {_address(settings, port)}: {why}. Choose another port")


def _address(settings: ServerSettings, port: int) -> str:
    return f"[{settings.host}]:{port}" if ":" in settings.host else f"{settings.host}:{port}"


def _credentials(settings: ServerSettings) -> grpc.ServerCredentials | None:
    if settings.tls_certificate is None or settings.tls_key is None:
        return None
    try:
        pair = settings.tls_key.read_bytes(), settings.tls_certificate.read_bytes()
    except OSError as error:
        raise Misconfigured(f"cannot read {error.filename}, which TLS needs: {error.strerror}") from error
    return grpc.ssl_server_credentials([pair])


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
