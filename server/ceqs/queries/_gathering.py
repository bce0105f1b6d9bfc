"""Aggregators: an answer that is gathered from several queries at once, and says of each how old it is.

orders = ctx.part("orders", ctx.ask.list_orders(...))                      without it there is no answer
stock = ctx.optional("stock", inventory.list_stock(...), within=0.3)       without it there is one all the same
return GetOverviewResponse(orders=(await orders).orders, stock=...)        both are under way since they were named
"""

from __future__ import annotations

import asyncio
import datetime as dt
import time
from collections.abc import Awaitable, Coroutine, Generator
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar, overload

from google.protobuf.message import Message

from ceqs.contract import decode_token, encode_token
from ceqs.errors import CeqsError, Misconfigured, Unavailable
from ceqs.model import Asker
from ceqs.v1.answers_pb2 import Age, PartAge

if TYPE_CHECKING:
    from ceqs.client import ContextClient, Services
    from ceqs.queries._answers import QueryCall

A = TypeVar("A", bound=Asker)
R = TypeVar("R", bound=Message)
R_co = TypeVar("R_co", bound=Message, covariant=True)
F_co = TypeVar("F_co", covariant=True)
C = TypeVar("C", bound="ContextClient")


class Answered(Protocol[R_co]):
    """What a query gave, of the own context or of a client."""

    @property
    def message(self) -> R_co:
        """The answer."""
        ...

    @property
    def age(self) -> Age:
        """How old it is."""
        ...


class Part(Generic[F_co]):
    """A part of an answer, under way; await it."""

    def __init__(self, task: asyncio.Task[F_co]) -> None:
        self._task = task

    def __await__(self) -> Generator[Any, None, F_co]:
        return self._task.__await__()


class Gathering(Generic[A]):
    """What an aggregator asks by, all at once; the platform writes down how old each part is.

    Parts that the context's own states answer are all of one moment; a projection answers as far as it is. Whatever the
    caller has written is in every part, here and in other services, or the part is missing. As of a moment, all parts
    are of that `moment`, in other services by their clocks.
    """

    def __init__(
        self, ask: A, call: QueryCall, services: Services | None = None, moment: dt.datetime | None = None
    ) -> None:
        self.ask = ask
        """Asks queries of its own context."""
        self.ages: dict[str, PartAge] = {}
        """How old each part is, by name."""
        self._call = call
        self._services = services
        self._moment = moment
        self._tasks: list[asyncio.Task[Any]] = []
        self._asked: list[Awaitable[Any]] = []

    def service(self, client: type[C]) -> C:
        """Give a client of another service, found by the address in the settings.

        It knows what the caller wrote, or asks as of the moment that the caller asks of.
        """
        if self._services is None:
            raise Misconfigured(f"nobody knows here where {client.ceqs_context} is")
        found = self._services.client(client)
        if self._moment is not None:
            return found.with_moment(self._moment)
        return found.with_token(encode_token(self._call.at_least)) if self._call.at_least else found

    def part(self, name: str, asked: Awaitable[Answered[R]], *, within: float | None = None) -> Part[R]:
        """Begin a part. Awaited, it raises what the query raised, or Unavailable after `within` seconds."""
        return self._begin(name, asked, self._answer(name, asked, within))

    @overload
    def optional(self, name: str, asked: Awaitable[Answered[R]], *, within: float | None = None) -> Part[R | None]: ...
    @overload
    def optional(
        self, name: str, asked: Awaitable[Answered[R]], *, within: float | None = None, fallback: R
    ) -> Part[R]: ...
    def optional(
        self, name: str, asked: Awaitable[Answered[R]], *, within: float | None = None, fallback: R | None = None
    ) -> Part[R] | Part[R | None]:
        """Begin a part that may be missing: awaited, it gives the fallback then, or None.

        The answer says why: it took more than `within` seconds, or the query failed.
        """
        return self._begin(name, asked, self._or_else(name, asked, within, fallback))

    async def close(self) -> None:
        """Give up what is still under way."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for asked in self._asked:
            # What was given up before it began would complain that nobody awaited it.
            if asyncio.iscoroutine(asked):
                asked.close()

    @property
    def age(self) -> Age | None:
        """How old the whole is: as old as the oldest of each log; None where nothing was answered."""
        ages = [part.age for part in self.ages.values() if part.HasField("age")]
        if not ages:
            return None
        oldest: dict[str, int] = {}
        for age in ages:
            for log_id, position in decode_token(age.token).items() if age.token else ():
                oldest[log_id] = min(position, oldest.get(log_id, position))
        whole = Age(
            token=encode_token(oldest) if oldest else "",
            lag_events=max(age.lag_events for age in ages),
            lag_seconds=max(age.lag_seconds for age in ages),
            parked=sum(age.parked for age in ages),
            behind=next((age.behind for age in ages if age.behind), ""),
        )
        times = [age.recorded_at for age in ages if age.HasField("recorded_at")]
        if times:
            whole.recorded_at.CopyFrom(min(times, key=lambda time: (time.seconds, time.nanos)))
        return whole

    def _begin(self, name: str, asked: Awaitable[Any], work: Coroutine[Any, Any, Any]) -> Part[Any]:
        self._asked.append(asked)
        if name in self.ages:
            work.close()
            raise Misconfigured(f"two parts are named {name!r}")
        self.ages[name] = PartAge(missing="nobody waited for it")
        task = asyncio.ensure_future(work)
        # Whoever never awaits it has not asked how it went.
        task.add_done_callback(lambda done: None if done.cancelled() else done.exception())
        self._tasks.append(task)
        return Part(task)

    async def _answer(self, name: str, asked: Awaitable[Answered[R]], within: float | None) -> R:
        left = None if self._call.expires is None else max(0.0, self._call.expires - time.monotonic())
        bound = min((one for one in (within, left) if one is not None), default=None)
        try:
            async with asyncio.timeout(bound):
                found = await asked
        except TimeoutError:
            late = Unavailable(f"{name} was not answered within {bound:.3g} s")
            self.ages[name] = PartAge(missing=late.message)
            raise late from None
        except CeqsError as error:
            self.ages[name] = PartAge(missing=error.message)
            raise
        self.ages[name] = PartAge(age=found.age)
        return found.message

    async def _or_else(
        self, name: str, asked: Awaitable[Answered[R]], within: float | None, fallback: R | None
    ) -> R | None:
        try:
            return await self._answer(name, asked, within)
        except CeqsError:
            self.ages[name].fallback = fallback is not None
            return fallback
