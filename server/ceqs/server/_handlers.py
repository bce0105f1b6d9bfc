"""The rpcs that a server answers: bytes in, bytes out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing
from typing import Any, TypeAlias

import grpc
from google.protobuf.message import Message

from ceqs.contract import CommandRpc, QueryRpc
from ceqs.errors import Overloaded, Unavailable
from ceqs.queries import Answers
from ceqs.server._calls import Calls, CommandCall
from ceqs.server._commands import CommandExecutor, Executed
from ceqs.server._decode import Decoder
from ceqs.server._refusals import refuse

GrpcContext: TypeAlias = Any
"""grpc.aio.ServicerContext; its stub knows no server that leaves (de)serialising to the handlers."""
Unary: TypeAlias = Callable[[bytes, GrpcContext], Awaitable[bytes]]
Bidirectional: TypeAlias = Callable[[GrpcContext], Awaitable[None]]
Streaming: TypeAlias = Callable[[bytes, GrpcContext], AsyncGenerator[bytes, None]]


class Handlers:
    """Collects handlers by service and method. An error of any of them ends its call with the error's status."""

    def __init__(self) -> None:
        self._services: dict[str, dict[str, grpc.RpcMethodHandler[Any, Any]]] = {}

    @property
    def services(self) -> Mapping[str, dict[str, grpc.RpcMethodHandler[Any, Any]]]:
        """What has been collected."""
        return self._services

    def unary(self, path: str, domain: str, answer: Unary) -> None:
        """Add an rpc that answers once."""

        async def handle(raw: bytes, context: GrpcContext) -> bytes:
            try:
                return await answer(raw, context)
            except Exception as error:  # noqa: BLE001  # every error becomes a status; the unforeseen are logged
                await refuse(context, error, domain=domain, rpc=path)

        # Without (de)serialisers gRPC hands the bytes over, and malformed ones get our status instead of INTERNAL.
        self._add(path, grpc.unary_unary_rpc_method_handler(handle))

    def streaming(self, path: str, domain: str, answers: Streaming) -> None:
        """Add an rpc that answers with a stream."""

        async def handle(raw: bytes, context: GrpcContext) -> None:
            try:
                async with aclosing(answers(raw, context)) as messages:
                    async for message in messages:
                        await write(context, message)
            except Exception as error:  # noqa: BLE001  # as above
                await refuse(context, error, domain=domain, rpc=path)

        self._add(path, grpc.unary_stream_rpc_method_handler(handle))

    def bidirectional(self, path: str, domain: str, serve: Bidirectional) -> None:
        """Add an rpc that reads and answers streams, with `read` and `write` of its context."""

        async def handle(_: object, context: GrpcContext) -> None:
            try:
                await serve(context)
            except Exception as error:  # noqa: BLE001  # as above
                await refuse(context, error, domain=domain, rpc=path)

        self._add(path, grpc.stream_stream_rpc_method_handler(handle))

    def _add(self, path: str, handler: grpc.RpcMethodHandler[Any, Any]) -> None:
        _, service, method = path.split("/")
        self._services.setdefault(service, {})[method] = handler


async def write(context: GrpcContext, message: bytes) -> None:
    """Write a message of a stream; where nobody is there any more, end the call as a cancellation does."""
    try:
        await context.write(message)
    except Exception as error:
        # Nobody is there any more, which gRPC says only to those who do not write.
        raise asyncio.CancelledError from error


def add_command(handlers: Handlers, domain: str, rpc: CommandRpc, executor: CommandExecutor, calls: Calls) -> None:
    """Serve a command: decode and validate, read the metadata, execute, answer with the receipt."""

    async def answer(raw: bytes, context: GrpcContext) -> bytes:
        def say(request: Message) -> CommandCall:
            return calls.command(rpc, request, context)

        if executor.guards(rpc):
            # In overload the least work is spent on what is refused, so that the most is left for what is accepted.
            if executor.is_full(rpc):
                raise Overloaded
            request = executor.intake.decode(rpc, raw)
            executed = await executor.execute(rpc, request, say(request))
        else:
            executed = Executed(rpc, await executor.submit(rpc, raw, say))
        trailers = [("ceqs-token", executed.appended.token)]
        if executed.gate:
            trailers.append(("ceqs-gate", executed.gate))
        context.set_trailing_metadata(tuple(trailers))
        return executed.encoded()

    handlers.unary(rpc.path, domain, answer)


def add_query(handlers: Handlers, domain: str, rpc: QueryRpc, answers: Answers, calls: Calls) -> None:
    """Serve a query, once or live: its answer says how old it is."""
    decode = Decoder(rpc.request, strict=False)

    async def answer(raw: bytes, context: GrpcContext) -> bytes:
        request = decode(raw)
        found = await answers.answer(rpc, request, calls.query(context))
        if found.trailers:
            context.set_trailing_metadata(found.trailers)
        return found.response.SerializeToString()

    async def watch(raw: bytes, context: GrpcContext) -> AsyncGenerator[bytes, None]:
        request = decode(raw)
        call = calls.query(context)
        async with aclosing(answers.watch(rpc, request, call)) as found:
            async for one in found:
                yield one.response.SerializeToString()
        if call.as_of is None:
            raise Unavailable("This server is going away. Ask again.")

    if rpc.streaming:
        handlers.streaming(rpc.path, domain, watch)
    else:
        handlers.unary(rpc.path, domain, answer)
