"""A server for one or several contexts."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import nullcontext

import grpc
import structlog

from ceqs.errors import Misconfigured
from ceqs.queries import Answers, Hops, States, Stop
from ceqs.server._calls import Calls
from ceqs.server._command_stream import Streamed, add_command_stream, streamed
from ceqs.server._commands import CommandExecutor
from ceqs.server._events import Events
from ceqs.server._gates import Gates
from ceqs.server._handlers import Handlers, add_command, add_query
from ceqs.server._platform import add_admin, add_events
from ceqs.server._roles import Role
from ceqs.server._served import Served
from ceqs.server._settings import ServerSettings, listen, reserved
from ceqs.server._standard import SERVICES, Health, add_standard

_process_log = structlog.get_logger("ceqs.server")


ACCEPTING = 16
"""How many gRPC servers of this process share the port: each accepts calls one after the other, in several turns of the
loop for each. From several of them, unary commands come half as fast again; with few, a stopped subscriber costs much
more memory."""
UNTAKEN = 1024
"""How many calls each of them may keep before they are accepted: as many as one client may send at once."""


class Server:
    """Serves contexts over gRPC: their commands, queries and events, or one of these roles; health and reflection.

    Whoever opened the logs closes them, after the server has stopped.
    """

    def __init__(self, served: Sequence[Served], settings: ServerSettings) -> None:
        """Check what is to be served. Raises Misconfigured."""
        self._served = {one.context.name: one for one in served}
        self._stop = Stop()
        self._events = {name: Events(one.log, one.context.decoder) for name, one in self._served.items()}
        self._hops = {name: Hops(name, one.log, one.around) for name, one in self._served.items()}
        self._health = Health(self._stop)
        self._servers: Sequence[grpc.aio.Server] = ()
        if not served or len(self._served) != len(served):
            raise Misconfigured("a server serves one context or several, each once")
        self._settings = settings
        writing = Role.COMMANDS in settings.roles
        self._logs = {name: one.writable for name, one in self._served.items()} if writing else {}
        self._port = 0

    @property
    def port(self) -> int:
        """The port that the server listens on; 0 before it has started."""
        return self._port

    @property
    def address(self) -> str:
        """`host:port`, for clients."""
        host = self._settings.host
        return f"[{host}]:{self._port}" if ":" in host else f"{host}:{self._port}"

    async def start(self) -> None:
        """Listen and answer. Raises Misconfigured where the address cannot be listened on."""
        for one in self._served.values():
            await _declare(one)
        services = self._handlers().services
        handlers = [grpc.method_handlers_generic_handler(service, methods) for service, methods in services.items()]
        names = [*services, *SERVICES]
        sharing = nullcontext(self._settings.port) if self._settings.shared else reserved(self._settings)
        with sharing as self._port:
            servers = [grpc.aio.server(handlers=handlers, options=self._options()) for _ in range(ACCEPTING)]
            for server in servers:
                add_standard(server, self._health, names, self._stop)
            listen(servers, self._settings, self._port)
            self._servers = servers
            for server in self._servers:
                await server.start()
        await self._health.serving([*names, *self._settings.roles])

    def _options(self) -> Sequence[tuple[str, int]]:
        return (
            ("grpc.so_reuseport", 1),
            ("grpc.max_receive_message_length", self._settings.max_message),
            ("grpc.max_send_message_length", -1),
            # Refusing a call costs Python about as much as an echo. Where calls come faster than that, gRPC itself
            # drops them (CANCELLED) before anybody has worked for them: at once, on a thread of its own, those beyond
            # what may wait, and after four seconds, which costs the loop about a third of an echo, those that do.
            ("grpc.server.max_pending_requests", UNTAKEN),
            ("grpc.server.max_pending_requests_hard_limit", UNTAKEN),
            ("grpc.server_max_unrequested_time_in_server", 4),
            # Between the two, gRPC refuses at random: by default a call with 12 KiB fails every other time.
            ("grpc.max_metadata_size", self._settings.max_metadata),
            ("grpc.absolute_max_metadata_size", self._settings.max_metadata),
            ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
            ("grpc.keepalive_permit_without_calls", 1),
        )

    async def stop(self) -> None:
        """Stop: say so to health checks, take no new calls, end streams, and let running calls finish within grace."""
        if not self._servers:
            return
        await self._health.stopping()
        self._stop.ask()
        for events in self._events.values():
            await events.close()
        await asyncio.gather(*(server.stop(self._settings.grace) for server in self._servers))

    async def serve_until(self, stop: asyncio.Event) -> None:
        """Start, and stop when the event is set."""
        await self.start()
        try:
            await stop.wait()
        finally:
            await self.stop()

    def _handlers(self) -> Handlers:
        handlers, calls, roles = Handlers(), Calls(self._settings.key), self._settings.roles
        commands: list[Streamed] = []
        for name, one in self._served.items():
            states = States(one.context, one.log, capacity=self._settings.states)
            answers: Answers | None = None
            if Role.QUERIES in roles or (Role.COMMANDS in roles and one.context.guarded):
                answers = Answers(
                    one.context,
                    one.log,
                    states,
                    one.models,
                    past=one.past,
                    hops=self._hops[name],
                    services=one.services,
                    stop=self._stop,
                )
            if Role.COMMANDS in roles:
                gates = Gates(one.context, answers)
                executor = CommandExecutor(
                    one.context, self._logs[name], states, max_waiting=self._settings.max_waiting, gates=gates
                )
                for command in one.context.contract.commands.values():
                    add_command(handlers, name, command, executor, calls)
                commands += streamed(one.context, executor)
            if Role.QUERIES in roles and answers is not None:
                for query in one.context.contract.queries.values():
                    add_query(handlers, name, query, answers, calls)
        if Role.COMMANDS in roles:
            add_command_stream(handlers, commands, calls, self._stop)
            add_admin(handlers, self._served, calls, self._logs)
        if Role.EVENTS in roles:
            add_events(handlers, self._served, calls, self._events, self._hops)
        return handlers


async def _declare(served: Served) -> None:
    """Tell the log by which contract its events are tagged here. Where it is indexed otherwise, it refuses commands."""
    name = served.context.name
    if changed := await served.log.declare(served.context.contract):
        _process_log.error(f"commands are refused until the log is retagged: ceqs log retag {name}", changed=changed)
