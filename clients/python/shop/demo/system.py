"""The shop as it runs: a nats-server, and for each service a server, a relay and a projector, each its own process."""

from __future__ import annotations

import asyncio
import datetime as dt
import secrets
import socket
import sys
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from ceqs.embedded import NatsServer, PostgresServer, Supervisor
from ceqs.errors import Misconfigured
from shop.inventory.v1.inventory_client import InventoryClient
from shop.orders.v1.orders_client import OrdersClient

CONTEXTS = {"orders": "shop.orders.context:orders", "inventory": "shop.inventory.context:inventory"}
NATS = "nats-server"
ROLES = ("serve", "relay", "project")
FIRST_PORT = 50051
"""Where `ceqs` looks for the first service of a project."""
AGAIN = 0.2
"""Seconds after which a nats-server that did not start is started again."""
START = 60.0
"""Seconds that a service may take to answer, its start or restart included."""


class System:
    """Every process of the shop, started again when it dies. An async context manager.

    Everything that it writes lies in `directory`, or in a PostgreSQL server of its own where `postgres` is set; what
    the processes say goes to `processes.log` there. With `usual`, services listen where `ceqs` looks for them if nobody
    else does yet, and whoever starts another shop at the same moment may take them for his own.
    """

    def __init__(self, directory: Path, *, postgres: bool = False, usual: bool = False) -> None:
        self.directory = directory.absolute()
        self.key = secrets.token_urlsafe(24)
        ports = _free_ports(usual=usual)
        self.addresses = {name: f"127.0.0.1:{port}" for name, port in zip(CONTEXTS, ports, strict=True)}
        self._stack = AsyncExitStack()
        self._supervisor = Supervisor(self._note)
        self._nats = NatsServer(self.directory / "nats")
        self._nats_restarts = 0
        self._postgres = PostgresServer() if postgres else None

    @property
    def models_url(self) -> str:
        """Where the query models lie."""
        return self._postgres.url if self._postgres else f"sqlite:///{self.directory / 'models'}"

    @property
    def pids(self) -> dict[str, int]:
        """The process ids of what runs now, by name."""
        return {NATS: self._nats.pid, **self._supervisor.pids}

    @property
    def restarts(self) -> dict[str, int]:
        """How often each process was started again; those that never were are left out."""
        counts = {NATS: self._nats_restarts, **self._supervisor.restarts}
        return {name: count for name, count in counts.items() if count}

    @property
    def environment(self) -> dict[str, str]:
        """What `ceqs` must know to join in."""
        return {
            "CEQS_CONTEXTS": ",".join(CONTEXTS.values()),
            "CEQS_ADDRESSES": ",".join(f"{name}={address}" for name, address in self.addresses.items()),
            "CEQS_DATA": str(self.directory),
            "CEQS_NATS_URL": self._nats.url,
            "CEQS_KEY": self.key,
            **({"CEQS_STORE": "postgres", "CEQS_DATABASE_URL": self._postgres.url} if self._postgres else {}),
        }

    async def __aenter__(self) -> Self:
        """Start everything and wait until both services answer."""
        async with AsyncExitStack() as stack:
            self._log = stack.enter_context((self.directory / "processes.log").open("a", encoding="utf-8"))
            if self._postgres:
                await stack.enter_async_context(self._postgres)
            await stack.enter_async_context(self._nats)
            await stack.enter_async_context(self._supervisor)
            keeper = asyncio.create_task(self._keep_nats())
            stack.push_async_callback(_end, keeper)
            for role in ROLES:
                for context in CONTEXTS:
                    command = [sys.executable, "-m", "ceqs.cli", role, context]
                    await self._supervisor.start(f"{role} {context}", command, env=self.environment, cwd=self.directory)
            self.orders = OrdersClient(self.addresses["orders"], key=self.key, timeout=START)
            self.inventory = InventoryClient(self.addresses["inventory"], key=self.key, timeout=START)
            for client in (self.orders, self.inventory):
                await stack.enter_async_context(client)
                async for _ in client.events(live=False):
                    break
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop everything."""
        await self._stack.aclose()

    async def _keep_nats(self) -> None:
        while True:
            await self._nats.died()
            self._note(NATS, "ended; starting again")
            try:
                await self._nats.start()
            except Misconfigured as error:  # It may be killed while it starts, too.
                self._note(NATS, error.message)
                await asyncio.sleep(AGAIN)
            else:
                self._nats_restarts += 1

    def _note(self, name: str, line: str) -> None:
        self._log.write(f"{dt.datetime.now(dt.UTC):%H:%M:%S.%f} {name}: {line}\n")
        self._log.flush()


def _free_ports(*, usual: bool) -> list[int]:
    """Give a port for each service, the `usual` ones where they are free."""
    with ExitStack() as stack:
        listeners = [stack.enter_context(socket.socket()) for _ in CONTEXTS]
        for number, listener in enumerate(listeners):
            try:
                listener.bind(("127.0.0.1", FIRST_PORT + number if usual else 0))
            except OSError:
                listener.bind(("127.0.0.1", 0))
        return [int(listener.getsockname()[1]) for listener in listeners]


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
