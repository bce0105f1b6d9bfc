"""Scratch: places of one process that last as long as it does, for models of the past.

On SQLite it is a directory, on PostgreSQL a set of schemas, each with a lock of its own. Whoever opens scratch removes
that of processes that have died.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import secrets
import shutil
import sqlite3
from abc import ABC, abstractmethod
from itertools import count
from pathlib import Path
from typing import IO

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from ceqs.errors import Unavailable
from ceqs.projectors._place import Place, dispose, place_of
from ceqs.projectors._retry import said


class Scratch(ABC):
    """Makes and removes places. `close` it in the event loop that opened it."""

    def __init__(self, url: str, token: str) -> None:
        self._url = url
        self._context = f"past_{token}"
        self._numbers = count(1)

    @classmethod
    async def open(cls, url: str) -> Scratch:
        """Open scratch at a url as `place_of` takes it. Raises Misconfigured, or Unavailable."""
        kind = _Schemas if place_of(url, "past", "any").schema else _Files
        scratch: Scratch = kind(url, secrets.token_hex(4))
        try:
            await scratch.take()
        except (DBAPIError, OSError) as error:
            await scratch.close()
            raise Unavailable(f"there is no room for models of the past at {url}: {said(error)}") from error
        return scratch

    def place(self, name: str) -> Place:
        """Give a new place."""
        return place_of(self._url, self._context, name, next(self._numbers))

    @abstractmethod
    async def copied(self, place: Place) -> Place | None:
        """Give a new place with all that this one has; None where the database does not copy places."""

    @abstractmethod
    async def size(self, place: Place) -> int:
        """Give how many bytes a place takes."""

    @abstractmethod
    async def drop(self, place: Place) -> None:
        """Remove a place that nobody uses."""

    async def close(self) -> None:
        """Remove every place."""
        await self.clear()
        await self.let_go()

    @abstractmethod
    async def clear(self) -> None:
        """Remove every place."""

    @abstractmethod
    async def let_go(self) -> None:
        """Give up the lock: what is left belongs to nobody."""

    @abstractmethod
    async def take(self) -> None:
        """Lock it for this process, and remove what dead ones have left."""


class _Files(Scratch):
    def __init__(self, url: str, token: str) -> None:
        super().__init__(url, token)
        self._directory = Path(str(place_of(url, self._context, "any").url.database)).parent
        self._lock: IO[bytes] | None = None

    async def take(self) -> None:
        self._directory.mkdir(parents=True)
        self._lock = _locked(self._directory)
        for left in self._directory.parent.glob("past_*"):
            if left != self._directory and (lock := _locked(left)):
                shutil.rmtree(left, ignore_errors=True)
                lock.close()

    async def copied(self, place: Place) -> Place:
        copy = self.place(place.name)
        await asyncio.to_thread(_copy, _path(place), _path(copy))
        return copy

    async def size(self, place: Place) -> int:
        return sum(file.stat().st_size for file in self._directory.glob(f"{_path(place).name}*"))

    async def drop(self, place: Place) -> None:
        for file in self._directory.glob(f"{_path(place).name}*"):
            file.unlink()

    async def clear(self) -> None:
        shutil.rmtree(self._directory, ignore_errors=True)

    async def let_go(self) -> None:
        if self._lock is not None:
            self._lock.close()


def _path(place: Place) -> Path:
    assert place.path is not None
    return place.path


def _locked(directory: Path) -> IO[bytes] | None:
    """Lock a directory for as long as the file is open; None where another process has it."""
    with contextlib.ExitStack() as stack:
        try:
            lock = stack.enter_context((directory / "lock").open("ab"))
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return None
        stack.pop_all()
        return lock


def _copy(source: Path, target: Path) -> None:
    with (
        contextlib.closing(sqlite3.connect(source)) as read,
        contextlib.closing(sqlite3.connect(target)) as write,
    ):
        read.backup(write)


class _Schemas(Scratch):
    def __init__(self, url: str, token: str) -> None:
        super().__init__(url, token)
        self._engine: AsyncEngine = create_async_engine(
            place_of(url, self._context, "any").url, poolclass=NullPool, isolation_level="AUTOCOMMIT"
        )
        self._holding: AsyncConnection | None = None

    async def take(self) -> None:
        self._holding = await self._engine.connect()
        await self._lock(f"ceqs_{self._context}")
        of_any = r"^ceqs_past_[0-9a-f]{8}_"
        names = sa.text("SELECT nspname FROM pg_namespace WHERE nspname ~ :any")
        for schema in (await self._holding.execute(names, {"any": of_any})).scalars().all():
            owner = schema[: len(f"ceqs_{self._context}")]
            if owner != f"ceqs_{self._context}" and await self._lock(owner):
                await self._drop(schema)
                await self._holding.execute(sa.select(sa.func.pg_advisory_unlock(_key(owner))))

    async def copied(self, place: Place) -> None:
        return None

    async def size(self, place: Place) -> int:
        sizes = sa.text(
            "SELECT coalesce(sum(pg_total_relation_size(c.oid)), 0) FROM pg_class AS c "
            "JOIN pg_namespace AS n ON n.oid = c.relnamespace WHERE n.nspname = :schema AND c.relkind = 'r'"
        )
        async with self._engine.connect() as connection:
            return int((await connection.execute(sizes, {"schema": place.schema})).scalar_one())

    async def drop(self, place: Place) -> None:
        await self._drop(place.schema)

    async def clear(self) -> None:
        if self._holding is not None:
            names = sa.text("SELECT nspname FROM pg_namespace WHERE starts_with(nspname, :mine)")
            with contextlib.suppress(DBAPIError, OSError):  # whoever opens scratch next removes it
                for schema in (await self._holding.execute(names, {"mine": f"ceqs_{self._context}_"})).scalars().all():
                    await self._drop(schema)

    async def let_go(self) -> None:
        if self._holding is not None:
            await self._holding.close()
        await dispose(self._engine)

    async def _lock(self, owner: str) -> bool:
        assert self._holding is not None
        return bool((await self._holding.execute(sa.select(sa.func.pg_try_advisory_lock(_key(owner))))).scalar_one())

    async def _drop(self, schema: str) -> None:
        async with self._engine.connect() as connection:
            await connection.execute(sa.schema.DropSchema(schema, cascade=True, if_exists=True))


def _key(owner: str) -> sa.Function[int]:
    return sa.func.hashtextextended(owner, 0)
