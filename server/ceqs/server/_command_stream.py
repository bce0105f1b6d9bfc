"""CommandsService: streams of commands, each answered by itself.

read ──> decode ──> CommandExecutor ──> outcomes ──> write
  ^                                                    │
  └──────────── while fewer than BOUND wait ───────────┘
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import grpc.aio
from google.protobuf.message import DecodeError, Message
from google.rpc import status_pb2

from ceqs.contract import CommandRpc, Prefixes, varint
from ceqs.errors import Invalid, Overloaded, Unavailable, Unimplemented
from ceqs.log import Appended
from ceqs.model import Context
from ceqs.queries import Stop
from ceqs.server._batch import Queued
from ceqs.server._calls import Calls, CommandCall
from ceqs.server._commands import CommandExecutor
from ceqs.server._decode import drop_unknown
from ceqs.server._handlers import GrpcContext, Handlers, write
from ceqs.server._refusals import status_of
from ceqs.v1.commands_pb2 import Command, CommandOutcome, ExecuteStreamRequest, ExecuteStreamResponse

PATH = "/ceqs.v1.CommandsService/ExecuteStream"
DOMAIN = "ceqs"
BOUND = 1024
"""How many commands of a stream may wait for their outcomes to be taken; then it is not read."""
MAX_BYTES = 1024 * 1024
"""About how many bytes of responses one message carries, unless a single one is larger."""


_OUTCOME = Prefixes(ExecuteStreamResponse.OUTCOMES_FIELD_NUMBER)
_RECEIPT, _RESPONSE = map(Prefixes, (CommandOutcome.RECEIPT_FIELD_NUMBER, CommandOutcome.RESPONSE_FIELD_NUMBER))
_NUMBER = varint(CommandOutcome.NUMBER_FIELD_NUMBER << 3)


@dataclass(frozen=True, slots=True)
class Streamed:
    """A command rpc that streams may name."""

    rpc: CommandRpc
    context: Context
    executor: CommandExecutor
    guarded: bool
    """Whether a gatekeeper is asked: only then its turn has to be waited for before it can be submitted."""


def streamed(context: Context, executor: CommandExecutor) -> Iterable[Streamed]:
    """Give the commands of a context."""
    for rpc in context.contract.commands.values():
        yield Streamed(rpc, context, executor, executor.guards(rpc))


def add_command_stream(handlers: Handlers, commands: Iterable[Streamed], calls: Calls, stop: Stop) -> None:
    """Serve CommandsService for these commands."""
    by_path = {one.rpc.path: one for one in commands}

    async def serve(context: GrpcContext) -> None:
        await _Stream(by_path, calls, context).run(stop)

    handlers.bidirectional(PATH, DOMAIN, serve)


class _Stream:
    """One call: what it has read and not yet answered."""

    def __init__(self, commands: dict[str, Streamed], calls: Calls, context: GrpcContext) -> None:
        self._commands = commands
        self.calls = calls
        self._context = context
        self.sender = calls.sender(context)
        self._waiting = 0
        self._room = asyncio.Event()
        self._turns: dict[Any, asyncio.Task[None]] = {}
        """The last command of each boundary where a gatekeeper is asked: the next one waits for it."""
        self._asking: set[asyncio.Task[None]] = set()
        """All of those commands."""
        self._outcomes: deque[bytes] = deque()
        self._news = asyncio.Event()
        """That there are outcomes, or that reading has ended."""
        self.ended = False
        """That nobody waits for outcomes any more."""

    async def run(self, stop: Stop) -> None:
        """Read until the client or the server ends the stream, and answer all that was read."""
        reading = asyncio.create_task(stop.or_result(self._read()))
        reading.add_done_callback(lambda _: self._news.set())
        try:
            while self._waiting or not reading.done():
                await self._news.wait()
                self._news.clear()
                while self._outcomes:
                    message, answered = self._ready()
                    await write(self._context, message)
                    self._waiting -= answered
                    self._room.set()
            await reading
        finally:
            # What the log has been given is recorded all the same.
            self.ended = True
            tasks = [reading, *self._asking]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        if stop.asked:
            raise Unavailable("This server is going away. Send again what it has not answered.")

    async def _read(self) -> None:
        while (raw := await self._context.read()) is not grpc.aio.EOF:
            arrived = time.monotonic()
            for command in _decoded(raw).commands:
                one = self._commands.get(command.rpc)
                while self._waiting >= BOUND or (self._waiting and one is not None and one.executor.is_full(one.rpc)):
                    self._room.clear()
                    await self._room.wait()
                self._begin(one, command, arrived)
                self._waiting += 1

    def _begin(self, one: Streamed | None, command: Command, arrived: float) -> None:
        if one is None:
            unknown = Unimplemented(f"this server has no command rpc {command.rpc!r}")
            self.tell(_refused(command.number, status_of(unknown, domain=DOMAIN, rpc=PATH)))
            return
        sent = _Sent(one.rpc, command.request, self, one, command, arrived)
        if one.guarded or self._turns:
            try:
                self._begin_in_turn(sent)
            except Exception as error:  # noqa: BLE001  # every error becomes a status; the unforeseen are logged
                sent.set_exception(error)
        elif not self._waiting and one.executor.is_full(one.rpc):
            # Who has nothing under way would wait for others: it is told instead, and decides for itself.
            sent.set_exception(Overloaded())
        else:
            # Others have come along in its message already.
            one.executor.queue(sent, hurry=True)

    def _begin_in_turn(self, sent: _Sent) -> None:
        one = sent.one
        one.executor.intake.read(sent)
        # Without what code makes of it: a narrowed boundary and the whole one overlap.
        key = one.context.name, sent.boundary.state.name, sent.boundary.tags
        before = self._turns.get(key)
        if not one.guarded and before is None:
            one.executor.queue(sent, hurry=True)
            return
        turn = asyncio.create_task(self._in_turn(before, sent))
        self._turns[key] = turn
        self._asking.add(turn)
        turn.add_done_callback(partial(self._leave, key))

    async def _in_turn(self, before: asyncio.Task[None] | None, sent: _Sent) -> None:
        if before is not None:
            await asyncio.wait([before])
        try:
            executed = await sent.one.executor.execute(sent.rpc, sent.request, sent.call)
        except Exception as error:  # noqa: BLE001  # as above
            sent.set_exception(error)
        else:
            sent.set_result(executed.appended)

    def _leave(self, key: Any, turn: asyncio.Task[None]) -> None:
        self._asking.discard(turn)
        if self._turns.get(key) is turn:
            del self._turns[key]

    def tell(self, outcome: bytes) -> None:
        """Have an outcome written."""
        if not self._outcomes:
            self._news.set()
        self._outcomes.append(outcome)

    def _ready(self) -> tuple[bytes, int]:
        """Give a message of the outcomes that there are, as far as they fit, and how many those are."""
        parts: list[bytes] = []
        size = 0
        while self._outcomes and size < MAX_BYTES:
            outcome = self._outcomes.popleft()
            parts += _OUTCOME[len(outcome)], outcome
            size += len(outcome)
        return b"".join(parts), len(parts) // 2


@dataclass(slots=True, eq=False)
class _Sent(Queued):
    """A command of a stream."""

    stream: _Stream
    one: Streamed
    command: Command
    arrived: float
    """When it did, on the clock of time.monotonic()."""
    told: bool = field(init=False, default=False)

    def says(self, request: Message) -> CommandCall:
        stream = self.stream
        return stream.calls.streamed(self.rpc, request, self.command, stream.sender, self.arrived)

    def done(self) -> bool:
        return self.told or self.stream.ended

    def set_result(self, appended: Appended) -> None:
        # Its receipt and its response are at hand as bytes.
        receipt, response = appended.encoded, appended.response
        parts = [_NUMBER, varint(self.command.number), _RECEIPT[len(receipt)], receipt]
        if response:
            parts += _RESPONSE[len(response)], response
        self.told = True
        self.stream.tell(b"".join(parts))

    def set_exception(self, error: Exception) -> None:
        self.told = True
        status = status_of(error, domain=self.one.context.name, rpc=self.rpc.path)
        self.stream.tell(_refused(self.command.number, status))


def _refused(number: int, status: status_pb2.Status) -> bytes:
    return CommandOutcome(number=number, status=status).SerializeToString()


def _decoded(raw: bytes) -> ExecuteStreamRequest:
    """Decode a message whole: what this build does not know of it, it must not leave out."""
    try:
        message = ExecuteStreamRequest.FromString(raw)
    except DecodeError as error:
        raise Invalid(f"the message is no {ExecuteStreamRequest.DESCRIPTOR.full_name}: {error}") from error
    if drop_unknown(message, raw):
        raise Invalid(f"the message has fields that {ExecuteStreamRequest.DESCRIPTOR.full_name} has not in this server")
    return message
