"""A small gRPC server that misbehaves as told, and a wire to it that can be cut."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf.message import Message

from ceqs.client import Answer, CommandStream, ContextClient
from ceqs.errors import CeqsError, to_status

LENDING = "/library.v1.LendingCommandsService/"
QUERIES = "/library.v1.LendingQueriesService/"


@dataclass
class Call:
    """A call as the server saw it. `ended` is set when the server is done with it, or the client went away."""

    rpc: str
    request: bytes
    metadata: dict[str, str]
    context: Any
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def command_id(self) -> str:
        return self.metadata["ceqs-command-id"]

    async def fail(self, error: CeqsError) -> None:
        """End the call as servers of ceqs do."""
        status = to_status(error, "library")
        code = next(code for code in grpc.StatusCode if code.value[0] == status.code)
        details = (("grpc-status-details-bin", status.SerializeToString()),)
        await self.context.abort(code, status.message, details)

    async def write(self, message: Message) -> None:
        await self.context.write(message.SerializeToString())


Unary = Callable[[Call], Awaitable[Message | None]]
Stream = Callable[[Call], Awaitable[None]]


class Misbehaving(grpc.GenericRpcHandler):
    """Answers each call of an rpc by the next step of its script; the last step repeats."""

    port: int

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.scripts: dict[str, tuple[Any, list[Any]]] = {}

    def unary(self, rpc: str, *steps: Unary | Message | CeqsError) -> None:
        self.scripts[rpc] = grpc.unary_unary_rpc_method_handler, list(steps)

    def stream(self, rpc: str, *steps: Stream | CeqsError | Sequence[Message]) -> None:
        self.scripts[rpc] = grpc.unary_stream_rpc_method_handler, list(steps)

    def bidirectional(self, rpc: str, *steps: Stream | CeqsError) -> None:
        self.scripts[rpc] = grpc.stream_stream_rpc_method_handler, list(steps)

    def service(self, details: grpc.HandlerCallDetails) -> Any:
        rpc = details.method.rpartition("/")[2]
        if rpc not in self.scripts:
            return None
        handler, _ = self.scripts[rpc]

        async def run(request: bytes, context: Any) -> bytes | None:
            return await self._run(rpc, request, context)

        return handler(run)

    async def _run(self, rpc: str, request: bytes, context: Any) -> bytes | None:
        _, steps = self.scripts[rpc]
        metadata = {key: value for key, value in context.invocation_metadata() if isinstance(value, str)}
        call = Call(rpc, request, metadata, context)
        self.calls.append(call)
        step = steps.pop(0) if len(steps) > 1 else steps[0]
        try:
            if isinstance(step, CeqsError):
                await call.fail(step)
            elif isinstance(step, Message):
                return step.SerializeToString()
            elif isinstance(step, Sequence):
                for message in step:
                    await call.write(message)
            else:
                answer = await step(call)
                return None if answer is None else answer.SerializeToString()
            return None
        finally:
            call.ended.set()


class Wire:
    """Forwards bytes between the client and the server until it is cut; new connections are forwarded again."""

    def __init__(self, port: int) -> None:
        self.connections = 0
        self._to = port
        self._open: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self, port: int = 0) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", port)
        self.port: int = self._server.sockets[0].getsockname()[1]

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def cut(self) -> None:
        """Lose what is on its way."""
        for writer in self._open:
            writer.transport.abort()

    async def stop(self) -> None:
        """Cut, and refuse new connections."""
        self._server.close()
        while self._tasks:
            self.cut()
            await asyncio.wait(self._tasks)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with self._opened(writer), contextlib.suppress(OSError):
            there_reader, there_writer = await asyncio.open_connection("127.0.0.1", self._to)
            with self._opened(there_writer):
                await asyncio.gather(self._forward(reader, there_writer), self._forward(there_reader, writer))

    @contextlib.contextmanager
    def _opened(self, writer: asyncio.StreamWriter) -> Iterator[None]:
        self._open.add(writer)
        try:
            yield
        finally:
            self._open.discard(writer)
            writer.transport.abort()

    async def _forward(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await source.read(65536):
                sink.write(data)
                await sink.drain()
        sink.transport.abort()


@pytest.fixture
async def server() -> AsyncIterator[Misbehaving]:
    handler = Misbehaving()
    grpc_server = grpc.aio.server(handlers=[handler])
    handler.port = grpc_server.add_insecure_port("127.0.0.1:0")
    await grpc_server.start()
    yield handler
    await grpc_server.stop(None)


@pytest.fixture
async def wire(server: Misbehaving) -> AsyncIterator[Wire]:
    wire = Wire(server.port)
    await wire.start()
    yield wire
    await wire.stop()


@pytest.fixture
def client_type(library: Any) -> type[ContextClient]:
    """What the generator writes for the library."""

    class LibraryStream(CommandStream):
        async def lend_book(self, request: Message, **options: Any) -> Any:
            return await self._send(LENDING + "LendBook", request, library.LendBookResponse, **options)

        async def acquire_book(self, request: Message, **options: Any) -> Any:
            return await self._send(LENDING + "AcquireBook", request, library.AcquireBookResponse, **options)

    class LibraryClient(ContextClient):
        ceqs_context = "library"
        ceqs_events = {  # noqa: RUF012  # as generated
            event.full_name: event.message for event in library.contract.events.values()
        }

        ceqs_commands = {  # noqa: RUF012  # as generated
            rpc.request: (rpc.path, rpc.response) for rpc in library.contract.commands.values()
        }

        def stream(self, *, timeout: float | None = None) -> Any:
            return LibraryStream(self._settings(timeout))

        def execute_many(self, requests: Any, *, timeout: float | None = None) -> Any:
            return self._execute_many(requests, self.stream(timeout=timeout))

        async def lend_book(self, request: Message, **options: Any) -> Any:
            return await self._command(LENDING + "LendBook", request, library.LendBookResponse, **options)

        async def acquire_book(self, request: Message, **options: Any) -> Any:
            return await self._command(LENDING + "AcquireBook", request, library.AcquireBookResponse, **options)

        async def close_library(self, request: Message, **options: Any) -> Any:
            return await self._command(LENDING + "CloseLibrary", request, library.CloseLibraryResponse, **options)

        async def get_book(self, request: Message, **options: Any) -> Answer[Any]:
            return await self._query(QUERIES + "GetBook", request, library.GetBookResponse, **options)

        async def list_shelf(self, request: Message, **options: Any) -> Answer[Any]:
            return await self._query(QUERIES + "ListShelf", request, library.ListShelfResponse, **options)

        def watch_book(self, request: Message, **options: Any) -> AsyncIterator[Answer[Any]]:
            return self._watch(QUERIES + "WatchBook", request, library.WatchBookResponse, **options)

    return LibraryClient


@pytest.fixture
async def client(client_type: Any, wire: Wire) -> AsyncIterator[Any]:
    async with client_type(wire.address, key="sesame", actor="ann", timeout=5.0) as client:
        yield client
