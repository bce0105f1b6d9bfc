"""`ceqs call`: any command or query of a running server, through reflection."""

from __future__ import annotations

import asyncio
import datetime as dt
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, ClassVar

from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from ceqs.cli._contexts import addresses_of, load_contexts
from ceqs.cli._events import said_head
from ceqs.cli._output import Output, outline, show, show_progress
from ceqs.cli._reflection import Rpc, find_rpc, rpcs_of
from ceqs.cli._request import fill_request
from ceqs.cli._running import find_running
from ceqs.cli._settings import Settings
from ceqs.cli._times import moment_of
from ceqs.client import Answer, ContextClient
from ceqs.contract import encode_token, merge_tokens
from ceqs.errors import CeqsError, Misconfigured, Unavailable, Unimplemented
from ceqs.v1.answers_pb2 import Age
from ceqs.v1.events_pb2 import GetHeadRequest, GetHeadResponse

PATIENCE = 2.0
"""Seconds that a server has to say what it serves."""
ANSWER = 10.0
"""Seconds that a command has at least: what becomes of one that is given up is not known."""
NOW = "now"
"""Stands for the token of everything that is recorded when the call is made."""


class AnyClient(ContextClient):
    """A client of whatever the server serves."""

    ceqs_context: ClassVar[str] = ""
    ceqs_events: ClassVar[Mapping[str, type[Message]]] = {}

    async def now(self) -> str:
        """Give the token of everything that is recorded."""
        head = (await self._query("/ceqs.v1.EventsService/GetHead", GetHeadRequest(), GetHeadResponse)).message.head
        return encode_token({head.log_id: head.position})

    async def call(
        self,
        rpc: Rpc,
        request: Message,
        *,
        command_id: str | None,
        at_least: str | None,
        as_of: str | dt.datetime | None,
        timeout: float,  # noqa: ASYNC109  # of a query; a command has as long as the client
    ) -> AsyncIterator[Answer[Message] | Message]:
        """Give the answers to a query with their age, the response to a command without."""
        response_type = GetMessageClass(rpc.method.output_type)
        if rpc.method.client_streaming:
            raise Misconfigured(f"{rpc.method.full_name} takes a stream of requests; use a client")
        if rpc.method.server_streaming:
            async for answer in self._watch(
                rpc.path, request, response_type, at_least=at_least, as_of=as_of, timeout=timeout
            ):
                yield answer
        elif rpc.is_command:
            yield await self._command(rpc.path, request, response_type, command_id=command_id)
        else:
            yield await self._query(rpc.path, request, response_type, at_least=at_least, as_of=as_of, timeout=timeout)


async def call(
    settings: Settings,
    name: str,
    words: Sequence[str],
    *,
    address: str | None,
    command_id: str | None,
    at_least: str | None,
    as_of: str | None,
    actor: str | None,
    wait: float,
    output: Output,
) -> None:
    """Find the rpc, fill the request, print the answer; of a streaming query, every answer.

    For `wait` seconds it goes on looking for a server that answers, and for an rpc that the project declares: one that
    has just been started, or starts again with a new contract, may need a moment. So may a model, to include what the
    answer shall include.
    """
    moment = None if as_of is None else moment_of("--as-of", as_of, dt.datetime.now(dt.UTC))
    rpc, key = await _served(settings, name, address, wait, output)
    request = GetMessageClass(rpc.method.input_type)()
    fill_request(request, words)
    timeout = max(wait, PATIENCE)
    # The server may start again at any moment, as it does under `ceqs dev`.
    async with AnyClient(rpc.address, key=key, actor=actor, timeout=max(wait, ANSWER)) as client:
        least = await _now(settings, rpc, client, timeout) if at_least == NOW else at_least
        answers = client.call(rpc, request, command_id=command_id, at_least=least, as_of=moment, timeout=timeout)
        async for answer in answers:
            _show(answer, output, past=moment is not None)


async def _now(settings: Settings, rpc: Rpc, client: AnyClient, patience: float) -> str:
    """Give the token of everything that is recorded where the rpc is served, and in the log that its model folds."""
    tokens, asked = list[str](), _logs_behind(settings, rpc)
    try:
        tokens.append(await client.now())
        asked = asked[1:]
    except Unimplemented:  # Where queries are served alone, nobody says where the log stands.
        if not asked:
            raise
    for name in asked:
        head = await said_head(settings, name, patience)
        tokens.append(encode_token({head.log_id: head.position}))
    return merge_tokens(*tokens)


