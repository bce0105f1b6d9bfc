"""How far a publisher has published, as the log knows it: it begins there, whatever its place says.

A place may be lost, or be an older copy, and the log may have been restored. So a publisher tells the log up to where
nothing waits in its place any more, and asks it before it begins. What was published since then has ids that the log
knows as well, and is not published twice either.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import grpc.aio

from ceqs.errors import CeqsError, LogUnavailable, Misconfigured
from ceqs.projectors._calls import TRANSIENT, refusal_of
from ceqs.v1.admin_pb2 import NotePublishedRequest, NotePublishedResponse


@dataclass(frozen=True, slots=True)
class Mark:
    """Up to where a publisher has published."""

    log_id: str
    round: int
    position: int
    publishers: tuple[str, ...] = ()
    """All that have published, by name, where it was asked for."""


class Published:
    """Asks the server of a context about one of its publishers, and tells it."""

    def __init__(
        self, channel: grpc.aio.Channel, key: str, context: str, publisher: str, build: Collection[str]
    ) -> None:
        """`build`: the names of all publishers of this build."""
        self._build = frozenset(build)
        self._names = NotePublishedRequest(context=context, publisher=publisher)
        self._metadata: list[tuple[str, str | bytes]] = [("ceqs-key", key)]
        self._note: grpc.aio.UnaryUnaryMultiCallable[NotePublishedRequest, NotePublishedResponse] = channel.unary_unary(
            "/ceqs.v1.AdminService/NotePublished",
            request_serializer=NotePublishedRequest.SerializeToString,
            response_deserializer=NotePublishedResponse.FromString,
        )

    async def ask(self) -> Mark:
        """Ask where the publisher begins.

        Raises Misconfigured where it seems to have had another name, LogUnavailable, or what the server answers.
        """
        mark, name = await self.tell(Mark("", 0, 0)), self._names.publisher
        missing = [one for one in mark.publishers if one not in self._build]
        if missing and name not in mark.publishers:
            raise Misconfigured(
                f"{name} has published nothing yet, and {', '.join(missing)}, which has, is not in this build. Is it "
                f'the same under another name? Then keep that: `name = "{missing[0]}"`. If it is to publish everything '
                f"from the first event on: ceqs republish {name}"
            )
        return mark

    async def tell(self, mark: Mark) -> Mark:
        """Tell how far the publisher is. Gives what the log knows now: of another log or round, nothing was noted.

        Raises LogUnavailable, or what the server answers.
        """
        request = NotePublishedRequest(log_id=mark.log_id, round=mark.round, position=mark.position)
        request.MergeFrom(self._names)
        try:
            noted = await self._note(request, metadata=self._metadata, timeout=5)
        except grpc.aio.AioRpcError as failed:
            refusal = refusal_of(failed)
            error: CeqsError = refusal.error
            if not refusal.details or refusal.code in TRANSIENT:
                error = LogUnavailable(f"nobody says what is published: {refusal.error.message}")
            raise error from failed
        return Mark(noted.log_id, noted.round, noted.position, tuple(noted.publishers))
