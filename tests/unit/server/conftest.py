"""A bank that is served over a real socket, on a log in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any

import grpc
import grpc.aio
import pytest
from google.rpc import status_pb2

from ceqs.contract import CommandRpc
from ceqs.errors import CeqsError, Conflict, LogUnavailable, from_status
from ceqs.log import Appended, Entry, Log, Progress, Slice, Wanted, open_log
from ceqs.server import (
    CommandCall,
    CommandExecutor,
    Executed,
    Served,
    Server,
    ServerSettings,
    _decider,
    _intake,
)
from ceqs.v1 import events_pb2
from ceqs.v1.commands_pb2 import Command, CommandOutcome, ExecuteStreamRequest, ExecuteStreamResponse

KEY = "the key of the bank"
COMMANDS = "/bank.v1.BankCommandsService/"
QUERIES = "/bank.v1.BankQueriesService/"


def turns_of(seconds: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the server read, and decide, for so long before it does anything else."""
    for room in (_intake, _decider):
        monkeypatch.setattr(room, "LONGEST_TURN", seconds)


class FakeModel:
    """A model that stands where the test says."""

    def __init__(self) -> None:
        self.total = 0
        self.log_id = ""
        self.position = 0
        self.recorded_at: Any = None
        self.parked = 0
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


class Sender:
    """Sends commands to an executor, without gRPC."""

    def __init__(self, messages: Any, context: Any, log: Any) -> None:
        self.bank, self.context, self.log = messages, context, log
        self.executor = CommandExecutor(context, log)
        self._sent = 0

    def rpc(self, name: str) -> CommandRpc:
        found: CommandRpc = self.context.contract.commands[COMMANDS + name]
        return found

    def decided(self) -> int:
        """How often a handler was asked."""
        count: int = self.context.method(self.rpc("Deposit")).__self__.decided
        return count

    async def send(
        self, name: str, command_id: str = "", call: dict[str, Any] | None = None, /, **fields: Any
    ) -> Executed:
        self._sent += 1
        sent = CommandCall(command_id=command_id or f"{id(self)}-{self._sent}", **(call or {}))
        return await self.executor.execute(self.rpc(name), getattr(self.bank, f"{name}Request")(**fields), sent)

    async def submit(self, name: str, /, **fields: Any) -> Executed:
        """Send a command as its bytes came, past gatekeepers."""
        self._sent += 1
        call, rpc = CommandCall(command_id=f"{id(self)}-{self._sent}"), self.rpc(name)
        raw = getattr(self.bank, f"{name}Request")(**fields).SerializeToString()
        return Executed(rpc, await self.executor.submit(rpc, raw, lambda _: call))

    async def events(self) -> list[events_pb2.RecordedEvent]:
        return [events_pb2.RecordedEvent.FromString(e.envelope) for e in (await self.log.read(limit=10_000)).events]


class Watched:
    """A log that counts, and can be told to misbehave."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self.reads = 0
        self.batches: list[list[Entry]] = []
        self.held: list[list[str]] = []
        self.errors: list[Exception] = []
        self.lose_replies = 0
        self.open = asyncio.Event()
        self.open.set()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)

    @property
    def entries(self) -> list[Entry]:
        return [entry for batch in self.batches for entry in batch]

    async def read_all(self, wanted: Sequence[Wanted]) -> Sequence[Slice]:
        self.reads += 1
        return await self._log.read_all(wanted)

    @asynccontextmanager
    async def holding(self, keys: Collection[str]) -> AsyncIterator[None]:
        self.held.append(sorted(keys))
        yield
        self.held.append([])

    async def append_all(
        self, entries: Sequence[Entry], progress: Progress | None = None
    ) -> Sequence[Appended | CeqsError]:
        """Append once it is `open`."""
        self.batches.append(list(entries))
        if self.errors:
            error = self.errors.pop(0)
            if isinstance(error, Conflict):
                return [error] * len(entries)
            raise error
        outcomes = await self._log.append_all(entries, progress)
        await self.open.wait()
        if self.lose_replies:
            self.lose_replies -= 1
            raise LogUnavailable
        return outcomes


@pytest.fixture
def watched(log: Log) -> Watched:
    return Watched(log)


@pytest.fixture
def sender(bank: Any, context: Any, watched: Watched) -> Sender:
    return Sender(bank, context, watched)


@pytest.fixture
def rival(bank: Any, log: Log) -> Sender:
    """Another server on the same log, with a cache of its own."""
    return Sender(bank, bank.make_context(), log)


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


class CommandStream:
    """A call of ExecuteStream, by hand."""

    def __init__(self, channel: grpc.aio.Channel, bank: Any, timeout: float | None = 30, **metadata: str) -> None:
        method: Any = channel.stream_stream("/ceqs.v1.CommandsService/ExecuteStream")
        named = tuple((name.replace("_", "-"), value) for name, value in metadata.items())
        self.call = method(metadata=named, timeout=timeout)
        self._bank = bank
        self._number = 0
        self.messages = 0
        self.writing: asyncio.Task[None] | None = None

    def command(self, rpc: str, request: dict[str, Any] | bytes, /, **fields: Any) -> Command:
        self._number += 1
        raw = request if isinstance(request, bytes) else getattr(self._bank, f"{rpc}Request")(**request)
        encoded = raw if isinstance(raw, bytes) else raw.SerializeToString()
        return Command(**{"number": self._number, "rpc": COMMANDS + rpc, "request": encoded, **fields})

    async def write(self, *commands: Command) -> None:
        await self.call.write(ExecuteStreamRequest(commands=commands).SerializeToString())

    async def send(self, rpc: str, request: dict[str, Any] | bytes, **fields: Any) -> int:
        """Send one command; give its number."""
        await self.write(self.command(rpc, request, **fields))
        return self._number

    async def read(self, count: int) -> dict[int, CommandOutcome]:
        """Read so many outcomes."""
        found: dict[int, CommandOutcome] = {}
        while len(found) < count:
            raw = await asyncio.wait_for(self.call.read(), 30)
            assert raw is not grpc.aio.EOF
            self.messages += 1
            found |= {outcome.number: outcome for outcome in ExecuteStreamResponse.FromString(raw).outcomes}
        return found

    async def outcome(self, rpc: str, request: dict[str, Any] | bytes, **fields: Any) -> CommandOutcome:
        """Send one command and read its outcome."""
        number = await self.send(rpc, request, **fields)
        return (await self.read(1))[number]


@pytest.fixture
async def stream_to(bank: Any) -> AsyncIterator[Any]:
    """Open streams of commands to a server."""
    streams: list[CommandStream] = []

    def open_stream(channel: grpc.aio.Channel, timeout: float | None = 30, **metadata: str) -> CommandStream:
        streams.append(CommandStream(channel, bank, timeout, **metadata))
        return streams[-1]

    yield open_stream
    for stream in streams:
        stream.call.cancel()
        if stream.writing:
            stream.writing.cancel()
            await asyncio.wait([stream.writing])


@pytest.fixture
def stream(served: Bank, stream_to: Any) -> CommandStream:
    opened: CommandStream = stream_to(served.channel)
    return opened