def _logs_behind(settings: Settings, rpc: Rpc) -> list[str]:
    """Give the context that declares a query, and the one that its model folds where that is another.

    Nothing where the project has no such query.
    """
    for context in load_contexts(settings).values() if settings.contexts else ():
        if query := context.contract.queries.get(rpc.path):
            model = context.projections.get(query.projection)
            source = model.ceqs_contract.context if model else context.name
            return list(dict.fromkeys([context.name, source]))
    return []


async def _served(settings: Settings, name: str, address: str | None, wait: float, output: Output) -> tuple[Rpc, str]:
    """Find the rpc as soon as it is served, within `wait` seconds; tell who waits what for."""
    began, told = time.monotonic(), False
    while True:
        try:
            return await _find(settings, name, address)
        except CeqsError as error:
            waited = time.monotonic() - began
            if waited > wait or not (isinstance(error, Unavailable) or _declared(settings, name)):
                raise
            if waited > PATIENCE and not told:
                told = True
                show_progress(output, f"waiting up to {wait:g} s: {error.message}")
        await asyncio.sleep(0.2)


async def _find(settings: Settings, name: str, address: str | None) -> tuple[Rpc, str]:
    """Give the rpc, and the key of the contexts; ask every server of the project, or the one at an address.

    A server that does not answer matters only where none does.
    """
    running = find_running(settings)
    asked = [address] if address else list(running.addresses.values()) if running else []
    if not asked:
        contexts = list(load_contexts(settings))
        asked = [*addresses_of(settings, contexts).values(), *addresses_of(settings, contexts, "queries").values()]
    asked = list(dict.fromkeys(asked))
    found, missing = list[Rpc](), list[str]()
    for one in asked:
        async with AnyClient(one) as client:
            try:
                found += await rpcs_of(one, client.channel, PATIENCE)
            except Unavailable:
                missing.append(one)
    if not found:
        raise Unavailable(f"nothing answers at {', '.join(missing)}; start it with `ceqs dev`, or say --address")
    try:
        rpc = find_rpc(name, found)
    except Misconfigured as error:
        if not missing:
            raise
        raise Misconfigured(f"{error.message}; and nothing answers at {', '.join(missing)}") from error
    return rpc, settings.key or (running.key if running else "")


def _declared(settings: Settings, name: str) -> bool:
    """Say whether a context of the project declares an rpc of that name."""
    if not settings.contexts:
        return False
    short = name.replace("/", ".").rpartition(".")[2]
    contracts = [context.contract for context in load_contexts(settings).values()]
    declared = {rpc.name for one in contracts for rpc in one.commands.values()}
    declared |= {rpc.name for one in contracts for rpc in one.queries.values()}
    return short in declared


def _show(answer: Answer[Message] | Message, output: Output, *, past: bool) -> None:
    message = answer.message if isinstance(answer, Answer) else answer
    value: dict[str, Any] = {"answer": _dict(message)}
    text = outline(value["answer"]) or "(empty)"
    if isinstance(answer, Answer) and answer.age != Age():
        value["age"] = _dict(answer.age)
        text += f"\n# {_describe(answer.age, past=past)}"
    show(output, text, value)


def _describe(age: Age, *, past: bool) -> str:
    parts = [f"{age.lag_events} events behind ({age.lag_seconds:.3g} s)" if age.lag_events else "up to date"]
    if past:
        parts = [f"as of an earlier moment: {age.lag_events} events have been recorded since"]
    if age.behind:
        parts = [f"{age.behind} has not said for {age.lag_seconds:.3g} s what is missing"]
    if age.HasField("recorded_at"):
        parts.append(f"includes events up to {age.recorded_at.ToJsonString()}")
    if age.parked:
        parts.append(f"{age.parked} parked")
    return ", ".join(parts)


def _dict(message: Message) -> dict[str, Any]:
    pool: Any = message.DESCRIPTOR.file.pool  # the stubs know two types of pools
    value: dict[str, Any] = MessageToDict(message, preserving_proto_field_name=True, descriptor_pool=pool)
    return value
