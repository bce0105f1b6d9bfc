"""How a server listens, and what it refuses before it does."""

from __future__ import annotations

import ipaddress
import socket
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
    """How many commands of each context may wait for their transaction; one more is Overloaded."""
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


def listen(server: grpc.aio.Server, settings: ServerSettings) -> int:
    """Make the server listen and give its port. Raises Misconfigured, naming host and port, where it cannot."""
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    address = f"{host}:{settings.port}"
    credentials = _credentials(settings)
    try:
        if credentials is not None:
            return server.add_secure_port(address, credentials)
        return server.add_insecure_port(address)
    except RuntimeError as error:
        raise Misconfigured(f"cannot listen on {address}: {_reason(settings)}. Choose another port") from error


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


def _reason(settings: ServerSettings) -> str:
    """Say why, as the operating system does: gRPC does not."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        try:
            probe.bind((settings.host, settings.port))
        except OSError as error:
            return (error.strerror or str(error)).lower()
    return "the port is taken"
