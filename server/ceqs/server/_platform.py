"""The services that every server has: events and admin."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from typing import Any

from ceqs.contract import decode_token
from ceqs.errors import Invalid, NotFound, Violation
from ceqs.log import Log, Published
from ceqs.queries import Hops, patience
from ceqs.server._admin import append_public
from ceqs.server._calls import Calls, expires_of, metadata_of
from ceqs.server._decode import Decoder
from ceqs.server._events import Events, head_message, is_private
from ceqs.server._handlers import GrpcContext, Handlers
from ceqs.server._served import Served
from ceqs.v1.admin_pb2 import (
    AppendPublicRequest,
    BeginEpochRequest,
    BeginEpochResponse,
    NotePublishedRequest,
    NotePublishedResponse,
    PublishAgainRequest,
    PublishAgainResponse,
    PurgeCommandsRequest,
    PurgeCommandsResponse,
)
from ceqs.v1.events_pb2 import (
    GetHeadRequest,
    GetHeadResponse,
    ReadRequest,
    ResolveTokenRequest,
    ResolveTokenResponse,
    SubscribeRequest,
)

DOMAIN = "ceqs"
EVENTS = "ceqs.v1.EventsService"
ADMIN = "ceqs.v1.AdminService"


def add_events(
    handlers: Handlers,
    served: Mapping[str, Served],
    calls: Calls,
    events: Mapping[str, Events],
    hops: Mapping[str, Hops],
) -> None:
    """Serve EventsService for all contexts."""
    decode_head, decode_read, decode_subscribe, decode_resolve = (
        Decoder(request, strict=False)
        for request in (GetHeadRequest, ReadRequest, SubscribeRequest, ResolveTokenRequest)
    )

    async def get_head(raw: bytes, context: GrpcContext) -> bytes:
        log = _chosen(served, decode_head(raw)).log
        return GetHeadResponse(head=head_message(log, await log.head())).SerializeToString()

    async def resolve(raw: bytes, context: GrpcContext) -> bytes:
        request: Any = decode_resolve(raw)
        following = hops[_chosen(served, request).context.name]
        token = decode_token(request.token, "token")
        head = await following.public(token, patience(expires_of(context)), request.asked)
        response = ResolveTokenResponse()
        if head is not None:
            response.log_id, response.public_position = head.log_id, head.public_position
        return response.SerializeToString()

    def readable(request: Any, context: GrpcContext) -> Events:
        if is_private(request.scope):
            calls.require_key(metadata_of(context))
        return events[_chosen(served, request).context.name]

    def read_events(raw: bytes, context: GrpcContext) -> AsyncGenerator[bytes, None]:
        request: Any = decode_read(raw)
        return readable(request, context).read(request)

    def subscribe_to_events(raw: bytes, context: GrpcContext) -> AsyncGenerator[bytes, None]:
        request: Any = decode_subscribe(raw)
        return readable(request, context).subscribe(request)

    handlers.unary(f"/{EVENTS}/GetHead", DOMAIN, get_head)
    handlers.unary(f"/{EVENTS}/ResolveToken", DOMAIN, resolve)
    handlers.streaming(f"/{EVENTS}/Read", DOMAIN, read_events)
    handlers.streaming(f"/{EVENTS}/Subscribe", DOMAIN, subscribe_to_events)


def add_admin(handlers: Handlers, served: Mapping[str, Served], calls: Calls, logs: Mapping[str, Log]) -> None:
    """Serve AdminService for all contexts."""
    decode_append = Decoder(AppendPublicRequest, strict=True)
    decode_purge = Decoder(PurgeCommandsRequest, strict=True)
    decode_begin = Decoder(BeginEpochRequest, strict=True)
    decode_note = Decoder(NotePublishedRequest, strict=True)
    decode_again = Decoder(PublishAgainRequest, strict=True)

    async def append(raw: bytes, context: GrpcContext) -> bytes:
        # The key comes first: who lacks it learns nothing about the contract.
        calls.require_key(metadata_of(context))
        request: Any = decode_append(raw)
        chosen = _chosen(served, request)
        decoder, log = chosen.context.decoder, logs[chosen.context.name]
        response = await append_public(decoder, log, request, expires=expires_of(context))
        return response.SerializeToString()

    async def purge(raw: bytes, context: GrpcContext) -> bytes:
        calls.require_key(metadata_of(context))
        request: Any = decode_purge(raw)
        log = logs[_chosen(served, request).context.name]
        done = await log.purge(after=request.after, dry_run=request.dry_run)
        return PurgeCommandsResponse(
            examined=done.examined, forgotten=done.forgotten, next=done.next
        ).SerializeToString()

    async def note_published(raw: bytes, context: GrpcContext) -> bytes:
        calls.require_key(metadata_of(context))
        request: Any = decode_note(raw)
        log = logs[_publishing(served, request).context.name]
        told = Published(request.round, request.position) if request.log_id == log.log_id else None
        noted = await log.published(request.publisher, told)
        response = NotePublishedResponse(log_id=log.log_id, round=noted.round, position=noted.position)
        if not request.round:
            response.publishers.extend(await log.publishers())
        return response.SerializeToString()

    async def publish_again(raw: bytes, context: GrpcContext) -> bytes:
        calls.require_key(metadata_of(context))
        request: Any = decode_again(raw)
        begun = await logs[_publishing(served, request).context.name].publish_again(request.publisher)
        return PublishAgainResponse(round=begun.round).SerializeToString()

    async def begin_epoch(raw: bytes, context: GrpcContext) -> bytes:
        calls.require_key(metadata_of(context))
        request: Any = decode_begin(raw)
        log = logs[_chosen(served, request).context.name]
        head = await log.begin_epoch(after=request.after, renew=request.renew_log)
        return BeginEpochResponse(epoch=head.epoch, log_id=head.log_id).SerializeToString()

    handlers.unary(f"/{ADMIN}/AppendPublic", DOMAIN, append)
    handlers.unary(f"/{ADMIN}/PurgeCommands", DOMAIN, purge)
    handlers.unary(f"/{ADMIN}/NotePublished", DOMAIN, note_published)
    handlers.unary(f"/{ADMIN}/PublishAgain", DOMAIN, publish_again)
    handlers.unary(f"/{ADMIN}/BeginEpoch", DOMAIN, begin_epoch)


def _publishing(served: Mapping[str, Served], request: Any) -> Served:
    chosen = _chosen(served, request)
    if not request.publisher:
        raise Invalid(violations=[Violation("publisher", "must not be empty")])
    return chosen


def _chosen(served: Mapping[str, Served], request: Any) -> Served:
    if request.context in served:
        return served[request.context]
    if request.context:
        raise NotFound(f"this server does not serve the context {request.context!r}, but {', '.join(served)}")
    if len(served) > 1:
        raise Invalid(violations=[Violation("context", f"must name one of {', '.join(served)}")])
    return next(iter(served.values()))
