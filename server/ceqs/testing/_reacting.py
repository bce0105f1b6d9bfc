"""Given events, when another one is heard, then these commands are sent, these events published, these timers set.

    given(orders).hears(OrderPlaced(order_id="1")).schedules(ExpireOrderRequest(order_id="1"), key="1", after=WEEK)

It runs the publishers and subscribers of a context that hear the event, with fixed ids and times, and sends nothing.
"""

from __future__ import annotations

import datetime as dt
import difflib
from collections.abc import Coroutine, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from google.protobuf import text_format
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from ceqs.errors import Misconfigured
from ceqs.model import (
    Cancelled,
    Context,
    NamedHandler,
    ProcessManager,
    Publisher,
    Reacted,
    Reaction,
    Scheduled,
    initial,
    react,
)
from ceqs.testing._answering import Answering

T = TypeVar("T")
EVENT_ID = "00000000-0000-7000-8000-00000000e000"
"""The id of every event that is heard in tests."""


@dataclass(frozen=True, slots=True)
class Heard:
    """What came of an event. Each check raises AssertionError, with a diff, or gives this again."""

    context: Context
    recorded_at: Timestamp
    reacted: tuple[tuple[NamedHandler, Reacted], ...]
    states: tuple[Message, ...] = ()
    """What process managers keep after it."""

    def sends(self, *requests: Message) -> Heard:
        """Check that subscribers send exactly these commands at once, in this order."""
        __tracebackhide__ = True
        for request in requests:
            self.context.contract.command_of(request)
        compare("commands", requests, self._messages(publishing=False))
        return self

    def publishes(self, *events: Message) -> Heard:
        """Check that publishers derive exactly these public events, in this order."""
        __tracebackhide__ = True
        compare("public events", events, self._messages(publishing=True))
        return self

    def schedules(
        self,
        request: Message,
        *,
        key: str,
        after: dt.timedelta | None = None,
        at: dt.datetime | Timestamp | None = None,
    ) -> Heard:
        """Check that a timer was set: this command under this key, so long `after` the event, or `at` this time."""
        __tracebackhide__ = True
        expected = _ctx(self.recorded_at)
        expected.schedule(request, key=key, after=after, at=at)
        found = [timer for timer in self._timers() if isinstance(timer, Scheduled) and timer.key == key]
        compare_lines(f"timer {key}", _timer_lines(expected.timers), _timer_lines(found))
        return self

    def cancels(self, *keys: str) -> Heard:
        """Check that exactly the timers of these keys were cancelled, in this order."""
        __tracebackhide__ = True
        found = [timer.key for timer in self._timers() if isinstance(timer, Cancelled)]
        compare_lines("cancelled timers", keys, found)
        return self

    def keeps(self, *states: Message) -> Heard:
        """Check that process managers keep exactly these states, of the entities that the event is about."""
        __tracebackhide__ = True
        compare("states", states, self.states)
        return self

    def does_nothing(self) -> Heard:
        """Check that nobody sends, publishes, schedules or cancels anything."""
        __tracebackhide__ = True
        messages = [message for _, reacted in self.reacted for message in reacted.messages]
        compare_lines("reactions", (), [*lines_of(messages), *_timer_lines(self._timers())])
        return self

    def _messages(self, *, publishing: bool) -> list[Message]:
        kinds = [(isinstance(handler, Publisher), reacted) for handler, reacted in self.reacted]
        return [message for publisher, reacted in kinds if publisher is publishing for message in reacted.messages]

    def _timers(self) -> list[Scheduled | Cancelled]:
        return [timer for _, reacted in self.reacted for timer in reacted.timers]


