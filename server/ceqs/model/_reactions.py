"""Reacting to events: what comes of one, as values. Pure: whoever asks for it stores and sends."""

from __future__ import annotations

import datetime as dt
from collections.abc import AsyncIterable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, cast

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from ceqs.errors import Misconfigured

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
class Reaction:
    """What a publisher, subscriber or process manager may know besides the event, and how it sets timers."""

    event_id: str
    """Also the idempotency key for effects on external systems."""
    position: int
    recorded_at: Timestamp
    """When the event was recorded: the time by which a reaction reckons."""
    correlation_id: str = ""
    actor: str = ""
    timers: list[Scheduled | Cancelled] = field(
        default_factory=list[Scheduled | Cancelled], init=False, repr=False, compare=False
    )
    """What was scheduled and cancelled so far, in order."""

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


async def react(method: Callable[..., Any], *arguments: Message, ctx: Reaction) -> Reacted:
    """Run a handler's method on an event, and collect what it yields and schedules.

    Waits only where the method itself does. Raises what it raises, and Misconfigured for what is no message.
    """
    outcome: object = method(*arguments, ctx)
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


def _checked(key: str) -> str:
    if not 0 < len(key) <= MAX_KEY:
        raise Misconfigured(f"the key {key!r} of a timer must have 1 to {MAX_KEY} characters")
    return key


def _name(method: Callable[..., Any]) -> str:
    owner = getattr(method, "__self__", None)
    return f"{type(owner).__name__}.{method.__name__}"
