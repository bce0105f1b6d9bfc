"""Reacting to events: what comes of one, as values. Whoever asks for it stores and sends.

A method of a publisher or subscriber is `def` where the event says all that it needs: it is pure then. An `async def`
may look around before: it asks queries, of its own context (`ctx.ask`) and of others (`ctx.service`), and does what is
to be done in systems that are not ours. That happens at least once, under `ctx.event_id`; all that it yields, once.
"""

from __future__ import annotations

import datetime as dt
import inspect
from collections.abc import AsyncIterable, Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, NoReturn, TypeAlias, TypeVar, cast

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from typing_extensions import TypeVar as DefaultedTypeVar

from ceqs.errors import Misconfigured
from ceqs.model._asking import Asker

if TYPE_CHECKING:
    from ceqs.client import ContextClient

T = TypeVar("T")
C = TypeVar("C", bound="ContextClient")
A_co = DefaultedTypeVar("A_co", bound=Asker, covariant=True, default=Asker)
Reactions: TypeAlias = Iterable[T] | AsyncIterable[T] | Awaitable[Iterable[T] | None]
"""What a method gives: it yields or returns messages; one that is `async def` may also return nothing."""

MAX_KEY = 200
"""Characters of a timer's key, at most."""


@dataclass(frozen=True, slots=True)
class Scheduled:
    """A timer: a command to be sent when its time has come."""

    key: str
    request: Message
    due: dt.datetime
    """UTC, aware."""


@dataclass(frozen=True, slots=True)
class Cancelled:
    """A timer that is not to fire."""

    key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Reaction(Generic[A_co]):
    """What a publisher, subscriber or process manager may know besides the event, and how it sets timers."""

    event_id: str
    """Also the idempotency key for effects on external systems: an event may be heard again after a crash."""
    position: int
    recorded_at: Timestamp
    """When the event was recorded: the time by which a reaction reckons."""
    correlation_id: str = ""
    actor: str = ""
    ask: A_co = field(default_factory=lambda: cast("Any", Asker(_nobody_answers)), repr=False, compare=False)
    """Asks queries of its own context, for the best view that there is; in methods that are `async def`."""
    clients: Callable[[type[Any]], Any] = field(default_factory=lambda: _nobody_is, repr=False, compare=False)
    """Gives what `service` gives."""
    timers: list[Scheduled | Cancelled] = field(
        default_factory=list[Scheduled | Cancelled], init=False, repr=False, compare=False
    )
    """What was scheduled and cancelled so far, in order."""

    def service(self, client: type[C]) -> C:
        """Give a client of another service, found by the address in the settings; in methods that are `async def`.

        Its queries are for everyone. A command is better yielded, by a subscriber of the other service: then it is done
        once.
        """
        found: C = self.clients(client)
        return found

    def schedule(
        self,
        request: Message,
        *,
        key: str,
        after: dt.timedelta | None = None,
        at: dt.datetime | Timestamp | None = None,
    ) -> None:
        """Have a command of the context sent later: so long `after` the event was recorded, or `at` a time.

        A timer that the handler has under this key is replaced. The command is sent once, as it is now, whatever is
        restarted or deployed meanwhile; late where nobody was there in time. A rejection ends it, an outage does not.
        The key of a timer that has fired may be used again.
        """
        due = self._due(after, at)
        frozen = type(request)()
        frozen.CopyFrom(request)
        self.timers.append(Scheduled(_checked(key), frozen, due))

    def cancel(self, key: str) -> None:
        """Drop the timer under this key; changes nothing where there is none.

        A timer whose time has come may be on its way to the server already. It then wins, and the process log says so:
        what must not happen any more is for the command to refuse.
        """
        self.timers.append(Cancelled(_checked(key)))

    def _due(self, after: dt.timedelta | None, at: dt.datetime | Timestamp | None) -> dt.datetime:
        if (after is None) == (at is None):
            raise Misconfigured("a timer needs one of `after` and `at`")
        if isinstance(at, Timestamp):
            return at.ToDatetime(dt.UTC)
        if at is not None:
            if at.tzinfo is None:
                raise Misconfigured(f"the time {at} of a timer has no time zone; use one, such as datetime.UTC")
            return at.astimezone(dt.UTC)
        assert after is not None
        return self.recorded_at.ToDatetime(dt.UTC) + after


@dataclass(frozen=True, slots=True)
class Reacted:
    """What came of an event: messages and timers in order."""

    messages: tuple[Message, ...]
    """Commands of a subscriber, public events of a publisher."""
    timers: tuple[Scheduled | Cancelled, ...] = ()


def looks_around(method: Callable[..., Any]) -> bool:
    """Say whether a method waits for others: it is `async def`."""
    return inspect.iscoroutinefunction(method) or inspect.isasyncgenfunction(method)


async def react(method: Callable[..., Any], *arguments: Message, ctx: Reaction[Any]) -> Reacted:
    """Run a handler's method on an event, and collect what it yields and schedules.

    Waits only where the method itself does. Raises what it raises, and Misconfigured for what is no message.
    """
    outcome: object = method(*arguments, ctx)
    if isinstance(outcome, Awaitable):
        outcome = await cast("Awaitable[object]", outcome)
        outcome = () if outcome is None else outcome
    messages: list[Message] = []
    if isinstance(outcome, AsyncIterable):
        async for message in cast("AsyncIterable[object]", outcome):
            messages.append(_frozen(method, message))
    elif isinstance(outcome, Iterable) and not isinstance(outcome, Message):
        messages.extend(_frozen(method, message) for message in cast("Iterable[object]", outcome))
    else:
        raise Misconfigured(f"{_name(method)} returned {outcome!r}; it must yield, or return an iterable of messages")
    return Reacted(tuple(messages), tuple(ctx.timers))


def _frozen(method: Callable[..., Any], message: object) -> Message:
    """Give a copy: a handler may go on changing what it has yielded."""
    if not isinstance(message, Message):
        raise Misconfigured(f"{_name(method)} yielded {message!r}, which is no message")
    frozen = type(message)()
    frozen.CopyFrom(message)
    return frozen


async def _nobody_answers(path: str, _: Message) -> NoReturn:
    raise Misconfigured(f"nobody answers {path} here")


def _nobody_is(client: type[Any]) -> NoReturn:
    raise Misconfigured(f"nobody knows here where {client.ceqs_context} is")


def _checked(key: str) -> str:
    if not 0 < len(key) <= MAX_KEY:
        raise Misconfigured(f"the key {key!r} of a timer must have 1 to {MAX_KEY} characters")
    return key


def _name(method: Callable[..., Any]) -> str:
    owner = getattr(method, "__self__", None)
    return f"{type(owner).__name__}.{method.__name__}"
