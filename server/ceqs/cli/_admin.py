"""Talking to a context's server as its administrator, or to its log where no server runs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from typing import ClassVar

from google.protobuf.message import Message

from ceqs.cli._contexts import choose, load_contexts
from ceqs.cli._running import whereabouts
from ceqs.cli._settings import Settings
from ceqs.client import ContextClient
from ceqs.log import Log, LogReader, Purged, open_log, open_reader
from ceqs.v1.admin_pb2 import (
    BeginEpochRequest,
    BeginEpochResponse,
    PublishAgainRequest,
    PublishAgainResponse,
    PurgeCommandsRequest,
    PurgeCommandsResponse,
)

PATIENCE, ANSWER = 2.0, 60.0
"""Seconds after which no server runs where none takes a connection, and that one which does has to answer."""


class AdminClient(ContextClient):
    """A client of AdminService."""

    ceqs_context: ClassVar[str] = ""
    ceqs_events: ClassVar[Mapping[str, type[Message]]] = {}

    async def purge(self, context: str, after: str, *, dry_run: bool) -> Purged:
        """Purge through the server; see Log.purge."""
        path = "/ceqs.v1.AdminService/PurgeCommands"
        request = PurgeCommandsRequest(context=context, after=after, dry_run=dry_run)
        done = (await self._query(path, request, PurgeCommandsResponse)).message
        return Purged(done.examined, done.forgotten, done.next)

    async def publish_again(self, context: str, publisher: str) -> int:
        """Have a publisher begin once more; see Log.publish_again. Gives its round."""
        path = "/ceqs.v1.AdminService/PublishAgain"
        request = PublishAgainRequest(context=context, publisher=publisher)
        return (await self._query(path, request, PublishAgainResponse)).message.round

    async def begin_epoch(self, context: str, after: int, *, renew: bool) -> int:
        """Begin the next epoch through the server; see Log.begin_epoch."""
        path = "/ceqs.v1.AdminService/BeginEpoch"
        request = BeginEpochRequest(context=context, after=after, renew_log=renew)
        return (await self._query(path, request, BeginEpochResponse)).message.epoch


@asynccontextmanager
async def administrating(settings: Settings, name: str) -> AsyncGenerator[AdminClient | None]:
    """Give a client of a context, wherever `ceqs dev` or the settings say that it is served; None where nobody does."""
    contexts = load_contexts(settings)
    choose(contexts, [name])
    addresses, key = whereabouts(settings, contexts, "commands")
    if not await _is_taken(addresses[name]):
        yield None
        return
    async with AdminClient(addresses[name], key=key, timeout=ANSWER, attempt_timeout=ANSWER) as client:
        yield client


async def _is_taken(address: str) -> bool:
    """Say whether somebody listens at an address, however busy they are."""
    host, _, port = address.rpartition(":")
    try:
        async with asyncio.timeout(PATIENCE):
            _, writer = await asyncio.open_connection(host.strip("[]"), port)
    except OSError:
        return False
    writer.close()
    return True


@asynccontextmanager
async def reading(settings: Settings, name: str) -> AsyncGenerator[LogReader]:
    """Open a log for reading, for as long as a block runs. Raises LogUnavailable where no server has made it."""
    reader = await open_reader(settings.log_url(name), name)
    try:
        yield reader
    finally:
        await reader.close()


@asynccontextmanager
async def opened(settings: Settings, name: str) -> AsyncGenerator[Log]:
    """Open a log for as long as a block runs."""
    log = await open_log(settings.log_url(name), name)
    try:
        yield log
    finally:
        await log.close()
