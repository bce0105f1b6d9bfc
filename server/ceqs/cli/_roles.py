"""The processes of a deployment: `ceqs serve`, `ceqs relay`, `ceqs project`."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Collection, Coroutine, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from functools import partial
from typing import Any, NoReturn

import structlog

from ceqs.cli._contexts import RoleName, addresses_of, choose, handlers_of, load_contexts
from ceqs.cli._settings import Settings
from ceqs.cli._signals import together
from ceqs.client import Services
from ceqs.errors import LogReplaced, LogUnavailable, Misconfigured
from ceqs.log import Log, LogReader, Numbered, open_log, open_reader
from ceqs.model import Context
from ceqs.projectors import (
    ModelReader,
    Past,
    PastLimits,
    Progress,
    Projector,
    ProjectorSettings,
    Upstream,
    metadata_of,
    place_of,
    places_of,
)
from ceqs.queries import Around, Hearing
from ceqs.relay import Relay, StreamLimits
from ceqs.server import EVERY_ROLE, Role, Served, Server, ServerSettings, forget_lapsed

Announce = Callable[[str, Mapping[str, Any]], None]
"""Takes a line for people and the same for programs."""

LOOK = 1.0
"""Seconds between two looks whether a served log is still the one that was opened."""

_process_log = structlog.get_logger("ceqs.cli")


def roles_of(names: Collection[str]) -> frozenset[Role]:
    """Give the roles of these names; every role where none is named, or `all`."""
    return EVERY_ROLE if not names or "all" in names else frozenset(map(Role, names))


def serving_addresses(settings: Settings, contexts: Sequence[str], roles: Collection[Role]) -> dict[str, str]:
    """Give where a process with these roles listens: at the address of the first of them."""
    first: RoleName = "commands" if Role.COMMANDS in roles else "queries" if Role.QUERIES in roles else "events"
    return addresses_of(settings, contexts, first)


async def serve(
    settings: Settings,
    names: Iterable[str],
    announce: Announce,
    *,
    roles: frozenset[Role] = EVERY_ROLE,
    shared: bool = False,
) -> None:
    """Serve commands, queries and events of contexts, or some of these roles, each at its address, until cancelled.

    Without commands, neither logs nor query models are ever written. The addresses may be `shared` with sibling
    processes.
    """
    await _anew(partial(_serve, settings, names, announce, roles=roles, shared=shared))


async def _serve(
    settings: Settings, names: Iterable[str], announce: Announce, *, roles: frozenset[Role], shared: bool
) -> None:
    contexts, writing = load_contexts(settings), Role.COMMANDS in roles
    addresses = serving_addresses(settings, list(contexts), roles)
    settings = settings if writing else settings.reading()
    if not settings.key:
        _process_log.warning("no key: private events are closed to everyone, projectors too; set CEQS_KEY")
    servers: list[Server] = []
    logs: list[LogReader] = []
    written: list[Log] = []
    async with AsyncExitStack() as stack:
        for name, context in choose(contexts, names).items():
            log: LogReader = await (open_log(settings.log_url(name), name) if writing else _reader(settings, name))
            logs.append(log)
            stack.push_async_callback(log.close)
            models = _models(settings, context)
            around = _around(settings, context, addresses_of(settings, list(contexts), "events"), stack)
            past = _past(settings, context, {name: log, **around.told})
            for close in (*(model.close for model in models.values()), *(one.close for one in past.values())):
                stack.push_async_callback(close)
            listening = server_settings(settings, name, addresses[name], roles=roles, shared=shared)
            services = Services(addresses_of(settings, list(contexts), "queries"))
            stack.push_async_callback(services.close)
            served = Served(context, log, models, past, around, services)
            written += [served.writable] if writing else []
            server = Server([served], listening)
            servers.append(server)
            try:
                await server.start()
            except BaseException:
                await _stop(servers)
                raise
            parts = [role.value for role in Role if role in roles]
            value = {"serves": name, "address": server.address, "pid": os.getpid(), "roles": parts}
            what = name if roles == EVERY_ROLE else f"{name} ({', '.join(parts)})"
            announce(f"{what} is served at {server.address} by process {os.getpid()}", value)
        try:
            every = settings.purge_hours * 3600
            await together(
                [*map(_until_replaced, logs), *(forget_lapsed(log, every) for log in written if every)],
            )
        finally:
            await _stop(servers)


async def relay(settings: Settings, names: Iterable[str], announce: Announce) -> None:
    """Carry the events of contexts to JetStream until cancelled."""
    limits = StreamLimits(
        days=settings.stream_days,
        messages=settings.stream_messages,
        megabytes=settings.stream_megabytes,
        replicas=settings.stream_replicas,
    )

    async def once(name: str, context: Context) -> None:
        reader = await _reader(settings, name)
        try:
            announce(f"{name} is relayed to {settings.nats_url}", {"relays": name, "nats_url": settings.nats_url})
            await Relay(reader, context.decoder, settings.nats_url, limits).run()
        finally:
            await reader.close()

    await together(_anew(partial(once, *item)) for item in choose(load_contexts(settings), names).items())


async def _anew(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Work, and begin anew whenever the log is another one: what was opened and remembered belongs to the old one."""
    while True:
        try:
            return await work()
        except LogReplaced as error:
            _process_log.warning("beginning anew", why=error.message)


