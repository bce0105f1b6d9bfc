"""Places on PostgreSQL: schemas of one database.

The serving pointers of a context are rows of `ceqs_<context>__places.serving`, the record of a place is a row in it.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Sequence
from dataclasses import asdict

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from ceqs.errors import Misconfigured, Unavailable
from ceqs.projectors._place import MAX_SCHEMA_BYTES, Place, dispose
from ceqs.projectors._places import Known, Places, Record
from ceqs.projectors._retry import said
from ceqs.projectors._tables import CHECKPOINT

AGAIN = 0.2
"""Seconds that a try to get a place for oneself may wait, and keep others waiting."""
_METADATA = sa.MetaData()
SERVING = sa.Table(
    "serving",
    _METADATA,
    sa.Column("name", sa.String, primary_key=True, comment="of the handler"),
    sa.Column("place", sa.String, nullable=False, comment="the label of the place that answers"),
    schema="pointers",
)
RECORD = sa.Table(
    "ceqs_place",
    _METADATA,
    sa.Column("made_at", sa.Double, primary_key=True),
    sa.Column("shape", sa.String, nullable=False),
    sa.Column("filled", sa.Boolean, nullable=False),
    sa.Column("held", sa.Boolean, nullable=False),
    sa.Column("dropping", sa.Boolean, nullable=False),
    schema="place",
)
_LACKING = ("3F000", "42P01")
"""PostgreSQL's codes for a schema and a table that are not there."""


