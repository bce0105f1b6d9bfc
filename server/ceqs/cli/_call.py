"""`ceqs call`: any command or query of a running server, through reflection."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Any, ClassVar

from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from ceqs.cli._contexts import addresses_of, load_contexts
from ceqs.cli._output import Output, outline, show
from ceqs.cli._reflection import Rpc, find_rpc, rpcs_of
from ceqs.cli._request import fill_request
from ceqs.cli._running import find_running
from ceqs.cli._settings import Settings
from ceqs.client import Answer, ContextClient
from ceqs.errors import Misconfigured, Unavailable
from ceqs.v1.answers_pb2 import Age

PATIENCE = 2.0
"""Seconds that a server has to say what it serves."""


class AnyClient(ContextClient):
    """A client of whatever the server serves."""

    ceqs_context: ClassVar[str] = ""
    ceqs_events: ClassVar[Mapping[str, type[Message]]] = {}

    async def call(
        self, rpc: Rpc, request: Message, *, command_id: str | None, at_least: str | None
    ) -> AsyncIterator[Answer[Message] | Message]:
        """Give the answers to a query with their age, the response to a command without."""
        response_type = GetMessageClass(rpc.method.output_type)
        if rpc.method.client_streaming:
            raise Misconfigured(f"{rpc.method.full_name} takes a stream of requests; use a client")
        if rpc.method.server_streaming:
            async for answer in self._watch(rpc.path, request, response_type, at_least=at_least):
                yield answer
        elif rpc.is_command:
            yield await self._command(rpc.path, request, response_type, command_id=command_id)
        else:
            yield await self._query(rpc.path, request, response_type, at_least=at_least)


async def call(
    settings: Settings,
    name: str,
    words: Sequence[str],
    *,
    address: str | None,
    command_id: str | None,
    at_least: str | None,
    actor: str | None,
    output: Output,
) -> None:
    """Find the rpc, fill the request, print the answer; of a streaming query, every answer."""
    running = find_running(settings)
    key = settings.key or (running.key if running else "")
    async with AsyncExitStack() as stack:
        clients = {
            one: await stack.enter_async_context(AnyClient(one, key=key, actor=actor))
            for one in ([address] if address else where_to_call(settings))
        }
        rpc = find_rpc(name, await _served(clients))
        request = GetMessageClass(rpc.method.input_type)()
        fill_request(request, words)
        answers = clients[rpc.address].call(rpc, request, command_id=command_id, at_least=at_least)
        async for answer in answers:
            _show(answer, output)


def where_to_call(settings: Settings) -> list[str]:
    """Give the addresses of the project's contexts: of the running `ceqs dev`, else those of the settings."""
    running = find_running(settings)
    addresses = running.addresses if running else addresses_of(settings, list(load_contexts(settings)))
    return list(dict.fromkeys(addresses.values()))


async def _served(clients: Mapping[str, AnyClient]) -> list[Rpc]:
    """Ask every server; one that does not answer matters only where none does."""
    found, missing = list[Rpc](), list[str]()
    for address, client in clients.items():
        try:
            found += await rpcs_of(address, client.channel, PATIENCE)
        except Unavailable:
            missing.append(address)
    if not found:
        raise Unavailable(f"nothing answers at {', '.join(missing)}; start it with `ceqs dev`, or say --address")
    return found


def _show(answer: Answer[Message] | Message, output: Output) -> None:
    message = answer.message if isinstance(answer, Answer) else answer
    value: dict[str, Any] = {"answer": _dict(message)}
    text = outline(value["answer"]) or "(empty)"
    if isinstance(answer, Answer) and answer.age != Age():
        value["age"] = _dict(answer.age)
        text += f"\n# {_describe(answer.age)}"
    show(output, text, value)


def _describe(age: Age) -> str:
    parts = [f"{age.lag_events} events behind ({age.lag_seconds:.3g} s)" if age.lag_events else "up to date"]
    if age.HasField("recorded_at"):
        parts.append(f"includes events up to {age.recorded_at.ToJsonString()}")
    if age.parked:
        parts.append(f"{age.parked} parked")
    return ", ".join(parts)


def _dict(message: Message) -> dict[str, Any]:
    pool: Any = message.DESCRIPTOR.file.pool  # the stubs know two types of pools
    value: dict[str, Any] = MessageToDict(message, preserving_proto_field_name=True, descriptor_pool=pool)
    return value
