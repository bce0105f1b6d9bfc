"""How a log on PostgreSQL is reached: where it lies in a database, and connections for what is done with it."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator, Generator, Mapping
from contextlib import aclosing, asynccontextmanager, contextmanager

import asyncpg
from sqlalchemy import make_url, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from ceqs.errors import LogUnavailable, Misconfigured
from ceqs.log._sql_reader import FAILURES

SETTINGS = {
    "application_name": "ceqs",
    # Every statement is a walk along an index. A plan made while the tables were small must not scan them later.
    "enable_seqscan": "off",
    "enable_bitmapscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "jit": "off",
}
"""Of every connection."""
READING = {"default_transaction_read_only": "on"}
WRITING = {
    "synchronous_commit": "on",
    "default_transaction_isolation": "read committed",
    # A writer whose machine has vanished must not hold the lock.
    "idle_in_transaction_session_timeout": "15s",
}
LOCK = text("SELECT pg_advisory_xact_lock(:key)")
_UNFIT = (
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
    asyncpg.InsufficientPrivilegeError,
)


def schema(name: str) -> str:
    """Give the schema of a log."""
    return f"ceqs_{name}"


def lock_key(name: str) -> int:
    """Give the key of a log's advisory lock."""
    return key_of(schema(name))


def key_of(name: str) -> int:
    """Give the number under which a name is locked."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], signed=True)


def engine_for(url: str, name: str, settings: Mapping[str, str], connections: int) -> AsyncEngine:
    """Give so many connections to a log's database, with `settings` beside SETTINGS; where they do not write, as many
    more while they are needed.
    """
    server_settings = {**SETTINGS, **settings, "search_path": schema(name)}
    return create_async_engine(
        make_url(url).set(drivername="postgresql+asyncpg"),
        connect_args={"server_settings": server_settings, "timeout": 10, "command_timeout": 60},
        isolation_level="READ COMMITTED" if settings is WRITING else "AUTOCOMMIT",
        pool_size=connections,
        max_overflow=0 if settings is WRITING else connections,
    )


def place(url: str, name: str) -> str:
    """Say where a log lies, for people."""
    return f"the schema {schema(name)} of {make_url(url).render_as_string()}"


@contextmanager
def opening(url: str) -> Generator[None]:
    """Say what is wrong with a database, and whether it may pass."""
    try:
        yield
    except FAILURES as error:
        cause = getattr(error, "orig", error)
        shown = make_url(url).render_as_string()
        if isinstance(cause, _UNFIT) or isinstance(cause.__cause__, _UNFIT):
            raise Misconfigured(f"{shown} cannot be used: {cause}") from error
        raise LogUnavailable(f"{shown} cannot be reached: {cause}") from error


@asynccontextmanager
async def snapshot(url: str, name: str) -> AsyncGenerator[AsyncConnection]:
    """Connect to a log's database and read it as it is at one moment. Raises as open_reader does."""
    async with _connected(url, name, READING) as connection:
        yield await connection.execution_options(isolation_level="REPEATABLE READ")


@asynccontextmanager
async def locked(url: str, name: str) -> AsyncGenerator[AsyncConnection]:
    """Hold a log's lock in a transaction that is committed at the end. Raises as open_log does."""
    async with _connected(url, name, WRITING) as connection, connection.begin():
        await connection.execute(LOCK, {"key": lock_key(name)})
        yield connection


@asynccontextmanager
async def _connected(url: str, name: str, settings: Mapping[str, str]) -> AsyncGenerator[AsyncConnection]:
    """Connect once, for what no server does."""
    engine = engine_for(url, name, settings, 1)
    try:
        with opening(url):
            connection = await engine.connect()
        async with aclosing(connection):
            yield connection
    finally:
        await engine.dispose()
