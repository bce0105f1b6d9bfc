"""What one event does to a place: rows of a model, or calls to be made."""

from __future__ import annotations

import asyncio
import datetime as dt
import hashlib
import uuid
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import TypeAlias
from urllib.parse import quote

import sqlalchemy as sa
from google.protobuf.message import Message
from sqlalchemy.ext.asyncio import AsyncSession

from ceqs.contract import tags_of
from ceqs.errors import CeqsError, Misconfigured, Unavailable
from ceqs.model import (
    Cancelled,
    Context,
    EventDecoder,
    NamedHandler,
    ProcessManager,
    Publisher,
    Reacted,
    Recorded,
    Scheduled,
    Subscriber,
    TableProjection,
    looks_around,
    react,
)
from ceqs.projectors._around import Around
from ceqs.projectors._outbox import Outgoing, enqueue
from ceqs.projectors._process_states import load_state, save_state
from ceqs.projectors._timers import Timer, set_timers
from ceqs.v1.admin_pb2 import AppendPublicRequest
from ceqs.v1.events_pb2 import RecordedEvent

MAX_DEPTH = 16
"""How many reactions may lie between a client's command and a subscriber's: a loop of services ends here."""
MUCH_LATER = dt.timedelta(seconds=1)
"""From here on a timer begins anew: its command is no direct outcome of the event that set it."""
MAX_ID_BYTES = 200
MAX_KEY_BYTES = 80
"""How much of an id a timer's key may take before its hash stands for it."""
LONGEST = 30.0
"""Seconds that a method which looks around may take for one event."""
APPEND_PUBLIC = "/ceqs.v1.AdminService/AppendPublic"
PUBLIC_IDS = uuid.UUID("8f1c6f3e-6c1d-5e0a-9a52-0d8b1a3d2f47")
"""The namespace of public events' ids."""


class Endless(CeqsError):
    """Subscribers answer each other without end."""


Apply: TypeAlias = Callable[[RecordedEvent], Awaitable[None]]


class Handler(ABC):
    """Applies events to a place."""

    kind: str
    """projection, publisher, subscriber or process"""
    version: int = 1
    metadata: sa.MetaData | None = None
    """The tables of its own."""
    partition_by: str = ""
    """The tag key whose value no two workers share; empty where there is one worker."""
    looks_around = False
    """Whether it is to see events by `look_around` before it applies them."""

    def __init__(self, handler: NamedHandler, decoder: EventDecoder) -> None:
        self.name = handler.ceqs_name()
        self.contract = handler.ceqs_contract
        self.max_parked = handler.max_parked
        self.max_unsent = handler.max_unsent
        self._decode = decoder.decode
        self._methods = handler.ceqs_heard()

    def hears(self, event: RecordedEvent) -> bool:
        """Say whether the handler has a method for the event, as today's type."""
        kind = self.contract.recorded.get(event.type)
        return kind is not None and kind.full_name in self._methods

    async def look_around(self, event: RecordedEvent) -> None:  # noqa: B027  # most have no need to
        """Do what takes others, outside of any transaction, once until `forget`. Raises what the user's method does."""

    def begin(self, round_: int) -> None:  # noqa: B027
        """Begin with a publisher's round: what it derives in another one has other ids."""

    def forget(self, event: RecordedEvent) -> None:  # noqa: B027
        """Forget what came of looking around: it has been committed."""

    @abstractmethod
    async def apply(self, session: AsyncSession, event: RecordedEvent) -> None:
        """Write what the event means. Raises what the user's method raises."""

    @asynccontextmanager
    async def batch(self, session: AsyncSession, events: Sequence[RecordedEvent]) -> AsyncGenerator[Apply]:
        """Give what applies events of a batch one by one: some or all of these, in order."""
        yield partial(self.apply, session)

    def key(self, event: RecordedEvent) -> str:
        """Give the tag that keeps an event in order with others, `order:536365`; empty where it has none.

        Raises Unreadable.
        """
        message = self._decode(event)
        declared = self.contract.event(message)
        fields = [tag for tag in declared.tags if tag.key == declared.partition_by]
        return next(iter(tags_of(message, fields)), "")


