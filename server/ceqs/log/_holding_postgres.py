"""Holding boundaries on PostgreSQL: locks that keep other processes waiting."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Collection, Generator
from contextlib import asynccontextmanager, contextmanager

import asyncpg
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from ceqs.errors import LogUnavailable
from ceqs.log._connect_postgres import engine_for, key_of, schema
from ceqs.log._sql_reader import FAILURES

_SETTINGS = {"lock_timeout": "5s", "idle_session_timeout": "0"}
_CONNECTIONS = 2
_HOLD = text(
    "SELECT pg_advisory_lock(CAST(k.value AS bigint)) FROM jsonb_array_elements_text(CAST(:keys AS jsonb)) AS k(value)"
)
_RELEASE = text("SELECT pg_advisory_unlock_all()")


class Holders:
    """Connections that hold locks for as long as somebody decides and appends. They are never those that write."""

    def __init__(self, url: str, name: str) -> None:
        self._name = name
        self._engine = engine_for(url, name, _SETTINGS, _CONNECTIONS)

    @asynccontextmanager
    async def holding(self, keys: Collection[str]) -> AsyncGenerator[None]:
        """Keep other processes waiting that hold any of the keys; see Log."""
        # Everybody takes them in one order, so that no two wait for each other.
        numbers = sorted(key_of(f"{schema(self._name)}/{key}") for key in keys)
        with self._reaching():
            connection = await self._engine.connect()
        try:
            with self._reaching():
                try:
                    await connection.execute(_HOLD, {"keys": json.dumps(numbers)})
                except DBAPIError as error:
                    # Whoever holds it this long is no longer working: go on, the log judges anyway.
                    if not isinstance(getattr(error.orig, "__cause__", None), asyncpg.LockNotAvailableError):
                        raise
            yield
        finally:
            await self._release(connection)

    async def _release(self, connection: AsyncConnection) -> None:
        try:
            await connection.execute(_RELEASE)
        except FAILURES:
            # The database releases what a lost connection held.
            await connection.invalidate()
        finally:
            await connection.close()

    @contextmanager
    def _reaching(self) -> Generator[None]:
        try:
            yield
        except FAILURES as error:
            raise LogUnavailable(f"the log {self._name!r} cannot be written: {error}") from error

    async def close(self) -> None:
        """Give up the connections."""
        await self._engine.dispose()
