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
from dataclasses import dataclass
from functools import partial
from typing import Any

import grpc.aio
from google.protobuf.message import DecodeError, Message

from ceqs.contract import CommandRpc, prefixes, varint
from ceqs.errors import Invalid, Unavailable, Unimplemented
from ceqs.log import Appended
from ceqs.model import Context
from ceqs.queries import Stop
from ceqs.server._calls import Calls, CommandCall
from ceqs.server._commands import CommandExecutor
from ceqs.server._decode import Decoder, drop_unknown
from ceqs.server._handlers import GrpcContext, Handlers, write
from ceqs.server._refusals import status_of
from ceqs.v1.commands_pb2 import Command, CommandOutcome, ExecuteStreamRequest, ExecuteStreamResponse

PATH = "/ceqs.v1.CommandsService/ExecuteStream"
DOMAIN = "ceqs"
BOUND = 1024
"""How many commands of a stream may wait for their outcomes to be taken; then it is not read."""
MAX_BYTES = 1024 * 1024
"""About how many bytes of responses one message carries, unless a single one is larger."""


_OUTCOME = prefixes(ExecuteStreamResponse.OUTCOMES_FIELD_NUMBER)
_RECEIPT, _RESPONSE = map(prefixes, (CommandOutcome.RECEIPT_FIELD_NUMBER, CommandOutcome.RESPONSE_FIELD_NUMBER))
_NUMBER = varint(CommandOutcome.NUMBER_FIELD_NUMBER << 3)


@dataclass(frozen=True, slots=True)
class Streamed:
    """A command rpc that streams may name."""

    rpc: CommandRpc
    context: Context
    executor: CommandExecutor
    decode: Decoder
    guarded: bool
    """Whether a gatekeeper is asked: only then its turn has to be waited for before it can be submitted."""


def streamed(context: Context, executor: CommandExecutor) -> Iterable[Streamed]:
    """Give the commands of a context."""
    for rpc in context.contract.commands.values():
        yield Streamed(rpc, context, executor, Decoder(rpc.request, strict=True), executor.guards(rpc))


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
        self._calls = calls
        self._context = context
        self._sender = calls.sender(context)
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
                # Who has nothing under way would wait for others: it is told instead, and decides for itself.
                while self._waiting >= BOUND or (self._waiting and one is not None and one.executor.full):
                    self._room.clear()
                    await self._room.wait()
                self._waiting += 1
                answer = _Answer(self, command, one, arrived)
                try:
                    self._begin(one, answer)
                except Exception as error:  # noqa: BLE001  # every error becomes a status; the unforeseen are logged
                    answer.set_exception(error)

    def _begin(self, one: Streamed | None, answer: _Answer) -> None:
        if one is None:
            raise Unimplemented(f"this server has no command rpc {answer.command.rpc!r}")
        if one.guarded or self._turns:
            self._begin_in_turn(one, answer)
        else:
            # Others have come along in its message already.
            one.executor.queue(one.rpc, answer.read, answer, hurry=True)

    def _begin_in_turn(self, one: Streamed, answer: _Answer) -> None:
        request, call = answer.read()
        boundary = one.context.boundary(one.rpc, request)
        # Without what code makes of it: a narrowed boundary and the whole one overlap.
        key = one.context.name, boundary.state.name, boundary.tags
        before = self._turns.get(key)
        if not one.guarded and before is None:
            one.executor.queue(one.rpc, lambda: (request, call), answer, hurry=True)
            return
        turn = asyncio.create_task(self._in_turn(before, one, request, call, answer))
        self._turns[key] = turn
        self._asking.add(turn)
        turn.add_done_callback(partial(self._leave, key))

    async def _in_turn(
        self, before: asyncio.Task[None] | None, one: Streamed, request: Message, call: CommandCall, answer: _Answer
    ) -> None:
        if before is not None:
            await asyncio.wait([before])
        try:
            executed = await one.executor.execute(one.rpc, request, call)
        except Exception as error:  # noqa: BLE001  # as above
            answer.set_exception(error)
        else:
            answer.set_result(executed.appended)

    def _leave(self, key: Any, turn: asyncio.Task[None]) -> None:
        self._asking.discard(turn)
        if self._turns.get(key) is turn:
            del self._turns[key]

    def read(self, one: Streamed, command: Command, arrived: float) -> tuple[Message, CommandCall]:
        """Read a command. Raises what is wrong with it."""
        request = one.decode(command.request)
        return request, self._calls.streamed(one.rpc, request, command, self._sender, arrived)

    def tell(self, outcome: bytes) -> None:
        """Have an outcome written."""
        self._outcomes.append(outcome)
        self._news.set()

    def _ready(self) -> tuple[bytes, int]:
        """Give a message of the outcomes that there are, as far as they fit, and how many those are."""
        parts: list[bytes] = []
        size = 0
        while self._outcomes and size < MAX_BYTES:
            outcome = self._outcomes.popleft()
            parts += _OUTCOME(len(outcome)), outcome
            size += len(outcome)
        return b"".join(parts), len(parts) // 2


@dataclass(slots=True, eq=False)
class _Answer:
    """Where the outcome of one command goes."""

    stream: _Stream
    command: Command
    one: Streamed | None
    arrived: float
    """When the command did, on the clock of time.monotonic()."""
    told: bool = False

    def read(self) -> tuple[Message, CommandCall]:
        """Read the command: with its batch, so that what is made of it is at hand when it is decided."""
        assert self.one
        return self.stream.read(self.one, self.command, self.arrived)

    def done(self) -> bool:
        return self.told or self.stream.ended

    def set_result(self, appended: Appended) -> None:
        self.told = True
        self.stream.tell(_accepted(self.command.number, appended))

    def set_exception(self, error: BaseException) -> None:
        self.told = True
        domain, rpc = (self.one.context.name, self.one.rpc.path) if self.one else (DOMAIN, PATH)
        status = status_of(error, domain=domain, rpc=rpc)
        self.stream.tell(CommandOutcome(number=self.command.number, status=status).SerializeToString())


def _decoded(raw: bytes) -> ExecuteStreamRequest:
    """Decode a message whole: what this build does not know of it, it must not leave out."""
    try:
        message = ExecuteStreamRequest.FromString(raw)
    except DecodeError as error:
        raise Invalid(f"the message is no {ExecuteStreamRequest.DESCRIPTOR.full_name}: {error}") from error
    if drop_unknown(message, raw):
        raise Invalid(f"the message has fields that {ExecuteStreamRequest.DESCRIPTOR.full_name} has not in this server")
    return message


def _accepted(number: int, appended: Appended) -> bytes:
    """Give a CommandOutcome, spliced: its receipt and its response are at hand as bytes."""
    receipt, response = appended.encoded, appended.response
    parts = [_NUMBER, varint(number), _RECEIPT(len(receipt)), receipt]
    if response:
        parts += _RESPONSE(len(response)), response
    return b"".join(parts)