class ProjectionHandler(Handler):
    """Writes the rows of a projection that has tables of its own."""

    kind = "projection"

    def __init__(self, projection: TableProjection, decoder: EventDecoder) -> None:
        super().__init__(projection, decoder)
        self.version = projection.version
        self.metadata = projection.metadata
        self.partition_by = projection.partition_by

    async def apply(self, session: AsyncSession, event: RecordedEvent) -> None:
        """Write the rows that the event means."""
        message = self._decode(event)
        await self._methods[message.DESCRIPTOR.full_name](session, message, recorded(event, message))


class ReactionHandler(Handler):
    """Puts what a publisher or subscriber yields into its outbox."""

    kind = "subscriber"

    def __init__(self, handler: Publisher | Subscriber, context: Context, around: Around) -> None:
        super().__init__(handler, context.decoder_of(handler.ceqs_contract))
        self._around = around
        self._private = handler.ceqs_contract.package == context.contract.package
        self._round = 1
        if isinstance(handler, Publisher):
            self.kind = "publisher"
        self._context = context
        self._looking = {name for name, method in self._methods.items() if looks_around(method)}
        self.looks_around = bool(self._looking)
        self._seen: dict[str, Reacted] = {}

    def begin(self, round_: int) -> None:
        """Begin with a round."""
        self._round = round_
        self._seen.clear()

    async def look_around(self, event: RecordedEvent) -> None:
        """Run the method of an event beforehand, where it waits for others."""
        kind = self.contract.recorded.get(event.type)
        if kind is None or kind.full_name not in self._looking or event.id in self._seen:
            return
        message = self._decode(event)
        try:
            async with asyncio.timeout(LONGEST):
                self._seen[event.id] = await self._run(event, message)
        except TimeoutError as error:
            raise Unavailable(f"{self.name} waited for others for too long (at most {LONGEST:g} s)") from error

    def forget(self, event: RecordedEvent) -> None:
        """Forget what came of an event."""
        self._seen.pop(event.id, None)

    async def apply(self, session: AsyncSession, event: RecordedEvent) -> None:
        """Put the calls that the event leads to into the outbox."""
        reacted = self._seen.get(event.id) or await self._react(session, event, self._decode(event))
        if self.kind == "publisher":
            if reacted.timers:
                raise Misconfigured(f"{self.name} is a publisher and sets no timers; a subscriber may")
            calls = self._append(event, reacted.messages) if reacted.messages else ()
        else:
            calls = [self._command(event, self._id(event, n), request) for n, request in enumerate(reacted.messages)]
            await self._set(session, event, reacted.timers)
        if calls:
            await enqueue(session, calls)

    async def _react(self, session: AsyncSession, event: RecordedEvent, message: Message) -> Reacted:
        return await self._run(event, message)

    async def _run(self, event: RecordedEvent, message: Message) -> Reacted:
        return await react(self._methods[message.DESCRIPTOR.full_name], message, ctx=self._around.reaction(event))

    def _append(self, event: RecordedEvent, messages: Iterable[Message]) -> Sequence[Outgoing]:
        append_id = self._id(event, 0)
        request = AppendPublicRequest(
            context=self._context.name,
            append_id=append_id,
            causation_id=event.id,
            correlation_id=event.correlation_id,
            causation_depth=event.causation_depth,
        )
        keys: dict[str, None] = {}
        for ordinal, message in enumerate(messages):
            declared = self._context.contract.event(message)
            if not declared.public:
                raise Misconfigured(f"{self.name} yielded {declared.full_name}, which is no public event")
            event_id = str(uuid.uuid5(PUBLIC_IDS, f"{append_id}:{ordinal}"))
            request.events.add(
                id=event_id,
                type=declared.full_name,
                payload=message.SerializeToString(),
                schema_version=declared.version,
            )
            tags = tags_of(message, [tag for tag in declared.tags if tag.key == declared.partition_by])
            keys |= dict.fromkeys(tags or [declared.full_name])
        return [self._call(event, append_id, APPEND_PUBLIC, request, keys, event.causation_depth)]

    def _command(
        self, event: RecordedEvent, request_id: str, request: Message, *, much_later: bool = False
    ) -> Outgoing:
        if event.causation_depth >= MAX_DEPTH and not much_later:
            raise Endless(
                f"{event.type} at position {event.position} is the outcome of {event.causation_depth} reactions in a "
                f"row (at most {MAX_DEPTH}): do two subscribers answer each other?"
            )
        rpc = self._context.contract.command_of(request)
        keys = tags_of(request, [tag for tag in rpc.tags if tag.key in rpc.state.boundary])
        depth = 0 if much_later else event.causation_depth + 1
        return self._call(event, request_id, rpc.path, request, keys or [rpc.state.full_name], depth)

    async def _set(self, session: AsyncSession, event: RecordedEvent, timers: Iterable[Scheduled | Cancelled]) -> None:
        recorded_at = event.recorded_at.ToDatetime(dt.UTC)
        changes: list[Timer] = []
        for ordinal, timer in enumerate(timers):
            prefix = f"ceqs:{self._context.name}/{self.name}:timer:{_in_id(timer.key)}:"
            if isinstance(timer, Cancelled):
                changes.append(Timer(timer.key, prefix, command_id=event.command_id))
            else:
                # What is done every day, by a timer that its own outcome sets again, is no endless loop.
                much_later = timer.due - recorded_at >= MUCH_LATER
                request_id = self._short(f"{prefix}{event.id}:{ordinal}")
                call = self._command(event, request_id, timer.request, much_later=much_later)
                changes.append(Timer(timer.key, prefix, call, timer.due))
        if changes:
            await set_timers(session, changes)

    def _call(
        self, event: RecordedEvent, request_id: str, path: str, request: Message, keys: Iterable[str], depth: int
    ) -> Outgoing:
        return Outgoing(
            request_id=request_id,
            path=path,
            request=request.SerializeToString(),
            keys=tuple(keys),
            position=event.position if self._private else event.public_position,
            causation_id=event.id,
            correlation_id=event.correlation_id,
            depth=depth,
        )

    def _id(self, event: RecordedEvent, ordinal: int) -> str:
        again = f"~{self._round}" if self._round > 1 else ""
        return self._short(f"ceqs:{self._context.name}/{self.name}{again}:{event.id}:{ordinal}")

    def _short(self, derived: str) -> str:
        if len(derived.encode()) > MAX_ID_BYTES:
            raise Misconfigured(
                f"the id {derived} is longer than {MAX_ID_BYTES} bytes: shorten the name of {self.name}"
            )
        return derived


