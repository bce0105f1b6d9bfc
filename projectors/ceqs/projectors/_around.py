"""What handlers may look at besides the event: queries of their own context, and other services."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from google.protobuf.message import Message

from ceqs.client import Answer, ContextClient, Services
from ceqs.errors import NotFound
from ceqs.model import Asked, Context, Reaction
from ceqs.v1.answers_pb2 import Age
from ceqs.v1.events_pb2 import RecordedEvent

R = TypeVar("R", bound=Message)
PATIENCE = 10.0
"""Seconds that a query of the own context may take."""


class Around:
    """Whom the handlers of a context may ask; `addresses` say where the queries of contexts are served.

    `close` it in the event loop that used it.
    """

    def __init__(self, context: Context, addresses: Mapping[str, str]) -> None:
        self._context = context
        self._address = addresses.get(context.name, "")
        self._services = Services(addresses)
        self._own: _Own | None = None

    def reaction(self, event: RecordedEvent) -> Reaction[Any]:
        """Give what a handler may know of an event besides its message, and whom it may ask."""
        return Reaction(
            event_id=event.id,
            position=event.position,
            recorded_at=event.recorded_at,
            correlation_id=event.correlation_id,
            actor=event.actor,
            ask=self._context.ceqs_asker(self._ask),
            clients=self._services.client,
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._services.close()
        if self._own is not None:
            await self._own.close()

    async def _ask(self, path: str, request: Message) -> Asked[Any]:
        rpc = self._context.contract.queries[path]
        self._own = self._own or _Own(self._address, timeout=PATIENCE)
        try:
            answer = await self._own.answer(path, request, rpc.response)
        except NotFound:
            if rpc.row_field and self._context.method(rpc) is None:
                return Asked(rpc.response(), Age(), found=False)
            raise
        return Asked(answer.message, answer.age)


class _Own(ContextClient):
    async def answer(self, path: str, request: Message, response_type: type[R]) -> Answer[R]:
        """Ask for the best view that there is now."""
        return await self._query(path, request, response_type, at_least="")
