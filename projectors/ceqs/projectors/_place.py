"""Places: where a handler keeps its rows and its checkpoint. Each version of a handler has places of its own."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any
from urllib.parse import quote

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import AsyncAdaptedQueuePool

from ceqs.contract import snake
from ceqs.errors import Misconfigured
from ceqs.log import inline

MAX_SCHEMA_BYTES = 63
"""PostgreSQL cuts longer names off without a word."""


@dataclass(frozen=True, slots=True)
class Place:
    """A SQLite file or a PostgreSQL schema: of one handler, in one version."""

    context: str
    name: str
    version: int
    generation: int
    """1, or how many times this version is being filled; a rebuild fills the next one."""
    url: sa.URL
    schema: str = ""
    """The schema in PostgreSQL; empty for SQLite."""

    @property
    def label(self) -> str:
        """What the place is called among those of its handler: `v2`, or `v2.3` for its third generation."""
        return label_of(self.version, self.generation)

    @property
    def path(self) -> Path | None:
        """The file of a SQLite place."""
        return None if self.schema else Path(str(self.url.database))

    def __str__(self) -> str:
        return str(self.path or f"{self.url.render_as_string()} schema {self.schema}")

    def reading_engine(self) -> AsyncEngine:
        """Give an engine whose transactions are read-only, each on one snapshot."""
        if self.schema:
            return self._postgres(isolation_level="REPEATABLE READ", execution_options={"postgresql_readonly": True})
        uri = "file:" + quote(str(self.url.database))
        engine = create_async_engine(
            "sqlite+aiosqlite://",
            async_creator=lambda: inline.connect_reading(uri),
            poolclass=AsyncAdaptedQueuePool,
            pool_size=8,
            max_overflow=8,
        )
        _begin_with_the_first_read(engine)
        return engine

    def writing_engine(self, most_idle: float = 0.0) -> AsyncEngine:
        """Give an engine for the place's one writer, with one connection, whose commits wait for no disk.

        What a power cut takes goes together, rows and checkpoint, and is read from the log again.

        `most_idle`: after so many seconds without a statement PostgreSQL ends a transaction; 0 is never. (A process
        that is suspended within one keeps a SQLite file to itself for as long as it is.)
        """
        if self.schema:
            settings = {"synchronous_commit": "off", "idle_in_transaction_session_timeout": f"{most_idle * 1000:.0f}"}
            return self._postgres(settings, pool_size=1, max_overflow=0)
        engine = create_async_engine(
            "sqlite+aiosqlite://",
            async_creator=lambda: inline.connect_lazily(str(self.url.database)),
            poolclass=AsyncAdaptedQueuePool,
            pool_size=1,
            max_overflow=0,
        )
        _begin_with_the_first_read(engine)

        @event.listens_for(engine.sync_engine, "connect")
        def _tune(connection: Any, _record: Any) -> None:
            cursor = connection.cursor()
            # Whoever waits for the file keeps everything else on this loop waiting.
            cursor.execute("PRAGMA busy_timeout=1000")
            cursor.close()

        return engine

    def _postgres(self, more: Mapping[str, str] = MappingProxyType({}), **options: Any) -> AsyncEngine:
        settings = {"search_path": self.schema, "application_name": f"ceqs {self.context}/{self.name}", **more}
        return create_async_engine(self.url, connect_args={"server_settings": settings}, **options)


def label_of(version: int, generation: int) -> str:
    """Give the label of a place."""
    return f"v{version}" if generation == 1 else f"v{version}.{generation}"


def read_label(label: str) -> tuple[int, int] | None:
    """Give version and generation; None for what is no label."""
    found = _LABEL.fullmatch(label)
    return (int(found[1]), int(found[2] or 1)) if found else None


_LABEL = re.compile(r"v([1-9]\d*)(?:\.([2-9]|[1-9]\d+))?")


def place_of(models_url: str, context: str, name: str, version: int = 1, generation: int = 1) -> Place:
    """Give a place of a handler.

    `models_url` is `sqlite:///ABSOLUTE/DIRECTORY` (the place is the file `<context>/<name>.<label>.db` in it) or
    `postgresql://...` (the place is the schema `ceqs_<context>_<name>_<label>`, `_` for a point). Raises Misconfigured.
    """
    try:
        url = make_url(models_url)
    except ArgumentError as error:
        raise Misconfigured(f"models_url {models_url!r} is no database URL") from error
    label = label_of(version, generation)
    if url.get_backend_name() == "sqlite" and url.database not in (None, "", ":memory:"):
        path = Path(url.database).absolute() / context / f"{name}.{label}.db"
        return Place(context, name, version, generation, url.set(drivername="sqlite+aiosqlite", database=str(path)))
    if url.get_backend_name() == "postgresql":
        schema = re.sub(r"\W", "_", f"ceqs_{context}_{snake(name)}_{label}").lower()
        if len(schema.encode()) > MAX_SCHEMA_BYTES:
            raise Misconfigured(f"the schema name {schema} is longer than {MAX_SCHEMA_BYTES} bytes; shorten {name!r}")
        return Place(context, name, version, generation, url.set(drivername="postgresql+asyncpg"), schema)
    raise Misconfigured(f"models_url {models_url!r} must be sqlite:///ABSOLUTE/DIRECTORY or postgresql://...")


def _begin_with_the_first_read(engine: AsyncEngine) -> None:
    """Begin transactions where SQLAlchemy does: the driver would begin them with the first write."""

    @event.listens_for(engine.sync_engine, "begin")
    def _begin(connection: sa.Connection) -> None:
        connection.exec_driver_sql("BEGIN")


@asynccontextmanager
async def reading(place: Place) -> AsyncGenerator[AsyncConnection | None]:
    """Connect to a place once, to read it. None where it is a file that is not there yet."""
    if place.path is not None and not place.path.exists():
        yield None
        return
    engine = place.reading_engine()
    try:
        async with engine.connect() as connection:
            yield connection
    finally:
        await dispose(engine)


async def exists(place: Place, connection: AsyncConnection, table: sa.Table) -> bool:
    """Say whether a place has a table yet."""

    def look(sync: sa.Connection) -> bool:
        return sa.inspect(sync).has_table(table.name, schema=place.schema or None)

    return await connection.run_sync(look)


async def dispose(engine: AsyncEngine) -> None:
    """Close an engine's connections, even while the caller is being cancelled."""
    await asyncio.shield(engine.dispose())
