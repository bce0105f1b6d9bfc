"""The base of every generated client.

place_order ──> _command ─┐                        one command id and one timeout over all attempts
get_order ────> _query ───┼─> _attempts ──> gRPC   the token of the last command goes along
watch_order ──> _watch ───┤
events ───────> _events.py┤                        streams go on after the last position seen
execute_many ─> _stream.py┘                        many commands on one call
"""

from __future__ import annotations

import copy
import datetime as dt
from collections.abc import AsyncGenerator, Iterable, Mapping
from types import TracebackType
from typing import Any, ClassVar, Literal, Self, TypeVar

import grpc
import grpc.aio
from google.protobuf.message import Message

from ceqs.client._answers import Answer, Event, age_of, same_answer, token_of
from ceqs.client._calls import CallMetadata, command_id_of, metadata_of, open_stream, text_of, unary
from ceqs.client._channel import open_channel
from ceqs.client._events import Bounds, EventsReader
from ceqs.client._failures import Patience, error_of, leave_open
from ceqs.client._outcomes import Outcome
from ceqs.client._stream import Commands, CommandStream, StreamSettings
from ceqs.contract import encode_moment, merge_tokens
from ceqs.errors import CeqsError
from ceqs.v1.answers_pb2 import Receipt

R = TypeVar("R", bound=Message)


