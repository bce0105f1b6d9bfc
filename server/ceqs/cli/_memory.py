"""`ceqs log remember` and `ceqs log purge`: for how long commands are remembered, and forgetting them afterwards."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import ClassVar

from google.protobuf.message import Message

from ceqs.cli._contexts import addresses_of, choose, load_contexts
from ceqs.cli._output import Output, show
from ceqs.cli._running import find_running
from ceqs.cli._settings import Settings
from ceqs.client import ContextClient
from ceqs.errors import Misconfigured, Unavailable
from ceqs.log import Log, Purged, open_log, open_reader
from ceqs.v1.admin_pb2 import PurgeCommandsRequest, PurgeCommandsResponse

PATIENCE = 2.0
"""Seconds that a server has to answer at all."""
STEP = 60.0
"""Seconds that it has to look at a thousand commands."""


class AdminClient(ContextClient):
    """A client of AdminService."""

    ceqs_context: ClassVar[str] = ""
    ceqs_events: ClassVar[Mapping[str, type[Message]]] = {}

    async def purge(self, context: str, after: str, *, dry_run: bool) -> Purged:
        """Purge through the server; see Log.purge."""
        path, request = (
            "/ceqs.v1.AdminService/PurgeCommands",
            PurgeCommandsRequest(context=context, after=after, dry_run=dry_run),
        )
        done = (await self._query(path, request, PurgeCommandsResponse)).message
        return Purged(done.examined, done.forgotten, done.next)


async def remember(
    settings: Settings, name: str, *, days: int | None, forever: bool, shorten: bool, output: Output
) -> None:
    """Say for how long the log of a context remembers commands, after promising another time if one is given."""
    choose(load_contexts(settings), [name])
    if days is not None and forever:
        raise Misconfigured("--days or --forever, not both")
    # Only its server makes a log: there is none to promise anything where this fails.
    reader = await open_reader(settings.log_url(name), name)
    try:
        if days is not None or forever:
            async with _opened(settings, name) as log:
                await log.remember(days, shorten=shorten)
        promised = await reader.remembers()
    finally:
        await reader.close()
    how_long = "for ever" if promised is None else f"for {promised} days"
    show(output, f"{name}: commands are remembered {how_long}", {"remembers": name, "days": promised})


async def purge(settings: Settings, names: Iterable[str], *, dry_run: bool, output: Output) -> None:
    """Forget what the logs of contexts no longer promise to remember, through their servers where these run."""
    contexts = load_contexts(settings)
    running = find_running(settings)
    addresses = running.addresses if running else addresses_of(settings, list(contexts))
    key = settings.key or (running.key if running else "")
    for name in choose(contexts, names):
        async with AsyncExitStack() as stack:
            client = await stack.enter_async_context(AdminClient(addresses[name], key=key, timeout=PATIENCE))
            step = partial(client.purge, name, dry_run=dry_run)
            try:
                done = await step("")
            except Unavailable:  # No server runs.
                await (await open_reader(settings.log_url(name), name)).close()
                log = await stack.enter_async_context(_opened(settings, name))
                step = partial(log.purge, dry_run=dry_run)
                done = await step("")
            examined, forgotten = done.examined, done.forgotten
            client.timeout = client.attempt_timeout = STEP
            while done.next:
                done = await step(done.next)
                examined, forgotten = examined + done.examined, forgotten + done.forgotten
        text = f"{name}: {'would forget' if dry_run else 'forgot'} {forgotten} of {examined} commands"
        show(output, text, {"purged": name, "examined": examined, "forgotten": forgotten, "dry_run": dry_run})


@asynccontextmanager
async def _opened(settings: Settings, name: str) -> AsyncGenerator[Log]:
    log = await open_log(settings.log_url(name), name)
    try:
        yield log
    finally:
        await log.close()
