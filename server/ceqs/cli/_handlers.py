"""Finding the handlers of a project by name, and their places."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ceqs.cli._contexts import called, load_contexts, the_one_called
from ceqs.cli._settings import Settings
from ceqs.contract import Contract
from ceqs.model import EventDecoder
from ceqs.projectors import Place, places_of


@dataclass(frozen=True, slots=True)
class Handler:
    """A projection, publisher or subscriber."""

    context: str
    name: str
    contract: Contract
    """Of its own context."""
    decoder: EventDecoder
    """Reads the events that it hears."""

    def __str__(self) -> str:
        return f"{self.context}/{self.name}"


def handlers_called(settings: Settings, names: Iterable[str]) -> list[Handler]:
    """Give handlers by name, or all. Raises Misconfigured for a name that nothing has."""
    known, names = _all(settings), list(names)
    return [handler for name in names for handler in called(known, name, "handler")] if names else known


def the_handler_called(settings: Settings, name: str) -> Handler:
    """Give the handler of a name. Raises Misconfigured where it may be several, or none."""
    return the_one_called(_all(settings), name, "handler")


async def places_of_handler(settings: Settings, handler: Handler) -> Sequence[Place]:
    """Give the places that a handler has."""
    places = places_of(settings.models_url_of(handler.context, handler.name), handler.context, handler.name)
    try:
        return await places.existing()
    finally:
        await places.close()


def _all(settings: Settings) -> list[Handler]:
    return [
        Handler(context.name, name, context.contract, context.decoder_of(one.ceqs_contract))
        for context in load_contexts(settings).values()
        for handlers in (context.projections, context.publishers, context.subscribers)
        for name, one in handlers.items()
    ]
