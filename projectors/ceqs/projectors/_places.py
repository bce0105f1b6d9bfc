"""The places of one handler, and which of them answers.

The serving pointer is read per query, so that readers move over by themselves. On SQLite it is a symbolic link beside
the places, `Sales.db -> Sales.v2.db`, on PostgreSQL a row of `ceqs_<context>__places.serving`. Either is replaced
atomically.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from ceqs.errors import Misconfigured, Unavailable
from ceqs.projectors._place import MAX_SCHEMA_BYTES, Place, dispose, place_of, read_label
from ceqs.projectors._retry import said


class Places(ABC):
    """The places of one handler. `close` them in the event loop that used them."""

    def __init__(self, models_url: str, context: str, name: str) -> None:
        self.context = context
        self.name = name
        self._models_url = models_url

    def at(self, version: int, generation: int = 1) -> Place:
        """Give a place, which need not exist."""
        return place_of(self._models_url, self.context, self.name, version, generation)

    def labelled(self, label: str) -> Place | None:
        """Give the place of a label, which need not exist; None for what is no label."""
        parts = read_label(label)
        return self.at(*parts) if parts else None

    @abstractmethod
    async def existing(self) -> Sequence[Place]:
        """Give the places that exist, oldest version and generation first. Raises Unavailable."""

    @abstractmethod
    async def serving(self) -> Place | None:
        """Give the place that answers; None where none does yet. Raises Unavailable."""

    @abstractmethod
    async def serve(self, place: Place, *, instead_of: Place | None) -> bool:
        """Let a place answer from now on, and say whether the one that it stands in for did until now."""

    async def close(self) -> None:  # noqa: B027  # files need nothing
        """Give up what they are read with."""

    def __str__(self) -> str:
        return f"{self.name} of the context {self.context}"


def places_of(models_url: str, context: str, name: str) -> Places:
    """Give the places of a handler; see `place_of`. Raises Misconfigured."""
    first = place_of(models_url, context, name)
    return _Schemas(models_url, first) if first.schema else _Files(models_url, first)


class _Files(Places):
    def __init__(self, models_url: str, first: Place) -> None:
        super().__init__(models_url, first.context, first.name)
        self._directory = Path(str(first.url.database)).parent
        self._link = self._directory / f"{self.name}.db"

    async def existing(self) -> Sequence[Place]:
        found = [
            place
            for file in self._directory.glob(f"{self.name}.v*.db")
            if (place := self.labelled(_label(file.name, self.name)))
        ]
        return sorted(found, key=_age)

    async def serving(self) -> Place | None:
        try:
            target = os.readlink(self._link)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise Unavailable(f"{self._link} is no link to a place: {error.strerror}") from error
        return self.labelled(_label(target, self.name))

    async def serve(self, place: Place, *, instead_of: Place | None) -> bool:
        self._directory.mkdir(parents=True, exist_ok=True)
        target = Path(str(place.url.database)).name
        if instead_of is None:
            with contextlib.suppress(FileExistsError):
                os.symlink(target, self._link)
                return True
            return False
        if await self.serving() != instead_of:
            return False
        beside = self._link.with_name(f".{self._link.name}.{secrets.token_hex(4)}")
        os.symlink(target, beside)
        os.replace(beside, self._link)
        return True


def _label(file: str, name: str) -> str:
    return file.removeprefix(f"{name}.").removesuffix(".db")


def _age(place: Place) -> tuple[int, int]:
    return place.version, place.generation


SERVING = sa.Table(
    "serving",
    sa.MetaData(),
    sa.Column("name", sa.String, primary_key=True, comment="of the handler"),
    sa.Column("place", sa.String, nullable=False, comment="the label of the place that answers"),
)


class _Schemas(Places):
    def __init__(self, models_url: str, first: Place) -> None:
        super().__init__(models_url, first.context, first.name)
        self._url = first.url
        self._prefix = first.schema.removesuffix(first.label)
        self._schema = pointer_schema(self.context)
        self._opened: AsyncEngine | None = None

    async def existing(self) -> Sequence[Place]:
        names = sa.text("SELECT nspname FROM pg_namespace WHERE starts_with(nspname, :prefix)")
        async with self._reading() as connection:
            schemas = (await connection.execute(names, {"prefix": self._prefix})).scalars().all()
        labels = (schema.removeprefix(self._prefix).replace("_", ".") for schema in schemas)
        return sorted(filter(None, map(self.labelled, labels)), key=_age)

    async def serving(self) -> Place | None:
        async with self._reading() as connection:
            if not (await connection.execute(sa.select(sa.func.to_regclass(f"{self._schema}.serving")))).scalar():
                return None
            label = (await connection.execute(serving_label(self.context, self.name))).scalar()
        return self.labelled(label) if label else None

    async def serve(self, place: Place, *, instead_of: Place | None) -> bool:
        mine = sa.and_(SERVING.c.name == self.name, SERVING.c.place == (instead_of.label if instead_of else ""))
        change: sa.Insert | sa.Update = sa.update(SERVING).where(mine).values(place=place.label)
        if instead_of is None:
            change = insert(SERVING).values(name=self.name, place=place.label).on_conflict_do_nothing()
        async with self._engine.begin() as connection:
            connection = await connection.execution_options(schema_translate_map={None: self._schema})
            await connection.execute(sa.schema.CreateSchema(self._schema, if_not_exists=True))
            await connection.run_sync(SERVING.metadata.create_all)
            return (await connection.execute(change)).rowcount == 1

    async def close(self) -> None:
        opened, self._opened = self._opened, None
        if opened is not None:
            await dispose(opened)

    @property
    def _engine(self) -> AsyncEngine:
        if self._opened is None:
            self._opened = create_async_engine(self._url, pool_size=1, max_overflow=4)
        return self._opened

    @contextlib.asynccontextmanager
    async def _reading(self) -> AsyncGenerator[AsyncConnection]:
        try:
            async with self._engine.connect() as connection:
                yield connection
        except (DBAPIError, OSError) as error:
            raise Unavailable(f"the places of {self} cannot be reached: {said(error)}") from error


def pointer_schema(context: str) -> str:
    """Give the schema of a context's serving pointers in PostgreSQL. Raises Misconfigured."""
    schema = f"ceqs_{context}__places"
    if len(schema.encode()) > MAX_SCHEMA_BYTES:
        raise Misconfigured(f"the schema name {schema} is longer than {MAX_SCHEMA_BYTES} bytes; shorten {context!r}")
    return schema


def serving_label(context: str, name: str) -> sa.Select[str]:
    """Give the query for the label of the place that answers for a handler, on PostgreSQL."""
    table = SERVING.to_metadata(sa.MetaData(), schema=pointer_schema(context))
    return sa.select(table.c.place).where(table.c.name == name)
