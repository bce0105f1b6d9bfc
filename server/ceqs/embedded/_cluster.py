"""Several nats-servers that are one JetStream."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from ceqs.embedded._nats import HOST, NatsServer, free_ports


class NatsCluster:
    """A cluster of nats-servers on the loopback interface, each with a directory of its own.

    An async context manager, as NatsServer is. Its servers elect leaders among themselves, which takes a moment after
    they have started; with one of three gone, it goes on.
    """

    def __init__(self, directory: Path, size: int = 3) -> None:
        routes = free_ports(size)
        cluster = {"name": "ceqs", "routes": [f"nats://{HOST}:{port}" for port in routes]}
        self.servers = [
            NatsServer(
                directory / f"node{number}",
                settings={"server_name": f"node{number}", "cluster": {**cluster, "listen": f"{HOST}:{port}"}},
            )
            for number, port in enumerate(routes, 1)
        ]
        self._stack = AsyncExitStack()

    @property
    def url(self) -> str:
        """Where clients connect to: the urls of all servers, separated by commas."""
        return ",".join(server.url for server in self.servers)

    def named(self, name: str) -> NatsServer:
        """Give the server of that name, as JetStream tells which one leads a stream: `node2`."""
        return self.servers[int(name.removeprefix("node")) - 1]

    async def __aenter__(self) -> Self:
        """Start the servers, side by side."""
        await asyncio.gather(*map(self._stack.enter_async_context, self.servers))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop the servers."""
        await self._stack.aclose()
