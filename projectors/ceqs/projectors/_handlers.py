"""What one event does to a place: rows of a model, or calls to be made."""

from __future__ import annotations

import datetime as dt
import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence

import sqlalchemy as sa
from google.protobuf.message import DecodeError, Message
from sqlalchemy.ext.asyncio import AsyncSession

from ceqs.contract import tags_of
from ceqs.errors import CeqsError, Misconfigured
from ceqs.model import Context, NamedHandler, Projection, Publisher, Reaction, Recorded, Subscriber
from ceqs.projectors._blame import Unreadable
from ceqs.projectors._outbox import Outgoing, enqueue
from ceqs.v1.admin_pb2 import AppendPublicRequest
from ceqs.v1.events_pb2 import RecordedEvent

MAX_DEPTH = 16
"""How many reactions may lie between a client's command and a subscriber's: a loop of services ends here."""
MAX_ID_BYTES = 200
APPEND_PUBLIC = "/ceqs.v1.AdminService/AppendPublic"
PUBLIC_IDS = uuid.UUID("8f1c6f3e-6c1d-5e0a-9a52-0d8b1a3d2f47")
"""The namespace of public events' ids."""


class Endless(CeqsError):
    """Subscribers answer each other without end."""


class Handler(ABC):
    """Applies events to a place."""

    kind: str
    """projection, publisher or subscriber"""
    version: int = 1
    metadata: sa.MetaData | None = None
    """The tables of its own."""

    def __init__(self, handler: NamedHandler) -> None:
        self.name = handler.ceqs_name()
        self.contract = handler.ceqs_contract
        self.max_parked = handler.max_parked
        self._methods = handler.ceqs_heard()

    def hears(self, event: RecordedEvent) -> bool:
        """Say whether the handler has a method for the event."""
        return event.type in self._methods

    @abstractmethod
    async def apply(self, session: AsyncSession, event: RecordedEvent) -> None:
        """Write what the event means. Raises what the user's method raises."""

    def key(self, event: RecordedEvent) -> str:
        """Give the tag that keeps an event in order with others, `order:536365`; empty where it has none.

        Raises Unreadable.
        """
        declared = self.contract.events[event.type]
        fields = [tag for tag in declared.tags if tag.key == declared.partition_by]
        return next(iter(tags_of(self._message(event), fields)), "")

    def _message(self, event: RecordedEvent) -> Message:
        if event.codec or event.key_ref:
            raise Unreadable(f"{event.type} at position {event.position} is encoded in a way unknown to this build")
        try:
            return self.contract.events[event.type].message.FromString(event.payload)
        except DecodeError as error:
            raise Unreadable(f"{event.type} at position {event.position} cannot be decoded: {error}") from error


class ProjectionHandler(Handler):
    """Writes the rows of a projection."""

    kind = "projection"

    def __init__(self, projection: Projection) -> None:
        super().__init__(projection)
        self.version = projection.version
        self.metadata = projection.metadata

    async def apply(self, session: AsyncSession, event: RecordedEvent) -> None:
        """Write the rows that the event means."""
        meta = Recorded(
            event_id=event.id,
            type=event.type,
            position=event.position,
            public_position=event.public_position,
            recorded_at=event.recorded_at.ToDatetime(dt.UTC),
            command_id=event.command_id,
            causation_id=event.causation_id,
            correlation_id=event.correlation_id,
            actor=event.actor,
        )
        await self._methods[event.type](session, self._message(event), meta)


class ReactionHandler(Handler):
    """Puts what a publisher or subscriber yields into its outbox."""

    def __init__(self, handler: Publisher | Subscriber, context: Context) -> None:
        super().__init__(handler)
        self.kind = "publisher" if isinstance(handler, Publisher) else "subscriber"
        self._context = context

    async def apply(self, session: AsyncSession, event: RecordedEvent) -> None:
        """Put the calls that the event leads to into the outbox."""
        yielded = self._methods[event.type](self._message(event), _reaction(event))
        if yielded is None:
            raise Misconfigured(f"{self.name} returned None for {event.type}; it must yield, or return an iterable")
        outcome = list(yielded)
        if outcome and self.kind == "subscriber" and event.causation_depth >= MAX_DEPTH:
            raise Endless(
                f"{event.type} at position {event.position} is the outcome of {event.causation_depth} reactions in a "
                f"row (at most {MAX_DEPTH}): do two subscribers answer each other?"
            )
        if outcome:
            calls = self._append(event, outcome) if self.kind == "publisher" else self._commands(event, outcome)
            await enqueue(session, calls)

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
            request.events.add(id=event_id, type=declared.full_name, payload=message.SerializeToString())
            tags = tags_of(message, [tag for tag in declared.tags if tag.key == declared.partition_by])
            keys |= dict.fromkeys(tags or [declared.full_name])
        return [self._call(event, append_id, APPEND_PUBLIC, request, keys, event.causation_depth)]

    def _commands(self, event: RecordedEvent, requests: Iterable[Message]) -> Sequence[Outgoing]:
        calls: list[Outgoing] = []
        for ordinal, request in enumerate(requests):
            rpc = self._context.contract.command_of(request)
            keys = tags_of(request, [tag for tag in rpc.tags if tag.key in rpc.state.boundary])
            calls.append(
                self._call(
                    event,
                    self._id(event, ordinal),
                    rpc.path,
                    request,
                    keys or [rpc.state.full_name],
                    event.causation_depth + 1,
                )
            )
        return calls

    def _call(
        self, event: RecordedEvent, request_id: str, path: str, request: Message, keys: Iterable[str], depth: int
    ) -> Outgoing:
        return Outgoing(
            request_id=request_id,
            path=path,
            request=request.SerializeToString(),
            keys=tuple(keys),
            causation_id=event.id,
            correlation_id=event.correlation_id,
            depth=depth,
        )

    def _id(self, event: RecordedEvent, ordinal: int) -> str:
        derived = f"ceqs:{self._context.name}/{self.name}:{event.id}:{ordinal}"
        if len(derived.encode()) > MAX_ID_BYTES:
            raise Misconfigured(
                f"the id {derived} is longer than {MAX_ID_BYTES} bytes: shorten the name of {self.name}"
            )
        return derived


def _reaction(event: RecordedEvent) -> Reaction:
    return Reaction(
        event_id=event.id,
        position=event.position,
        recorded_at=event.recorded_at,
        correlation_id=event.correlation_id,
        actor=event.actor,
    )
