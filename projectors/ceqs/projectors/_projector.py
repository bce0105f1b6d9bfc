"""The projector process: every projection, publisher and subscriber of one context."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field

import grpc.aio

from ceqs.contract import BUCKETS
from ceqs.errors import Misconfigured
from ceqs.model import Context
from ceqs.projectors._around import Around
from ceqs.projectors._calls import LogLink, open_channel
from ceqs.projectors._clock import Clock, SystemClock
from ceqs.projectors._crew import Crew
from ceqs.projectors._dispatcher import Sender
from ceqs.projectors._handlers import Handler
from ceqs.projectors._jetstream import LogStream, NatsLink
from ceqs.projectors._keeper import Keeper
from ceqs.projectors._lease import LEASE
from ceqs.projectors._outlet import Heard, Outlet
from ceqs.projectors._place import Place
from ceqs.projectors._places import Places, places_of
from ceqs.projectors._published import Published
from ceqs.projectors._shares import WHOLE, Share, shares
from ceqs.projectors._status import HandlerStatus, handlers_of, missing, versions_of
from ceqs.projectors._store import Store
from ceqs.projectors._tail import Tail
from ceqs.projectors._worker import Worker


@dataclass(frozen=True, slots=True, kw_only=True)
class ProjectorSettings:
    """Where a projector finds what it needs."""

    addresses: Mapping[str, str]
    """`host:port` of each context's server: the own one's, and those of the contexts whose events are heard."""
    event_addresses: Mapping[str, str] = field(default_factory=dict[str, str])
    """Where the events of contexts are served, if not there."""
    query_addresses: Mapping[str, str] = field(default_factory=dict[str, str])
    """Where the queries of contexts are served, if not there: handlers may ask them."""
    models_url: str
    """See `place_of`."""
    model_urls: Mapping[str, str] = field(default_factory=dict[str, str])
    """The same for handlers by name that have a database of their own."""
    partitions: Mapping[str, int] = field(default_factory=dict[str, int])
    """How many workers a projection has, by name: of those that declare `partition_by`, on PostgreSQL."""
    nats_url: str = ""
    """Empty: the servers are asked for new events instead, ten times a second."""
    key: str = field(default="", repr=False)
    """The context's key."""
    clock: Clock = field(default_factory=SystemClock, repr=False)
    """What timers go by."""
    lease: float = LEASE
    """Seconds of silence after which another process may do the work of this one."""


class Projector:
    """Runs the handlers of a context, each in a place of its own and at its own position."""

    def __init__(self, context: Context, settings: ProjectorSettings) -> None:
        """Check the settings. Raises Misconfigured for a missing address, or two handlers that would share a place."""
        self._context = context
        self._settings = settings
        self._around = Around(context, {**settings.addresses, **settings.query_addresses})
        self._handlers = handlers_of(context, self._around)
        self._running: list[Worker | Keeper] = []
        needed = {context.name} | {handler.contract.context for handler in self._handlers}
        if absent := sorted(needed - set(settings.addresses)):
            raise Misconfigured(f"the projector of {context.name} needs the address of {', '.join(absent)}")
        places = [str(self._places(handler).at(handler.version)).lower() for handler in self._handlers]
        for handler in self._handlers:
            self._check_partitions(handler)
        if shared := {place for place in places if places.count(place) > 1}:
            raise Misconfigured(f"two handlers of {context.name} would share {', '.join(shared)}: name one differently")

    def status(self) -> list[HandlerStatus]:
        """Say where each handler stands."""
        if not self._running:
            return [missing(handler) for handler in self._handlers]
        return [running.status() for running in self._running]

    async def run(self) -> None:
        """Run every handler until cancelled. One that fails waits by itself; the others go on."""
        channels: dict[str, grpc.aio.Channel] = {}
        tails: dict[str, Tail] = {}
        nats = NatsLink(self._settings.nats_url) if self._settings.nats_url else None

        def channel(context: str, apart: Mapping[str, str]) -> grpc.aio.Channel:
            address = apart.get(context) or self._settings.addresses[context]
            if address not in channels:
                channels[address] = open_channel(address)
            return channels[address]

        def tail(context: str) -> Tail:
            if context not in tails:
                private = context == self._context.name
                link = LogLink(
                    channel(context, self._settings.event_addresses), context, private=private, key=self._settings.key
                )
                tails[context] = Tail(link, LogStream(nats, context, public=not private) if nats else None)
            return tails[context]

        def outlet(store: Store, heard: Heard) -> Outlet:
            sender = Sender(channel(self._context.name, {}), self._settings.key)
            return Outlet(store, sender, self._settings.clock, heard)

        def work(handler: Handler, place: Place, share: Share = WHOLE) -> Worker:
            published = None
            if handler.kind == "publisher":
                server = channel(self._context.name, {})
                build = self._context.publishers
                published = Published(server, self._settings.key, self._context.name, handler.name, build)
            source = tail(handler.contract.context)
            return Worker(handler, place, source, outlet, self._settings.lease, share, published)

        def feed(handler: Handler, place: Place) -> Worker | Crew:
            parts = shares(self._settings.partitions.get(handler.name, 1))
            return work(handler, place) if len(parts) == 1 else Crew([work(handler, place, part) for part in parts])

        def run(handler: Handler) -> Worker | Keeper:
            places = self._places(handler)
            if handler.kind == "projection":
                return Keeper(versions_of(self._context, handler), places, feed)
            return work(handler, places.at(handler.version))

        try:
            self._running = [run(handler) for handler in self._handlers]
            async with asyncio.TaskGroup() as group:
                for running in self._running:
                    group.create_task(running.run(), name=f"handler {running.name}")
                await asyncio.Event().wait()
        finally:
            await self._around.close()
            for one in tails.values():
                await one.close()
            if nats:
                await nats.close()
            for open_one in channels.values():
                await open_one.close()

    def _check_partitions(self, handler: Handler) -> None:
        count = self._settings.partitions.get(handler.name, 1)
        if count == 1:
            return
        if not 1 <= count <= BUCKETS:
            raise Misconfigured(f"partitions: {handler.name} may have 1 to {BUCKETS} of them, not {count}")
        if not all(version.partition_by for version in versions_of(self._context, handler)):
            raise Misconfigured(
                f"partitions: {handler.name} has one worker: only a projection that declares `partition_by` may have "
                "several, each with keys of its own"
            )
        if not self._places(handler).at(handler.version).schema:
            raise Misconfigured(f"partitions: {handler.name} is in a SQLite file, which has one writer; use PostgreSQL")

    def _places(self, handler: Handler) -> Places:
        url = self._settings.model_urls.get(handler.name, self._settings.models_url)
        return places_of(url, self._context.name, handler.name)
