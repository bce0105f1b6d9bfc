"""A bank that is served over a real socket, on a log in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any

import grpc
import grpc.aio
import pytest
from google.rpc import status_pb2

from ceqs.errors import CeqsError, from_status
from ceqs.log import Log, open_log
from ceqs.server import CommandExecutor, Served, Server, ServerSettings
from ceqs.v1 import events_pb2

KEY = "the key of the bank"
COMMANDS = "/bank.v1.BankCommandsService/"
QUERIES = "/bank.v1.BankQueriesService/"


class FakeModel:
    """A model that stands where the test says."""

    def __init__(self) -> None:
        self.total = 0
        self.log_id = ""
        self.position = 0
        self.recorded_at: Any = None
        self.waited: list[tuple[int, float]] = []

    @asynccontextmanager
    async def session(self) -> AsyncIterator[tuple[Any, Any]]:
        yield self, self

    async def wait(self, position: int, timeout: float) -> bool:
        self.waited.append((position, timeout))
        return self.position >= position


@dataclass
class Bank:
    """What a test needs: the messages, the log, the server, and a channel to it."""

    messages: Any
    context: Any
    log: Log
    model: FakeModel
    server: Server
    channel: grpc.aio.Channel
    key: str = KEY

    def __getattr__(self, name: str) -> Any:
        return getattr(self.messages, name)

    async def raw(self, path: str, request: bytes, *, timeout: float = 10, **metadata: Any) -> bytes:
        """Send bytes to a unary rpc."""
        call: Any = self.channel.unary_unary(path)
        response: bytes = await call(request, metadata=_metadata(metadata), timeout=timeout)
        return response

    async def send(self, rpc: str, request: Any, **metadata: Any) -> Any:
        """Send a command."""
        return self._message(f"{rpc}Response", await self.raw(COMMANDS + rpc, request.SerializeToString(), **metadata))

    async def ask(self, rpc: str, request: Any, **metadata: str) -> tuple[Any, dict[str, Any]]:
        """Ask a query; give the answer and the trailers."""
        query: Any = self.channel.unary_unary(QUERIES + rpc)
        call = query(request.SerializeToString(), metadata=_metadata(metadata), timeout=10)
        response = self._message(f"{rpc}Response", await call)
        return response, dict(await call.trailing_metadata())

    def events(self, rpc: str, request: Any, **metadata: str) -> Any:
        """Open a stream of EventsService."""
        kind = getattr(events_pb2, f"{rpc}Response")
        open_stream: Any = self.channel.unary_stream(f"/ceqs.v1.EventsService/{rpc}", None, kind.FromString)
        return open_stream(request.SerializeToString(), metadata=_metadata(metadata), timeout=30)

    def watch(self, rpc: str, request: Any, **metadata: str) -> Any:
        """Open a live query."""
        kind = getattr(self.messages, f"{rpc}Response")
        open_stream: Any = self.channel.unary_stream(QUERIES + rpc, None, kind.FromString)
        return open_stream(request.SerializeToString(), metadata=_metadata(metadata), timeout=30)

    def _message(self, name: str, raw: bytes) -> Any:
        return getattr(self.messages, name).FromString(raw)


def _metadata(given: dict[str, Any]) -> tuple[tuple[str, str], ...]:
    return tuple((name.replace("_", "-"), value) for name, value in given.items())


@pytest.fixture
async def log() -> AsyncIterator[Log]:
    opened = await open_log("memory:", "bank")
    yield opened
    await opened.close()


@pytest.fixture
def context(bank: Any) -> Any:
    return bank.make_context()


@pytest.fixture
async def served(bank: Any, context: Any, log: Log) -> AsyncIterator[Bank]:
    model = FakeModel()
    server = Server([Served(context, log, {"Total": model})], ServerSettings(key=KEY, grace=5))
    await server.start()
    async with grpc.aio.insecure_channel(server.address) as channel:
        yield Bank(bank, context, log, model, server, channel)
    await server.stop()


@pytest.fixture
def executor(context: Any, log: Log) -> CommandExecutor:
    return CommandExecutor(context, log)


@pytest.fixture
def refused() -> Any:
    """Expect a call to be refused; give the error that its details tell, and gRPC's own."""
    return _refused


@contextmanager
def _refused(kind: type[CeqsError]) -> Iterator[list[Any]]:
    found: list[Any] = []
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        yield found
    error = caught.value
    details = dict(error.trailing_metadata())["grpc-status-details-bin"]
    assert isinstance(details, bytes)
    status = status_pb2.Status.FromString(details)
    assert status.code == error.code().value[0]
    assert status.message == error.details()
    found.extend([from_status(status), error])
    assert isinstance(found[0], kind)
