"""Recorded events of any context, for the commands that print them."""

from __future__ import annotations

import json
from typing import Any, ClassVar

from google.protobuf.json_format import MessageToDict

from ceqs.cli._contexts import choose, load_contexts
from ceqs.cli._running import whereabouts
from ceqs.cli._settings import Settings
from ceqs.client import ContextClient, Event
from ceqs.contract import Contract
from ceqs.v1.events_pb2 import GetHeadRequest, GetHeadResponse, Head


class EventsClient(ContextClient):
    """A client of any context; `of` makes one that knows a contract's events."""

    ceqs_context: ClassVar[str] = ""

    @classmethod
    def of(cls, contract: Contract, address: str, key: str, *, timeout: float = 10.0) -> EventsClient:
        """Give a client of the contract's context."""
        known = {name: event.message for name, event in contract.events.items()}
        client: type[EventsClient] = type(
            "EventsClient", (cls,), {"ceqs_context": contract.context, "ceqs_events": known}
        )
        return client(address, key=key, timeout=timeout)

    async def head(self) -> Head:
        """Say where the log stands."""
        request = GetHeadRequest(context=self.ceqs_context)
        answer = await self._query("/ceqs.v1.EventsService/GetHead", request, GetHeadResponse)
        return answer.message.head


async def said_head(settings: Settings, name: str, patience: float) -> Head:
    """Let a context say where its log stands, wherever `ceqs dev` or the settings say that it is served.

    Raises Misconfigured for a context that the project does not have, Unavailable where nobody says it in time.
    """
    contexts = load_contexts(settings)
    (context,) = choose(contexts, [name]).values()
    addresses, _ = whereabouts(settings, contexts, "events")
    async with EventsClient.of(context.contract, addresses[name], "", timeout=patience) as client:
        return await client.head()


def fields_of(event: Event) -> str:
    """Give the fields of an event on one line: `order_id=1  lines=[...]`."""
    fields = decoded(event) or {}
    return "  ".join(
        f"{name}={value if isinstance(value, str) else json.dumps(value)}" for name, value in fields.items()
    )


def as_value(context: str, event: Event) -> dict[str, Any]:
    """Give an event for programs."""
    return {
        "context": context,
        "position": event.position,
        "public_position": event.public_position,
        "type": event.type,
        "version": event.version,
        "id": event.id,
        "recorded_at": event.recorded_at.isoformat(),
        "command_id": event.command_id,
        "correlation_id": event.correlation_id,
        "causation_id": event.causation_id,
        "actor": event.actor,
        "event": decoded(event),
    }


def decoded(event: Event) -> dict[str, Any] | None:
    """Give the fields of an event; None where its type is not known here."""
    if event.message is None:
        return None
    fields: dict[str, Any] = MessageToDict(event.message, preserving_proto_field_name=True)
    return fields
