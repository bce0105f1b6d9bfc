"""Answers that a test has ready, in place of the queries that handlers ask."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeVar

from google.protobuf import text_format
from google.protobuf.message import Message

from ceqs.client import Answer, ContextClient
from ceqs.model import Asked, Asker, Context
from ceqs.v1.answers_pb2 import Age

C = TypeVar("C", bound=ContextClient)


@dataclass(frozen=True, slots=True)
class Answering:
    """Answers queries of a context and of other services with what was given, by request."""

    context: Context
    answers: tuple[tuple[Message, Message], ...] = ()

    @property
    def asker(self) -> Asker:
        """Give what asks queries of the own context."""

        async def ask(path: str, request: Message) -> Asked[Any]:
            return Asked(self._to(path, request), Age())

        return self.context.ceqs_asker(ask)

    def client(self, kind: type[C]) -> C:
        """Give a client of another service."""

        async def answer(_: C, path: str, request: Message, *_args: Any, **_options: Any) -> Answer[Any]:
            return Answer(self._to(path, request), Age())

        fake: Any = type(kind.__name__, (kind,), {"_query": answer})
        client: C = fake.__new__(fake)  # it has no address
        return client

    def _to(self, path: str, request: Message) -> Message:
        for asked, response in self.answers:
            if asked == request:
                return response
        shown = text_format.MessageToString(request, as_one_line=True, as_utf8=True)
        raise AssertionError(
            f"the handler asks {path.rpartition('/')[2]} with {request.DESCRIPTOR.name}({shown}), and the test has no "
            "answer: hears(..., answers=[(request, response)])"
        )
