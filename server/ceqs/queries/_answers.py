"""Answering: one model, one snapshot, and how old it is."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from google.protobuf.message import Message
from sqlalchemy.ext.asyncio import AsyncSession

from ceqs.client import Services
from ceqs.contract import Moment, QueryRpc
from ceqs.errors import Misconfigured, NotFound, Unimplemented
from ceqs.log import Head, LogReader
from ceqs.model import Asked, Asker, Boundary, Context, boundary_of
from ceqs.projectors import key_of, read_rows
from ceqs.queries._ages import Ages, Trailers, trailers_of
from ceqs.queries._changes import Changes
from ceqs.queries._folded import Folded, OwnLog, ToldLog, require
from ceqs.queries._gathering import Gathering
from ceqs.queries._hops import Around, Hops
from ceqs.queries._live import LiveQueries, Source
from ceqs.queries._lookups import Lookups
from ceqs.queries._models import ModelReader, PastReader
from ceqs.queries._moments import own_moment, position_of, recorded_at, time_of
from ceqs.queries._rows import Rows, asked_tag, row_response
from ceqs.queries._states import States
from ceqs.queries._stop import Stop
from ceqs.v1.answers_pb2 import Age

PATIENCE = 10.0
"""How long, in seconds, a query waits for a model that is behind, where its deadline allows it."""
MARGIN, SHARE = 0.1, 0.2
"""How long, in seconds, before its deadline a query gives up waiting at least, and for which share of the time it has,
so that the caller still hears why."""
IDLE = 30.0
"""How long, in seconds, a live query of a projection waits before it looks again by itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryCall:
    """What a query says besides its request."""

    at_least: Mapping[str, int] = field(default_factory=dict[str, int])
    """The positions, by log id, that the answer must include."""
    as_of: Moment | None = None
    """The moment of the past as of which to answer; None for now."""
    expires: float | None = None
    """On the clock of time.monotonic()."""
    together: int | None = None
    """The position of the own log that states answer as of, so that an aggregator's parts are of one moment."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A response with its age; an aggregator's has none of its own. Where nothing is recorded, it is not `found`."""

    response: Message
    position: int
    age: Age | None = None
    trailers: Trailers = ()
    """What says the age on an answer that has no field for it."""
    found: bool = True


