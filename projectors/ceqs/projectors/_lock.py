"""One active worker per place: others stand by and take over."""

from __future__ import annotations

import asyncio
import fcntl
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from ceqs.projectors._place import Place

STAND_BY = 0.25
"""Seconds between two tries to take the lock."""


@asynccontextmanager
async def held(place: Place) -> AsyncGenerator[None]:
    """Wait for the place's lock, and hold it. The lock goes with the process, or with its database connection.

    A connection may be lost unnoticed: what keeps two workers apart for certain is that the checkpoint moves from a
    known position only (see Store.advance).
    """
    async with _file_lock(place.path) if place.path is not None else _advisory_lock(place):
        yield


@asynccontextmanager
async def _file_lock(path: Path) -> AsyncGenerator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name(path.name + ".lock").open("ab") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                await asyncio.sleep(STAND_BY)
        yield


@asynccontextmanager
async def _advisory_lock(place: Place) -> AsyncGenerator[None]:
    engine = create_async_engine(place.url, poolclass=NullPool, isolation_level="AUTOCOMMIT")
    key = sa.func.hashtextextended(place.schema, 0)
    async with engine.connect() as connection:
        while True:
            if (await connection.execute(sa.select(sa.func.pg_try_advisory_lock(key)))).scalar_one():
                break
            await asyncio.sleep(STAND_BY)
        yield