class ContextClient:
    """Talks to one context. Use it as an async context manager, or call `close()`.

    `address` is `host:port`, or the channel of another client (`InventoryClient(orders.channel)`), which stays its
    owner's to close. `queries` and `events` are likewise where these are served, if not there. `key` is the context's
    key, needed for private events; `actor` says who sends the commands. `timeout` is in seconds over all attempts of
    one call, `attempt_timeout` over each of them.
    """

    ceqs_context: ClassVar[str]
    ceqs_events: ClassVar[Mapping[str, type[Message]]]
    """The message types of the context's events, by full name."""
    ceqs_commands: ClassVar[Mapping[type[Message], tuple[str, type[Message]]]]
    """The path and the type of the response of the context's commands, by the type of their requests."""

    def __init__(
        self,
        address: str | grpc.aio.Channel,
        *,
        queries: str | grpc.aio.Channel | None = None,
        events: str | grpc.aio.Channel | None = None,
        key: str | None = None,
        actor: str | None = None,
        credentials: grpc.ChannelCredentials | None = None,
        timeout: float = 10.0,
        attempt_timeout: float = 4.0,
    ) -> None:
        self._opened: dict[str, grpc.aio.Channel] = {}
        self.channel = self._open(address, credentials)
        """Where commands are sent."""
        self._queries = self._open(queries or self.channel, credentials)
        self._events = self._open(events or self.channel, credentials)
        self.timeout = timeout
        self.attempt_timeout = attempt_timeout
        self.token = ""
        """What this client's own commands have written: its queries wait for it."""
        self._seen: dict[str, str] = {}
        """What the last answer of each query included: no later answer is older, whichever model it comes from."""
        self._moment: str | dt.datetime | None = None
        self._base = metadata_of({"ceqs-key": key, "ceqs-actor": actor})

    async def close(self) -> None:
        """Close the channels; calls that are under way are cancelled."""
        for channel in self._opened.values():
            await channel.close()

    def _open(self, address: str | grpc.aio.Channel, credentials: grpc.ChannelCredentials | None) -> grpc.aio.Channel:
        if not isinstance(address, str):
            return address
        if address not in self._opened:
            self._opened[address] = open_channel(address, credentials)
        return self._opened[address]

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def with_token(self, token: str) -> Self:
        """Give a client on the same channel whose queries wait for what the token says, besides its own commands."""
        other = copy.copy(self)
        other._opened = {}
        other.token = merge_tokens(self.token, token)
        return other

    def with_moment(self, as_of: str | dt.datetime) -> Self:
        """Give a client on the same channel whose queries are answered as of a moment, unless they say another."""
        other = self.with_token("")
        other._moment = as_of
        return other

    def events(
        self,
        *,
        after: int = 0,
        before: int = 0,
        from_time: dt.datetime | None = None,
        before_time: dt.datetime | None = None,
        limit: int | None = None,
        backwards: bool = False,
        scope: Literal["public", "private"] = "public",
        types: Iterable[type[Message] | str] = (),
        tags: Iterable[str] = (),
        correlation_ids: Iterable[str] = (),
        live: bool = True,
        upcast: bool = True,
    ) -> AsyncGenerator[Event, None]:
        """Give recorded events, each once and in order, then (`live`) those to come.

        Those after a position, or of a time and later; with `live=False` also those before a position or a time, and
        `backwards`, the last one first. All of them, or `limit` of them. Positions are public positions in the public
        scope; times have a time zone. `types` are any of which, `tags` all of which an event has. With `upcast`, the
        server gives events of earlier versions as the newest; without, events come as they were recorded.

        Reconnects by itself and goes on after the last position seen. The first connection must come within the
        client's timeout; later outages are waited out. With `live=False` and `correlation_ids`, what follows from first
        commands is looked for, by a walk through all that is within the bounds. Raises Invalid for bounds that cannot
        be, Denied or Unauthenticated for private events without the context's key, OutOfRange where the log was
        restored meanwhile.
        """
        reader = EventsReader(
            channel=self._events,
            metadata=self._base,
            context=self.ceqs_context,
            known=self.ceqs_events,
            public=scope == "public",
            types=tuple(one if isinstance(one, str) else one.DESCRIPTOR.full_name for one in types),
            tags=tuple(tags),
            timeout=self.timeout,
            bounds=Bounds(
                after=after,
                before=before,
                from_time=from_time,
                before_time=before_time,
                limit=limit,
                backwards=backwards,
                correlation_ids=tuple(correlation_ids),
                live=live,
            ),
            upcast=upcast,
        )
        return reader.read()

    async def _command(
        self,
        path: str,
        request: Message,
        response_type: type[R],
        *,
        command_id: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109  # it bounds the attempts, and travels as the deadline
        metadata: Mapping[str, str] | None = None,
    ) -> R:
        """Send a command until it is answered. It has one id over all attempts, so it is done once at most."""
        command_id = command_id_of(request, command_id)
        sent = self._base + metadata_of({"ceqs-command-id": command_id, **(metadata or {})})
        try:
            response, trailers = await self._attempts(
                self.channel, path, request, response_type, sent, self._patience(timeout)
            )
        except CeqsError as error:
            leave_open(error, command_id)
            raise
        self.token = merge_tokens(self.token, token_of(response, trailers))
        return response

    async def _query(
        self,
        path: str,
        request: Message,
        response_type: type[R],
        *,
        at_least: str | None = None,
        as_of: str | dt.datetime | None = None,
        timeout: float | None = None,  # noqa: ASYNC109  # it bounds the attempts, and travels as the deadline
    ) -> Answer[R]:
        """Ask until it is answered. `at_least` is a token; none where it is empty.

        By default, the answer includes the client's own commands, and is no older than the last one to the same query.
        `as_of` is a moment of the past: a token, or a time with a zone.
        """
        as_of = as_of or self._moment
        sent = self._base + metadata_of(
            {
                "ceqs-at-least": self._least(path) if at_least is None else at_least,
                "ceqs-as-of": None if as_of is None else encode_moment(as_of),
            }
        )
        response, trailers = await self._attempts(
            self._queries, path, request, response_type, sent, self._patience(timeout)
        )
        age = age_of(response, trailers)
        if as_of is None and age.token:
            self._seen[path] = age.token
        return Answer(response, age)

    def _least(self, path: str) -> str:
        return merge_tokens(self.token, self._seen.get(path, ""))

    async def _watch(
        self,
        path: str,
        request: Message,
        response_type: type[R],
        *,
        at_least: str | None = None,
        as_of: str | dt.datetime | None = None,
        timeout: float | None = None,  # noqa: ASYNC109  # until the first answer
    ) -> AsyncGenerator[Answer[R], None]:
        """Give the answer whenever it changes; once where it is as of a moment of the past.

        Asks again after an outage, for nothing older than was seen, and gives what has changed meanwhile.
        """
        as_of = as_of or self._moment
        past = None if as_of is None else encode_moment(as_of)
        seen = self._least(path) if at_least is None else at_least
        patience, last = self._patience(timeout), None
        while True:
            call = open_stream(
                self._queries, path, request, response_type, self._base, {"ceqs-at-least": seen, "ceqs-as-of": past}
            )
            try:
                async for response in call:
                    answer = Answer(response, age_of(response, {}))
                    seen, patience = answer.age.token or seen, Patience(None)
                    if as_of is None and seen:
                        self._seen[path] = seen
                    if last is None or not same_answer(last, response):
                        last = response
                        yield answer
            except grpc.aio.AioRpcError as failure:
                await patience.after(error_of(failure))
            else:
                return
            finally:
                call.cancel()

    def _execute_many(self, requests: Commands[Message], stream: CommandStream) -> AsyncGenerator[Outcome[Any], None]:
        return stream.execute_many(requests, self.ceqs_commands)

    def _settings(self, timeout: float | None) -> StreamSettings:
        return StreamSettings(
            channel=self.channel,
            metadata=self._base,
            timeout=self.timeout if timeout is None else timeout,
            attempt_timeout=self.attempt_timeout,
            accepted=self._accepted,
        )

    def _accepted(self, receipt: Receipt) -> None:
        self.token = merge_tokens(self.token, receipt.token)

    def _patience(self, timeout: float | None) -> Patience:
        return Patience(self.timeout if timeout is None else timeout)

    async def _attempts(
        self,
        channel: grpc.aio.Channel,
        path: str,
        request: Message,
        response_type: type[R],
        metadata: CallMetadata,
        patience: Patience,
    ) -> tuple[R, dict[str, str]]:
        method = unary(channel, path, response_type)
        while True:
            call = method(request, metadata=metadata, timeout=max(0.0, min(self.attempt_timeout, patience.left())))
            try:
                return await call, text_of(await call.trailing_metadata())
            except grpc.aio.AioRpcError as failure:
                await patience.after(error_of(failure))