class Answers:
    """Answers the queries of one context."""

    def __init__(
        self,
        context: Context,
        log: LogReader,
        states: States,
        models: Mapping[str, ModelReader],
        *,
        past: Mapping[str, PastReader] | None = None,
        hops: Hops | None = None,
        services: Services | None = None,
        stop: Stop | None = None,
    ) -> None:
        """Take a reader for each projection, and one of its `past` where that can be asked for.

        The `hops` follow tokens of other contexts, aggregators ask the `services`. Live queries end when the `stop` is
        asked for.
        """
        for query in context.contract.queries.values():
            if query.projection and query.projection not in models:
                raise Misconfigured(f"{query.name} reads the projection {query.projection}, which has no reader here")
        self._context = context
        self._log = log
        self._states = states
        self._models = models
        self._past = past or {}
        self._services = services
        self._hops = hops or Hops(context.name, log, Around())
        self._ages = Ages(log)
        self._changes = Changes(log)
        self._folded = {name: self._log_of(name, models[name]) for name in context.projections if name in models}
        keyed = context.contract.models.items()
        self._lookups = {
            name: Lookups(model, models[name], self._folded[name].aged) for name, model in keyed if name in models
        }
        self._live: LiveQueries[Answer] = LiveQueries(stop or Stop())

    async def answer(self, rpc: QueryRpc, request: Message, call: QueryCall) -> Answer:
        """Answer once.

        Raises NotFound where a query that needs no code asks for a state without events or a row that is not there,
        Behind where the model does not reach in time what the call asks for, OutOfRange where it asks for a moment
        still to come, and what the handler raises.
        """
        answer = await self._evaluate(rpc, request, call)
        if answer.found:
            return answer
        if rpc.model is not None:
            raise NotFound(f"nothing is recorded of {asked_tag(rpc, rpc.model, request)}")
        asked = boundary_of(rpc.state, rpc.tags, request).tags if rpc.state else ()
        raise NotFound(f"nothing is recorded of {', '.join(asked) or rpc.name}")

    async def watch(self, rpc: QueryRpc, request: Message, call: QueryCall) -> AsyncGenerator[Answer, None]:
        """Answer at once, and again whenever the answer has changed, until the stop is asked for.

        As of a moment of the past, where nothing changes any more, it answers once.

        A slow reader gets the newest answer, not those in between. Where nothing is recorded yet, the first answer
        carries its age and nothing else.
        """
        if call.as_of is not None:
            yield await self._evaluate(rpc, request, call)
            return
        key = rpc.path, request.SerializeToString(deterministic=True)
        with self._live.joined(key, lambda: self._source(rpc, request)) as live:
            # What comes after one's own answer is shared with all who ask the same.
            answer: Answer | None = await self._evaluate(rpc, request, call)
            last: bytes | None = None
            while answer is not None:
                content = _without_age(rpc, answer.response)
                if content != last:
                    last = content
                    yield answer
                answer = await live.beyond(answer.position)

    def asker(self, call: QueryCall) -> Asker:
        """Give what asks these queries from within the process, with the call's bounds."""

        async def ask(path: str, request: Message) -> Asked[Any]:
            answer = await self._evaluate(self._context.contract.queries[path], request, call)
            return Asked(answer.response, answer.age or Age(), answer.found)

        return self._context.ceqs_asker(ask)

    @contextmanager
    def _source(self, rpc: QueryRpc, request: Message) -> Generator[Source[Answer]]:
        """Give what a live query is evaluated by."""

        def evaluate() -> Awaitable[Answer]:
            return self._evaluate(rpc, request, QueryCall())

        if rpc.projection:
            model = self._models[rpc.projection]

            async def moved(position: int) -> None:
                await model.wait(position + 1, IDLE)

            yield Source(evaluate, moved)
        else:
            boundary = boundary_of(rpc.state, rpc.tags, request) if rpc.state else None
            with self._changes.watching(boundary) as mark:
                yield Source(evaluate, mark.beyond)

    async def _evaluate(self, rpc: QueryRpc, request: Message, call: QueryCall) -> Answer:
        if call.as_of is not None:
            call = replace(call, as_of=await own_moment(call.as_of, self._log))
        if rpc.state is not None:
            answer = await self._from_state(rpc, boundary_of(rpc.state, rpc.tags, request), request, call)
        elif rpc.projection:
            answer = await self._from_projection(rpc, request, call)
        else:
            answer = await self._gathered(rpc, request, call)
        if rpc.age_field and answer.age is not None:
            getattr(answer.response, rpc.age_field).CopyFrom(answer.age)
        return answer

    async def _gathered(self, rpc: QueryRpc, request: Message, call: QueryCall) -> Answer:
        head = await self._head(call)
        moment = None if call.as_of is None else await time_of(call.as_of, self._log, head)
        gathering = Gathering(self.asker(replace(call, together=head.position)), call, self._services, moment)
        try:
            response = await self._ask(rpc, request, gathering)
        finally:
            await gathering.close()
        if rpc.parts_field:
            parts = getattr(response, rpc.parts_field)
            for name, age in gathering.ages.items():
                parts[name].CopyFrom(age)
        whole = gathering.age
        return Answer(response, head.position, whole, trailers_of(whole) if whole is not None else ())

    async def _from_state(self, rpc: QueryRpc, boundary: Boundary, request: Message, call: QueryCall) -> Answer:
        head = await self._head(call)
        moment, together = call.as_of, call.together
        if moment is None and together is None:
            known = await self._states.load(boundary, head.position)
            if known.position > head.position:
                # Somebody else has loaded it since.
                head = await self._log.head()
            time = head.recorded_at
        else:
            position = await position_of(moment, self._log, head) if moment is not None else together or 0
            loading = self._states.load_as_of(boundary, position), recorded_at(self._log, position)
            known, time = await asyncio.gather(*loading)
        found = True
        if not rpc.row_field or self._context.method(rpc):
            own = type(known.state)()
            own.CopyFrom(known.state)
            response = await self._ask(rpc, request, own)
        else:
            response, found = rpc.response(), known.events > 0
            if found:
                getattr(response, rpc.row_field).CopyFrom(known.state)
        aged = await self._ages.of(head, known.position, time)
        return Answer(response, known.position, aged.age, aged.trailers, found)

    async def _from_projection(self, rpc: QueryRpc, request: Message, call: QueryCall) -> Answer:
        if call.as_of is not None:
            return await self._from_past(rpc, request, call, call.as_of)
        model, folded = self._models[rpc.projection], self._folded[rpc.projection]
        least = await folded.least(call.at_least, patience(call.expires))
        if least:
            await model.wait(least, patience(call.expires))
        if rpc.model is not None and rpc.row_field and not self._context.method(rpc):
            key = key_of(rpc.model, asked_tag(rpc, rpc.model, request))
            look = await self._lookups[rpc.projection].look(key)
            require(rpc.projection, look.position, least)
            row = look.rows.get(key)
            return Answer(row_response(rpc, row), look.position, look.aged.age, look.aged.trailers, row is not None)
        async with model.session() as (session, checkpoint):
            require(rpc.projection, checkpoint.position, least)
            response, found = await self._read(rpc, request, session)
        aged = await folded.aged(checkpoint)
        return Answer(response, checkpoint.position, aged.age, aged.trailers, found)

    async def _from_past(self, rpc: QueryRpc, request: Message, call: QueryCall, moment: Moment) -> Answer:
        past = self._past.get(rpc.projection)
        if past is None:
            raise Unimplemented(f"this server keeps no models of the past of {rpc.projection}: set scratch_url")
        folded = self._folded[rpc.projection]
        least = await folded.least(call.at_least, patience(call.expires))
        position = await folded.position_of(moment, least)
        async with past.session(position, patience(call.expires)) as (session, checkpoint):
            response, found = await self._read(rpc, request, session)
        aged = await folded.aged(checkpoint)
        return Answer(response, checkpoint.position, aged.age, aged.trailers, found)

    async def _read(self, rpc: QueryRpc, request: Message, session: AsyncSession) -> tuple[Message, bool]:
        """Give the response from a projection's tables, and whether anything is recorded of what is asked for."""
        if rpc.model is None:
            return await self._ask(rpc, request, session), True
        rows = Rows[Message](rpc.model, session)
        if self._context.method(rpc):
            return await self._ask(rpc, request, rows), True
        if rpc.list_field:
            return rpc.response.FromString(await rows.listed(rpc, request)), True
        key = key_of(rpc.model, asked_tag(rpc, rpc.model, request))
        row = (await read_rows(await session.connection(), rpc.model, [key])).get(key)
        return row_response(rpc, row), row is not None

    async def _head(self, call: QueryCall) -> Head:
        """Give the head, as soon as it is where the call wants it."""
        least = await self._least(call)
        head = await self._log.head()
        if head.position < least:
            await self._log.wait(least - 1, patience(call.expires))
            head = await self._log.head()
            require(self._context.name, head.position, least)
        return head

    async def _least(self, call: QueryCall) -> int:
        """Give the position of the own log that an answer must include, once all that it follows from has arrived."""
        return await self._hops.arrived(call.at_least, patience(call.expires)) if call.at_least else 0

    def _log_of(self, projection: str, model: ModelReader) -> Folded:
        """Give the log that a projection folds."""
        source = self._context.projections[projection].ceqs_contract
        if source.package == self._context.contract.package:
            return OwnLog(self._log, self._hops)
        if source.context not in self._hops.told:
            raise Misconfigured(
                f"{projection} folds what {source.context} tells, and nobody knows here where {source.context} is"
            )
        return ToldLog(self._hops.told[source.context], model, self._log, self._hops)

    async def _ask(self, rpc: QueryRpc, request: Message, *model: Any) -> Message:
        method: Callable[..., Awaitable[Message]] | None = self._context.method(rpc)
        if method is None:
            raise Misconfigured(f"the query {rpc.name} has no handler")
        response = await method(request, *model)
        if not isinstance(response, rpc.response):
            raise Misconfigured(f"{rpc.method} returned {type(response).__name__}, not {rpc.response.__name__}")
        return response


def patience(expires: float | None) -> float:
    """Give how long, in seconds, a call with this deadline waits, so that its caller still hears why in vain."""
    if expires is None:
        return PATIENCE
    left = expires - time.monotonic()
    return max(0.0, min(PATIENCE, left - MARGIN, left * (1 - SHARE)))


def _without_age(rpc: QueryRpc, response: Message) -> bytes:
    bare = type(response)()
    bare.CopyFrom(response)
    if rpc.age_field:
        bare.ClearField(rpc.age_field)
    return bare.SerializeToString(deterministic=True)