class Schemas(Places):
    """The places of a handler in PostgreSQL schemas."""

    def __init__(self, models_url: str, first: Place) -> None:
        super().__init__(models_url, first.context, first.name)
        self._url = first.url
        self._prefix = first.schema.removesuffix(first.label)
        self._pointers = pointer_schema(self.context)
        self._opened: AsyncEngine | None = None

    async def existing(self) -> Sequence[Place]:
        """Give the places that have been written to, or are on record."""
        names = sa.text("SELECT nspname FROM pg_namespace WHERE starts_with(nspname, :prefix)")
        async with self._connection() as connection:
            schemas = (await connection.execute(names, {"prefix": self._prefix})).scalars().all()
        labels = [schema.removeprefix(self._prefix).replace("_", ".") for schema in schemas]
        return [place for label in labels if (place := self.labelled(label))]

    async def known(self) -> Sequence[Known]:
        """Give the places on record."""
        found: list[Known] = []
        for place in await self.existing():
            if record := await self._record(place):
                found.append(Known(place, record))
        return sorted(found, key=lambda known: known.record.made_at)

    async def make(self, place: Place, shape: str) -> bool:
        """Put a place on record."""
        async with self._connection(place) as connection:
            await connection.execute(sa.schema.CreateSchema(place.schema, if_not_exists=True))
            await connection.run_sync(_METADATA.create_all, tables=[RECORD])
            await connection.execute(sa.text(f'LOCK TABLE "{place.schema}".ceqs_place'))
            if (await connection.execute(sa.select(RECORD))).first():
                return False
            await connection.execute(sa.insert(RECORD).values(asdict(Record(made_at=time.time(), shape=shape))))
        return True

    async def note(self, place: Place, **changes: bool) -> None:
        """Change what is on record about a place."""
        async with self._connection(place) as connection:
            await connection.execute(sa.update(RECORD).values(changes))

    async def serving(self) -> Place | None:
        """Give the place that answers."""
        with contextlib.suppress(_Lacking):
            async with self._connection() as connection:
                label = (await connection.execute(serving_label(self.context, self.name))).scalar()
            return self.labelled(label) if label else None
        return None

    async def switch(self, to: Place) -> bool:
        """Let a place answer."""
        serving = await self.serving()
        if serving == to:
            return True
        async with self._connection(to) as connection:
            await connection.execute(sa.text(f"SET LOCAL lock_timeout = '{int(AGAIN * 1000)}ms'"))
            # Nobody changes the record either until the place answers.
            if (await connection.execute(sa.select(RECORD.c.dropping).with_for_update(read=True))).scalar():
                return False
            if serving is None:
                await connection.execute(sa.schema.CreateSchema(self._pointers, if_not_exists=True))
                await connection.run_sync(_METADATA.create_all, tables=[SERVING])
                first = insert(SERVING).values(name=self.name, place=to.label).on_conflict_do_nothing()
                return (await connection.execute(first)).rowcount == 1
            try:
                theirs = await _stands(connection, serving, still=True)
            except DBAPIError:
                return False
            mine = await _stands(connection, to)
            if theirs and (not mine or (mine[0] == theirs[0] and mine[1] < theirs[1])):
                return False
            unmoved = sa.and_(SERVING.c.name == self.name, SERVING.c.place == serving.label)
            change = sa.update(SERVING).where(unmoved).values(place=to.label)
            return (await connection.execute(change)).rowcount == 1

    async def remove(self, place: Place, timeout: float) -> bool:  # noqa: ASYNC109
        """Delete a place that nobody reads."""
        deadline = time.monotonic() + timeout
        while True:
            with contextlib.suppress(_Busy):
                async with self._connection(place) as connection:
                    # Whoever waits for a lock keeps new readers waiting, so it does not wait for long.
                    await connection.execute(sa.text(f"SET LOCAL lock_timeout = '{int(AGAIN * 1000)}ms'"))
                    await connection.execute(sa.schema.DropSchema(place.schema, cascade=True, if_exists=True))
                return True
            if time.monotonic() > deadline:
                return False
            await asyncio.sleep(AGAIN)

    async def close(self) -> None:
        """Close every connection."""
        opened, self._opened = self._opened, None
        if opened is not None:
            await dispose(opened)

    async def _record(self, place: Place) -> Record | None:
        with contextlib.suppress(_Lacking):
            async with self._connection(place) as connection:
                row = (await connection.execute(sa.select(RECORD))).mappings().first()
            return Record(**row) if row else None
        return None

    @contextlib.asynccontextmanager
    async def _connection(self, place: Place | None = None) -> AsyncGenerator[AsyncConnection]:
        """Give a transaction in which the tables are the context's, and those of a place."""
        if self._opened is None:
            self._opened = create_async_engine(self._url, pool_size=1, max_overflow=4)
        schemas = {"pointers": self._pointers} | ({"place": place.schema} if place else {})
        try:
            async with self._opened.begin() as connection:
                yield await connection.execution_options(schema_translate_map=schemas)
        except (DBAPIError, OSError) as error:
            code = getattr(getattr(error, "orig", None), "sqlstate", "")
            kind = _Lacking if code in _LACKING else _Busy if code == _LOCKED else Unavailable
            raise kind(f"the places of {self} cannot be reached: {said(error)}") from error


_LOCKED = "55P03"


class _Lacking(Unavailable):
    """What is asked for is not there."""


class _Busy(Unavailable):
    """Somebody else has it."""


def pointer_schema(context: str) -> str:
    """Give the schema of a context's serving pointers. Raises Misconfigured where its name is too long."""
    schema = f"ceqs_{context}__places"
    if len(schema.encode()) > MAX_SCHEMA_BYTES:
        raise Misconfigured(f"the schema name {schema} is longer than {MAX_SCHEMA_BYTES} bytes; shorten {context!r}")
    return schema


def serving_label(context: str, name: str) -> sa.Select[str]:
    """Give the query for the label of the place that answers for a handler."""
    table = sa.table("serving", sa.column("name"), sa.column("place", sa.String), schema=pointer_schema(context))
    return sa.select(table.c.place).where(table.c.name == name)


async def _stands(connection: AsyncConnection, place: Place, *, still: bool = False) -> tuple[str, int] | None:
    """Give the log and the position of a place; `still`: nobody moves it until the transaction ends."""
    table = CHECKPOINT.to_metadata(sa.MetaData(), schema=place.schema)
    query = sa.select(table.c.log_id, table.c.position)
    rows = (await connection.execute(query.with_for_update() if still else query)).all()
    return (rows[0].log_id, min(row.position for row in rows)) if rows else None