class ProcessHandler(ReactionHandler):
    """Keeps the states of a process manager, and puts what it yields into its outbox."""

    kind = "process"

    def __init__(self, manager: ProcessManager, context: Context, around: Around) -> None:
        super().__init__(manager, context, around)
        self._tags = manager.ceqs_tags
        self._state = manager.ceqs_state()

    def key(self, event: RecordedEvent) -> str:
        """Give the tag by which the process keeps its state, `order:536365`; empty where the event has none."""
        return next(iter(self._tags(self._decode(event))), "")

    async def _react(self, session: AsyncSession, event: RecordedEvent, message: Message) -> Reacted:
        """React for each state that the event is about, in the order of its tags."""
        method, ctx = self._methods[message.DESCRIPTOR.full_name], self._around.reaction(event)
        messages: list[Message] = []
        for tag in self._tags(message):
            key = tag.partition(":")[2]
            state = await load_state(session, self._state, key)
            messages += (await react(method, message, state, ctx=ctx)).messages
            await save_state(session, self._state, key, state)
        return Reacted(tuple(messages), tuple(ctx.timers))


def recorded(event: RecordedEvent, message: Message) -> Recorded:
    """Give where and when an event was recorded; `message`: as which it is read."""
    return Recorded(
        event_id=event.id,
        type=message.DESCRIPTOR.full_name,
        position=event.position,
        public_position=event.public_position,
        recorded_at=event.recorded_at.ToDatetime(dt.UTC),
        command_id=event.command_id,
        causation_id=event.causation_id,
        correlation_id=event.correlation_id,
        actor=event.actor,
    )


def _in_id(key: str) -> str:
    """Give a timer's key as a part of an id: legible where it is short."""
    quoted = quote(key, safe="")
    return quoted if len(quoted) <= MAX_KEY_BYTES else hashlib.sha256(key.encode()).hexdigest()
