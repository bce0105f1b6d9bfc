"""Streams of commands: many on one call, each with an outcome of its own, over any number of connections.

send ──> Unanswered ──> write ──> gRPC      what is unanswered is bounded: sending waits for room
             ^                      │       after an outage it is sent again, under the same ids
             └─────── read <────────┘
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self, TypeAlias, TypeVar

import grpc.aio
from google.protobuf.message import Message

from ceqs.client._calls import CallMetadata, command_id_of, serialize
from ceqs.client._failures import Patience, can_retry, error_of
from ceqs.client._outcomes import Outcome
from ceqs.client._unanswered import IN_FLIGHT, Unanswered
from ceqs.errors import CeqsError, Expired, Internal, Invalid, Unavailable
from ceqs.v1.answers_pb2 import Receipt
from ceqs.v1.commands_pb2 import Command, ExecuteStreamRequest, ExecuteStreamResponse

PATH = "/ceqs.v1.CommandsService/ExecuteStream"

R = TypeVar("R", bound=Message)
C = TypeVar("C", bound=Message)
T = TypeVar("T")
Sent: TypeAlias = "asyncio.Future[Outcome[R]]"
"""A command that was sent: await it for its outcome."""
Commands: TypeAlias = Iterable[C | tuple[str, C]] | AsyncIterable[C | tuple[str, C]]
"""Requests, or pairs of a command id and a request."""
_Call: TypeAlias = "grpc.aio.StreamStreamCall[ExecuteStreamRequest, ExecuteStreamResponse]"


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamSettings:
    """What a stream takes from its client. Times are in seconds."""

    channel: grpc.aio.Channel
    metadata: CallMetadata
    timeout: float
    """How long a command may take over all attempts."""
    attempt_timeout: float
    """How long the server may be silent while it owes outcomes; then the stream is opened anew."""
    accepted: Callable[[Receipt], None]
    """Hears the newest receipt of each message."""


class CommandStream:
    """Sends many commands without a call for each. Use it as an async context manager: it leaves when all is answered.

    Commands of one boundary are decided in the order in which they were sent. After an outage, what is unanswered is
    sent again, in order and under the same ids: it is done once. A command that the server puts off (it is overloaded,
    or cannot reach its log) is sent again too, and may then be decided after later ones of its boundary.
    """

    def __init__(self, settings: StreamSettings) -> None:
        self._settings = settings
        self._unanswered = Unanswered(settings.timeout)
        self._task: asyncio.Task[None] | None = None
        self._failure: CeqsError | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                await self._unanswered.until(0)
        finally:
            if self._task is not None:
                self._task.cancel()
                await asyncio.wait([self._task])
            self._unanswered.close()

    async def _send(
        self, path: str, request: Message, response_type: type[R], *, command_id: str | None = None
    ) -> Sent[R]:
        """Send a command as soon as there is room for it; give where its outcome will be."""
        if self._task is None:
            raise RuntimeError("a stream takes commands inside `async with` only")
        await self._unanswered.until(IN_FLIGHT - 1)
        if self._failure is not None:
            raise self._failure
        command_id = command_id_of(request, command_id)
        command = Command(rpc=path, request=request.SerializeToString(), command_id=command_id)
        return self._unanswered.add(command, request, response_type)

    async def execute_many(
        self, requests: Commands[Message], rpcs: Mapping[type[Message], tuple[str, type[Message]]]
    ) -> AsyncGenerator[Outcome[Any], None]:
        """Open the stream, send requests as there is room for them, and give their outcomes in the same order."""
        answers: asyncio.Queue[Sent[Any] | None] = asyncio.Queue(IN_FLIGHT)

        async def feed() -> None:
            try:
                async for one in _each(requests):
                    command_id, request = one if isinstance(one, tuple) else (None, one)
                    if type(request) not in rpcs:
                        raise TypeError(f"{request.DESCRIPTOR.full_name} is no command of this client's context")
                    path, response_type = rpcs[type(request)]
                    await answers.put(await self._send(path, request, response_type, command_id=command_id))
            except Exception:
                await answers.put(None)
                raise
            await answers.put(None)

        async with self:
            feeding = asyncio.create_task(feed())
            try:
                while (answer := await answers.get()) is not None:
                    yield await answer
                await feeding
            finally:
                feeding.cancel()
                await asyncio.wait([feeding])

    async def _run(self) -> None:
        """Hold a connection for as long as there is something to send; every outage ends one."""
        outage = Patience(None)
        try:
            while True:
                await self._unanswered.more.wait()
                error = await self._connect(outage)
                if isinstance(error, Invalid) and self._unanswered.drop_oversized(error):
                    error = Unavailable(str(error))
                elif not can_retry(error):
                    return self._fail(error)
                self._unanswered.send_again(error)
                await outage.after(error)
        except Exception as error:
            # Whoever waits for an outcome would wait for ever.
            self._fail(Internal(f"the stream failed: {error!r}"))
            raise

    async def _connect(self, outage: Patience) -> CeqsError:
        """Send and receive on one connection; give what ended it."""
        call = self._open()
        silence = asyncio.timeout(self._settings.attempt_timeout)
        writing = asyncio.create_task(self._write(call, silence))
        try:
            async with silence:
                while isinstance(message := await call.read(), ExecuteStreamResponse):
                    outage.succeeded()
                    self._take(message)
                    self._listen(silence)
            return Unavailable("the server ended the stream")
        except TimeoutError:
            return Expired(f"the server owed outcomes and was silent for {self._settings.attempt_timeout} seconds")
        except grpc.aio.AioRpcError as failure:
            return error_of(failure)
        finally:
            call.cancel()
            writing.cancel()
            await asyncio.wait([writing])

    def _open(self) -> _Call:
        method: grpc.aio.StreamStreamMultiCallable[ExecuteStreamRequest, ExecuteStreamResponse]
        method = self._settings.channel.stream_stream(
            PATH, request_serializer=serialize, response_deserializer=ExecuteStreamResponse.FromString
        )
        return method(metadata=self._settings.metadata)

    async def _write(self, call: _Call, silence: asyncio.Timeout) -> None:
        while True:
            while (message := self._unanswered.next_message()).commands:
                try:
                    await call.write(message)
                except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
                    return  # the call has ended, and reading tells why
                if silence.when() is None:
                    self._listen(silence)
            await self._unanswered.more.wait()

    def _listen(self, silence: asyncio.Timeout) -> None:
        """Bear the server's silence so long from now; for ever where it owes no outcome."""
        if not silence.expired():
            until = asyncio.get_running_loop().time() + self._settings.attempt_timeout
            silence.reschedule(until if self._unanswered else None)

    def _take(self, message: ExecuteStreamResponse) -> None:
        accepted = [outcome.receipt for outcome in message.outcomes if self._unanswered.answer(outcome)]
        if accepted:
            self._settings.accepted(max(accepted, key=lambda receipt: receipt.position))

    def _fail(self, error: CeqsError) -> None:
        self._failure = error
        self._unanswered.fail(error)


async def _each(requests: Iterable[T] | AsyncIterable[T]) -> AsyncGenerator[T, None]:
    if isinstance(requests, AsyncIterable):
        async for one in requests:
            yield one
    else:
        for one in requests:
            yield one
