"""Asking the queries of one's own context: typed, of the best view that there is, and with no way to write."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeAlias, TypeVar

from google.protobuf.message import Message

from ceqs.v1.answers_pb2 import Age

R = TypeVar("R", bound=Message)
R_co = TypeVar("R_co", bound=Message, covariant=True)
A = TypeVar("A", bound="Asker")


@dataclass(frozen=True, slots=True)
class Asked(Generic[R_co]):
    """What a query answered. Where nothing is recorded of what it asks for, the message is empty."""

    message: R_co
    age: Age
    """What the answer includes, and how far the model is behind the log."""
    found: bool = True
    """Whether anything is recorded, for queries that a state answers without code."""


Asking: TypeAlias = Callable[[str, Message], Awaitable[Asked[Any]]]
"""Asks a query by its path."""


class Asker:
    """Asks queries of a context. The generated one, `OrdersAsker`, has a method for each that answers once."""

    def __init__(self, ask: Asking) -> None:
        self._asking = ask

    async def _ask(self, path: str, request: Message, _: type[R]) -> Asked[R]:
        """Ask a query, whose response is of the type."""
        asked: Asked[R] = await self._asking(path, request)
        return asked


@dataclass(frozen=True, slots=True, kw_only=True)
class Admission(Generic[A]):
    """What a gatekeeper may know besides the request."""

    command_id: str
    ask: A
    """Asks queries of its own context."""
    actor: str = ""
    """Who sends the command; empty where nobody said."""
