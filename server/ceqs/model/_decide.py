"""Deciding and folding. Pure: time and ids come from the context that is passed in."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from ceqs.contract import CommandRpc, Contract, StateType, value
from ceqs.errors import Misconfigured
from ceqs.model._decoding import Upcast
from ceqs.model._fingerprint import fingerprint


@value()
class Decision:
    """What a command handler may know besides the request and the state."""

    time_ns: int
    """The time of the decision, in nanoseconds since 1970."""
    new_id: Callable[[], str]
    """Gives a new id: a UUIDv7 in production, a fixed sequence in tests."""
    command_id: str = ""
    actor: str = ""
    """Who sends the command; empty where nobody said."""

    @property
    def now(self) -> Timestamp:
        """The time of the decision."""
        seconds, nanos = divmod(self.time_ns, 1_000_000_000)
        return Timestamp(seconds=seconds, nanos=nanos)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """Where and when an event was recorded."""

    event_id: str
    type: str
    position: int
    public_position: int
    recorded_at: dt.datetime
    """UTC, aware."""
    command_id: str = ""
    causation_id: str = ""
    correlation_id: str = ""
    actor: str = ""


@value()
class Decided:
    """The outcome of a decision: events in order, and the response where the handler returned one."""

    events: tuple[Message, ...]
    response: Message | None = None


def decide(
    contract: Contract,
    rpc: CommandRpc,
    method: Callable[[Any, Any, Decision], Any],
    request: Message,
    state: Message,
    ctx: Decision,
) -> Decided:
    """Run a command handler on a copy of the state and collect what it yields.

    The handler is consumed here, so a `Rejected` after a yield decides nothing. Raises what the handler raises, and
    Misconfigured where it yields something that is no event of the context, or answers with another message type.
    """
    copy = type(state)()
    copy.CopyFrom(state)
    events: list[Message] = []
    outcome: Any = method(request, copy, ctx)
    if isinstance(outcome, Message) or not hasattr(outcome, "__iter__"):
        raise Misconfigured(
            f"{rpc.method} returned {type(outcome).__name__}; it must yield events, or return an iterable of them"
        )
    iterator: Iterator[object] = iter(outcome)
    while True:
        try:
            event = next(iterator)
        except StopIteration as stop:
            answer: object = stop.value
            break
        if not isinstance(event, Message):
            raise Misconfigured(f"{rpc.method} yielded {event!r}, which is no event")
        if contract.event(event).public:
            raise Misconfigured(f"{rpc.method} yielded the public event {type(event).__name__}; a publisher derives it")
        # A handler may go on changing a message that it has yielded.
        frozen = type(event)()
        frozen.CopyFrom(event)
        events.append(frozen)
    if answer is not None and not isinstance(answer, rpc.response):
        raise Misconfigured(f"{rpc.method} returned {type(answer).__name__}, not {rpc.response.__name__}")
    return Decided(tuple(events), answer)


def initial(kind: StateType, tags: Mapping[str, str]) -> Message:
    """Give a state before its first event, with its tag fields prefilled from `tags` (value by key)."""
    state = kind.message()
    for tag in kind.tags:
        if tag.key in tags and not tag.repeated:
            value = tags[tag.key]
            setattr(state, tag.field, int(value) if isinstance(getattr(state, tag.field), int) else value)
    return state


@dataclass(frozen=True, slots=True)
class Folder:
    """Folds one state type with the methods of a fold."""

    state: StateType
    methods: Mapping[str, Callable[[Any, Any], None]] = field(repr=False)
    """By the event's full name."""
    upcasts: Mapping[str, Upcast] = field(default_factory=dict[str, Upcast], repr=False)
    """What makes today's events of those that were recorded earlier, by the names of the methods."""

    @property
    def fingerprint(self) -> str:
        """Tells the states that it folds from those of every other fold. Computed each time."""
        return fingerprint(self.state, self.methods, self.upcasts)

    def initial(self, tags: Mapping[str, str]) -> Message:
        """Give the state before its first event, with its tag fields prefilled from `tags` (value by key)."""
        return initial(self.state, tags)

    def apply(self, state: Message, event: Message) -> None:
        """Fold one event into the state, in place. An event that the state does not list changes nothing."""
        method = self.methods.get(event.DESCRIPTOR.full_name)
        if method is not None:
            method(state, event)