def hear(
    context: Context,
    before: Iterable[Message],
    event: Message,
    now: Timestamp,
    by: type[NamedHandler] | None,
    answering: Answering,
) -> Heard:
    """Let everyone in a context who hears the event react to it; only handlers of the class `by`, where it is given.

    Process managers have heard what happened before. The others may ask what is being answered.

    Raises Misconfigured where nobody hears it.
    """
    name = event.DESCRIPTOR.full_name
    handlers: Iterable[NamedHandler] = (*context.publishers.values(), *context.subscribers.values())
    hearing = [
        (handler, method)
        for handler in handlers
        if (method := handler.ceqs_heard().get(name)) and isinstance(handler, by or NamedHandler)
    ]
    if not hearing:
        who = by.__name__ if by else f"the context {context.name!r}"
        raise Misconfigured(f"{who} has no publisher or subscriber that hears {name}")
    reacted: list[tuple[NamedHandler, Reacted]] = []
    states: list[Message] = []
    for handler, method in hearing:
        if isinstance(handler, ProcessManager):
            kept: dict[str, Message] = {}
            for earlier in before:
                _manage(handler, kept, earlier, now)
            reacted.append((handler, _manage(handler, kept, event, now)))
            states += [kept[tag] for tag in handler.ceqs_tags(event)]
        else:
            reacted.append((handler, at_once(react(method, event, ctx=_ctx(now, answering)))))
    return Heard(context, now, tuple(reacted), tuple(states))


def _manage(manager: ProcessManager, kept: dict[str, Message], event: Message, now: Timestamp) -> Reacted:
    method, ctx = manager.ceqs_heard().get(event.DESCRIPTOR.full_name), _ctx(now)
    messages: list[Message] = []
    if method is not None:
        kind = manager.ceqs_state()
        for tag in manager.ceqs_tags(event):
            state = kept.setdefault(tag, initial(kind, {kind.boundary[0]: tag.partition(":")[2]}))
            messages += at_once(react(method, event, state, ctx=ctx)).messages
    return Reacted(tuple(messages), tuple(ctx.timers))


def _ctx(now: Timestamp, answering: Answering | None = None) -> Reaction[Any]:
    recorded_at = Timestamp()
    recorded_at.CopyFrom(now)
    asked: dict[str, Any] = {"ask": answering.asker, "clients": answering.client} if answering else {}
    return Reaction(event_id=EVENT_ID, position=1, recorded_at=recorded_at, **asked)


def at_once(reaction: Coroutine[Any, Any, T]) -> T:
    """Run what waits for nobody. Raises AssertionError where it does."""
    try:
        reaction.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    reaction.close()
    raise AssertionError(
        "the handler waits for something outside: give it a fake of that (in its constructor), or test it in a running "
        "system"
    )


def compare(what: str, expected: Sequence[Message], found: Sequence[Message]) -> None:
    """Hold messages against each other. Raises AssertionError with a diff."""
    __tracebackhide__ = True
    if tuple(expected) != tuple(found):
        compare_lines(what, lines_of(expected), lines_of(found))


def compare_lines(what: str, expected: Sequence[str], found: Sequence[str]) -> None:
    """Hold lines against each other. Raises AssertionError with a diff."""
    __tracebackhide__ = True
    if list(expected) != list(found):
        diff = difflib.unified_diff(list(expected), list(found), f"expected {what}", what, "", "", 99, "")
        raise AssertionError(f"other {what} than expected:\n" + "\n".join(diff))


def lines_of(messages: Iterable[Message]) -> list[str]:
    """Give messages as text."""
    lines: list[str] = []
    for message in messages:
        body = text_format.MessageToString(message, as_utf8=True, indent=2).splitlines()
        lines += [f"{message.DESCRIPTOR.name} {{", *body, "}"]
    return lines


def _timer_lines(timers: Iterable[Scheduled | Cancelled]) -> list[str]:
    lines: list[str] = []
    for timer in timers:
        if isinstance(timer, Cancelled):
            lines.append(f"cancels {timer.key}")
        else:
            lines += [f"{timer.key} at {timer.due.isoformat()}", *lines_of([timer.request])]
    return lines
