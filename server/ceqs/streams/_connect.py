"""Connections to a nats-server that ceqs can work with."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable

import nats.errors
import nats.js.errors
import structlog
from nats.js import JetStreamContext

from ceqs.errors import Misconfigured, Unavailable
from ceqs.streams._client import StreamClient

MINIMUM_SERVER = (2, 12)
"""The first nats-server with atomic batches."""

_LEADERLESS = {10008, 10009}
"""JSClusterNotAvailErr and JSClusterNotLeaderErr of nats-server: they pass, within moments."""

_process_log = structlog.get_logger("ceqs.streams")


@contextlib.asynccontextmanager
async def connected(url: str, *, name: str = "ceqs") -> AsyncGenerator[StreamClient, None]:
    """Connect for as long as a block runs.

    A lost connection cancels what the block is waiting for (an answer to a request would never come) and raises
    Unavailable at its end. What else is raised, `connect` says.
    """
    lost, holding = asyncio.timeout(None), False

    async def closed() -> None:
        nonlocal holding
        if holding:
            holding = False
            lost.reschedule(asyncio.get_running_loop().time())

    client = await connect(url, name=name, closed=closed)
    try:
        async with lost:
            holding = not client.is_closed
            if not holding:
                lost.reschedule(0)
            try:
                yield client
            finally:
                holding = False
    except TimeoutError as error:
        if lost.expired():
            raise Unavailable(f"the connection to the nats-server at {url} was lost") from error
        raise
    finally:
        await client.close()


def heed_cancellation() -> None:
    """Raise CancelledError where the running task was cancelled and did not hear of it.

    The client swallows a cancellation that meets it while it flushes, a call of gRPC one that meets it while it ends,
    and a group of tasks one that meets it while it ends for an error of its own: a loop around them would go on for
    ever.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


async def connect(url: str, *, name: str = "ceqs", closed: Callable[[], Awaitable[None]] | None = None) -> StreamClient:
    """Connect to the nats-server at a url such as `nats://127.0.0.1:4222`; its JetStream is ready to be used.

    Several urls of one cluster are separated by commas: whichever server answers is taken.

    The client does not reconnect: once the connection is lost it is closed, and whatever is called on it raises. (The
    client's own reconnecting would send what it had buffered, half batches too, long after it was given up.) Connect
    again, with a backoff, and find your place anew. `closed` is called when the connection has ended.

    Raises Unavailable where no server answers, Misconfigured where it is too old, has no JetStream or the url is none.
    """
    client = StreamClient()
    try:
        await _open(client, url, name, closed)
        await _check(client, url)
    except BaseException:
        await client.close()  # It leaves a connection open that has come to nothing.
        raise
    return client


async def _open(client: StreamClient, url: str, name: str, closed: Callable[[], Awaitable[None]] | None) -> None:
    seen: list[Exception] = []

    async def note(error: Exception) -> None:
        seen.append(error)
        _process_log.debug("nats client", url=url, error=repr(error))

    try:
        await client.connect(
            [one.strip() for one in url.split(",")],
            name=name,
            error_cb=note,
            closed_cb=closed,
            allow_reconnect=False,
            max_reconnect_attempts=1,
            reconnect_time_wait=0,
            connect_timeout=2,
            ping_interval=10,
        )
    except nats.errors.AuthorizationError as error:
        raise Misconfigured(f"the nats-server at {url} refuses the credentials") from error
    except (OSError, TimeoutError, nats.errors.NoServersError) as error:
        why = str(seen[-1] if seen else error) or type(error).__name__
        raise Unavailable(f"no nats-server answers at {url} ({why}): start one there, or set nats_url") from error
    except (nats.errors.Error, ValueError) as error:
        raise Misconfigured(f"cannot connect to {url}: {error}") from error


async def _check(client: StreamClient, url: str) -> None:
    version = client.connected_server_version
    if (version.major, version.minor) < MINIMUM_SERVER:
        raise Misconfigured(
            f"the nats-server at {url} is {version.major}.{version.minor}.{version.patch}, which has no atomic "
            f"batches: install {MINIMUM_SERVER[0]}.{MINIMUM_SERVER[1]} or later"
        )
    try:
        await JetStreamContext(client).account_info()
    except nats.js.errors.ServiceUnavailableError as error:
        if error.err_code in _LEADERLESS:
            raise Unavailable(f"the cluster of {url} has no leader now: {error.description}") from error
        raise Misconfigured(f"the nats-server at {url} has no JetStream: start it with -js") from error
    except nats.errors.Error as error:
        raise Unavailable(f"the nats-server at {url} does not answer for JetStream: {error}") from error