async def _until_replaced(log: LogReader) -> NoReturn:
    """Raise LogReplaced once the log is another one."""
    while True:
        await asyncio.sleep(LOOK)
        try:
            await log.head()
        except LogReplaced:
            raise
        except LogUnavailable:
            # Whoever asks is told.
            continue


async def project(settings: Settings, names: Iterable[str], announce: Announce) -> None:
    """Run the projections, publishers and subscribers of contexts until cancelled."""
    contexts = load_contexts(settings)
    if not settings.key:
        raise Misconfigured("projectors read private events: set CEQS_KEY to the key of the servers")
    addresses = addresses_of(settings, list(contexts))
    event_addresses = addresses_of(settings, list(contexts), "events")
    query_addresses = addresses_of(settings, list(contexts), "queries")

    async def one(name: str, context: Context) -> None:
        handlers = handlers_of(context)
        projector_settings = ProjectorSettings(
            addresses=addresses,
            event_addresses=event_addresses,
            query_addresses=query_addresses,
            key=settings.key,
            nats_url=settings.nats_url,
            models_url=settings.models_url,
            model_urls={handler: settings.models_url_of(name, handler) for handler in handlers},
            partitions={handler: settings.partitions_of(name, handler) for handler in handlers},
        )
        announce(f"{name} projects {', '.join(handlers) or 'nothing'}", {"projects": name, "handlers": handlers})
        await Projector(context, projector_settings).run()

    await together(one(*item) for item in choose(contexts, names).items())


def _models(settings: Settings, context: Context) -> dict[str, ModelReader]:
    return {
        name: ModelReader(
            places_of(settings.models_url_of(context.name, name), context.name, name), metadata_of(projection)
        )
        for name, projection in context.projections.items()
    }


def _past(settings: Settings, context: Context, logs: Mapping[str, Numbered]) -> dict[str, Past]:
    """Give readers of what was, of the projections that fold one of the logs, in a database as theirs is."""
    on_postgres = bool(place_of(settings.past_url, "past", "any").schema)
    if on_postgres != (settings.store == "postgres"):
        raise Misconfigured(f"scratch_url {settings.past_url} is no {settings.store}, as the models are")
    limits = PastLimits(
        bytes=settings.scratch_megabytes * 2**20, seconds=settings.scratch_seconds, idle=settings.scratch_minutes * 60
    )
    return {
        name: Past(projection, context.decoder_of(source), logs[source.context], settings.past_url, limits)
        for name, projection in context.projections.items()
        if (source := projection.ceqs_contract).context in logs
        and bool(place_of(settings.models_url_of(context.name, name), context.name, name).schema) == on_postgres
    }


def _around(settings: Settings, context: Context, addresses: Mapping[str, str], stack: AsyncExitStack) -> Around:
    """Give who carries on what a context records, and whom it hears; the stack closes what they are asked by."""

    def progress(name: str) -> Progress:
        found = Progress(place_of(settings.models_url_of(context.name, name), context.name, name))
        stack.push_async_callback(found.close)
        return found

    hearers: dict[str, list[Progress]] = {}
    for name, subscriber in context.subscribers.items():
        if (source := subscriber.ceqs_contract.context) != context.name:
            hearers.setdefault(source, []).append(progress(name))
    told = {p.ceqs_contract.context for p in context.projections.values()} - {context.name}
    upstreams: dict[str, Upstream] = {}
    for source in sorted({*hearers, *told} & addresses.keys()):
        upstreams[source] = Upstream(source, addresses[source])
        stack.push_async_callback(upstreams[source].close)
    own = [name for name, s in context.subscribers.items() if s.ceqs_contract.context == context.name]
    return Around(
        [progress(name) for name in context.publishers],
        {name: Hearing(one, hearers[name]) for name, one in upstreams.items() if name in hearers},
        [progress(name) for name in own],
        {name: one for name, one in upstreams.items() if name in told},
    )


def server_settings(
    settings: Settings, name: str, address: str, *, roles: frozenset[Role] = EVERY_ROLE, shared: bool = False
) -> ServerSettings:
    """Give the settings of a context's server. Raises Misconfigured where the address is none."""
    host, colon, port = address.rpartition(":")
    if not (host and colon and port.isdecimal() and int(port) < 65536):
        raise Misconfigured(f"addresses: {address!r} of {name} is not of the form host:port")
    return ServerSettings(
        host=host.removeprefix("[").removesuffix("]"),
        port=int(port),
        roles=roles,
        shared=shared,
        key=settings.key,
        tls_certificate=settings.path(settings.tls_certificate) if settings.tls_certificate else None,
        tls_key=settings.path(settings.tls_key) if settings.tls_key else None,
        grace=settings.grace,
    )


async def _reader(settings: Settings, name: str) -> LogReader:
    """Open a log for reading as soon as its server has made it."""
    waiting = False
    while True:
        try:
            return await open_reader(settings.log_url(name), name)
        except LogUnavailable as error:
            if not waiting:
                _process_log.info("waiting for the log", context=name, why=error.message)
            waiting = True
            await asyncio.sleep(0.2)


async def _stop(servers: Iterable[Server]) -> None:
    await asyncio.gather(*(server.stop() for server in servers))
