"""`ceqs dev`: the whole project on one machine, reloaded when it changes."""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
import sys
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from pathlib import Path

import typer

from ceqs.cli._contexts import addresses_of, load_contexts
from ceqs.cli._generate import generate_project
from ceqs.cli._layout import layout_faults, portions_of
from ceqs.cli._output import Output, show, show_error
from ceqs.cli._processes import check_processes
from ceqs.cli._running import Running, announced, find_running
from ceqs.cli._settings import Settings
from ceqs.cli._signals import together
from ceqs.embedded import NatsServer, Supervisor
from ceqs.errors import CeqsError, Misconfigured

ROLES = ("serve", "relay", "project")
COLOURS = {"dev": "white", "nats": "yellow", "serve": "green", "relay": "magenta", "project": "cyan"}


class Dev:
    """A running project: its processes and what is said about them."""

    def __init__(self, settings: Settings, output: Output) -> None:
        self.settings = settings
        self.output = output
        self.supervisor = Supervisor(self.say, grace=settings.grace + 2)

    def say(self, name: str, line: str) -> None:
        """Print a line of a process."""
        label = f"{name:>8} |"
        coloured = typer.style(label, fg=COLOURS[name]) if sys.stdout.isatty() else label
        show(self.output, f"{coloured} {line}", {"process": name, "line": line})

    async def start_roles(self, env: Mapping[str, str]) -> None:
        """Start the servers, the relay and the projectors."""
        for role in ROLES:
            await self.supervisor.start(
                role, [sys.executable, "-m", "ceqs.cli", role], env=env, cwd=self.settings.project
            )

    async def keep_nats(self, server: NatsServer) -> None:
        """Start the nats-server again whenever it has died."""
        while True:
            await server.died()
            self.say("nats", "ended; starting again")
            await server.start()

    async def reload(self) -> None:
        """Generate when a proto changes; start the roles again when code or settings do, generated code too."""
        async for changed in self._changes():
            protos = [path for path in changed if path.suffix == ".proto"]
            code = [path for path in changed if path.suffix == ".py" or path.name == "pyproject.toml"]
            if protos and await self._generate(protos):
                continue  # What it has written is seen as a change of Python files, and then the roles start again.
            if code:
                self.say("dev", f"{_listed(code)} changed: starting again")
                self._check_layout()
                await asyncio.gather(*map(self.supervisor.restart, ROLES))

    async def _generate(self, protos: list[Path]) -> bool:
        """Generate; say whether a file has changed."""
        self.say("dev", f"{_listed(protos)} changed: generating")
        try:
            return bool(await asyncio.to_thread(generate_project, self.settings))
        except CeqsError as error:
            show_error(self.output, error)
            return False

    async def _changes(self) -> AsyncIterator[set[Path]]:
        from watchfiles import DefaultFilter, awatch  # pyright: ignore[reportUnknownVariableType]

        project = self.settings.project
        ignored = [project / "tests", self.settings.path(self.settings.data)]
        portions = [portion for portion in portions_of(project) if portion != project]
        watched = [*portions, self.settings.path(self.settings.proto)] if portions else [project]
        noticed = DefaultFilter(ignore_paths=ignored)
        async for changes in awatch(*watched, watch_filter=noticed, ignore_permission_denied=True):
            yield {Path(path) for _, path in changes}

    def _check_layout(self) -> None:
        for fault in layout_faults(portions_of(self.settings.project)):
            self.say("dev", f"layout: {fault}")


async def dev(settings: Settings, output: Output) -> None:
    """Run every role of every context until cancelled."""
    began = time.monotonic()
    check_processes(settings)
    if faults := layout_faults(portions_of(settings.project)):
        raise Misconfigured("; ".join(faults))
    addresses = addresses_of(settings, list(load_contexts(settings)))
    if running := find_running(settings):
        raise Misconfigured(f"ceqs dev runs here already (process {running.pid})")
    for name, address in addresses.items():
        _check_free(name, address)
    directory = settings.path(settings.data)
    project = Dev(settings, output)
    async with NatsServer(directory / "nats") as nats, project.supervisor:
        key = settings.key or secrets.token_urlsafe(24)
        running = Running(pid=os.getpid(), addresses=addresses, nats_url=nats.url, key=key)

        async def welcome() -> None:
            await _served(addresses.values())
            seconds = time.monotonic() - began
            value = {"ready": True, "addresses": addresses, "nats_url": nats.url, "data": str(directory)}
            show(output, _welcome(settings, running, seconds), value)

        with announced(directory, running):
            await project.start_roles({"CEQS_KEY": key, "CEQS_NATS_URL": nats.url, "CEQS_LOG": "text"})
            try:
                await together([project.keep_nats(nats), project.reload(), welcome()])
            finally:
                project.say("dev", "ending")


async def _served(addresses: Iterable[str]) -> None:
    for address in addresses:
        host, _, port = address.rpartition(":")
        while True:
            try:
                _, writer = await asyncio.open_connection(host, int(port))
            except OSError:
                await asyncio.sleep(0.1)
                continue
            writer.close()
            await writer.wait_closed()
            break


def _check_free(name: str, address: str) -> None:
    host, _, port = address.rpartition(":")
    try:
        with socket.create_server((host, int(port))):
            return
    except (OSError, ValueError, OverflowError) as error:
        raise Misconfigured(
            f"{address}, where {name} shall be served, is not free ({getattr(error, 'strerror', None) or error}); "
            f"set another one, as in CEQS_ADDRESSES={name}=127.0.0.1:50061"
        ) from error


def _welcome(settings: Settings, running: Running, seconds: float) -> str:
    width = max(map(len, [*running.addresses, "nats"]))
    places = [f"  {name:<{width}}  {address}" for name, address in running.addresses.items()]
    return "\n".join(
        [
            "",
            f"Ready after {seconds:.1f} s. {_where(settings)}; Ctrl-C ends it.",
            "",
            *places,
            f"  {'nats':<{width}}  {running.nats_url.removeprefix('nats://')}",
            "",
            "Try, in another terminal in this project:",
            "",
            "  ceqs tail                         every event as it is recorded",
            "  ceqs call RPC key=value ...       any command or query",
            "",
        ]
    )


def _listed(paths: list[Path]) -> str:
    names = sorted({path.name for path in paths})
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _where(settings: Settings) -> str:
    data = settings.path(settings.data)
    if settings.store == "postgres":
        return f"Events and models lie in PostgreSQL, the streams in {data}"
    return f"Everything lies in {data}"
