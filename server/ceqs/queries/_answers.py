"""Answering: one model, one snapshot, and how old it is."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from google.protobuf.message import Message

from ceqs.contract import QueryRpc
from ceqs.errors import Behind, Misconfigured, NotFound
from ceqs.log import LogReader
from ceqs.model import Boundary, Context, boundary_of
from ceqs.queries._ages import age_of
from ceqs.queries._models import ModelReader
from ceqs.queries._states import States
from ceqs.queries._stop import Stop
from ceqs.v1.answers_pb2 import Age

PATIENCE = 10.0
"""How long, in seconds, a query waits for a model that is behind, where its deadline allows it."""
MARGIN = 0.1
"""How long, in seconds, before its deadline a query gives up waiting, so that the caller still hears why."""
IDLE = 30.0
"""How long, in seconds, a live query waits before it looks again by itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryCall:
    """What a query says besides its request."""

    at_least: Mapping[str, int] = field(default_factory=dict[str, int])
    """The positions, by log id, that the answer must include."""
    expires: float | None = None
    """On the clock of time.monotonic()."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A response with its age; an aggregator's has none of its own. Where nothing is recorded, it is not `found`."""

    response: Message
    position: int
    age: Age | None = None
    found: bool = True


class Answers:
    """Answers the queries of one context."""

    def __init__(self, context: Context, log: LogReader, states: States, models: Mapping[str, ModelReader]) -> None:
        for query in context.contract.queries.values():
            if query.projection and query.projection not in models:
                raise Misconfigured(f"{query.name} reads the projection {query.projection}, which has no reader here")
        self._context = context
        self._log = log
        self._states = states
        self._models = models

    async def answer(self, rpc: QueryRpc, request: Message, call: QueryCall) -> Answer:
        """Answer once.

        Raises NotFound where a query that needs no code asks for a state without events, Behind where the model does
        not reach in time what the call asks for, and what the handler raises.
        """
        answer = await self._evaluate(rpc, request, call)
        if not answer.found and rpc.state is not None:
            asked = boundary_of(rpc.state, rpc.tags, request).tags
            raise NotFound(f"nothing is recorded of {', '.join(asked) or rpc.state.name}")
        return answer

    async def watch(self, rpc: QueryRpc, request: Message, call: QueryCall, stop: Stop) -> AsyncGenerator[Answer, None]:
        """Answer at once, and again whenever the answer has changed, until the stop is asked for.

        A slow reader gets the newest answer, not those in between. Where nothing is recorded yet, the first answer
        carries its age and nothing else.
        """
        last: bytes | None = None
        while not stop.asked:
            answer = await self._evaluate(rpc, request, call)
            content = _without_age(rpc, answer.response)
            if content != last:
                last = content
                yield answer
            await stop.or_result(self._moved(rpc, answer.position))

    async def _evaluate(self, rpc: QueryRpc, request: Message, call: QueryCall) -> Answer:
        if rpc.state is not None:
            answer = await self._from_state(rpc, boundary_of(rpc.state, rpc.tags, request), request, call)
        elif rpc.projection:
            answer = await self._from_projection(rpc, request, call)
        else:
            head = await self._log.head()
            answer = Answer(await self._ask(rpc, request), head.position)
        if rpc.age_field and answer.age is not None:
            getattr(answer.response, rpc.age_field).CopyFrom(answer.age)
        return answer

    async def _from_state(self, rpc: QueryRpc, boundary: Boundary, request: Message, call: QueryCall) -> Answer:
        least, head = call.at_least.get(self._log.log_id, 0), await self._log.head()
        if head.position < least:
            await self._log.wait(least - 1, _patience(call))
            head = await self._log.head()
            _require(self._context.name, head.position, least)
        known = await self._states.load(boundary, head.position)
        found = True
        if not rpc.state_field or self._context.method(rpc):
            own = type(known.state)()
            own.CopyFrom(known.state)
            response = await self._ask(rpc, request, own)
        else:
            response, found = rpc.response(), known.events > 0
            if found:
                getattr(response, rpc.state_field).CopyFrom(known.state)
        age = await age_of(self._log, head, known.position, head.recorded_at)
        return Answer(response, known.position, age, found)

    async def _from_projection(self, rpc: QueryRpc, request: Message, call: QueryCall) -> Answer:
        model, least = self._models[rpc.projection], call.at_least.get(self._log.log_id, 0)
        reached = not least or await model.wait(least, _patience(call))
        async with model.session() as (session, checkpoint):
            if not reached:
                _require(rpc.projection, checkpoint.position, least)
            response = await self._ask(rpc, request, session)
        # Read after the snapshot, the head is never behind the answer.
        age = await age_of(self._log, await self._log.head(), checkpoint.position, checkpoint.recorded_at)
        return Answer(response, checkpoint.position, age)

    async def _ask(self, rpc: QueryRpc, request: Message, *model: Any) -> Message:
        method: Callable[..., Awaitable[Message]] | None = self._context.method(rpc)
        if method is None:
            raise Misconfigured(f"the query {rpc.name} has no handler")
        response = await method(request, *model)
        if not isinstance(response, rpc.response):
            raise Misconfigured(f"{rpc.method} returned {type(response).__name__}, not {rpc.response.__name__}")
        return response

    async def _moved(self, rpc: QueryRpc, position: int) -> None:
        if rpc.projection:
            await self._models[rpc.projection].wait(position + 1, IDLE)
        else:
            await self._log.wait(position, IDLE)


def _patience(call: QueryCall) -> float:
    if call.expires is None:
        return PATIENCE
    return max(0.0, min(PATIENCE, call.expires - time.monotonic() - MARGIN))


def _require(model: str, position: int, least: int) -> None:
    if position < least:
        raise Behind(
            f"{model} stands at position {position}, {least - position} before {least}, which the query asks for",
            metadata={"position": str(position), "asked": str(least)},
        )


def _without_age(rpc: QueryRpc, response: Message) -> bytes:
    bare = type(response)()
    bare.CopyFrom(response)
    if rpc.age_field:
        bare.ClearField(rpc.age_field)
    return bare.SerializeToString(deterministic=True)
