"""Keyed projections: each row is loaded once for a batch of events, folded in memory, and written once."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import NamedTuple

from google.protobuf.message import Message
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from ceqs.errors import CeqsError
from ceqs.model import EventDecoder, Key, KeyedFolder, KeyedProjection, Projection, Recorded, TableProjection
from ceqs.projectors._handlers import Apply, Handler, ProjectionHandler, recorded
from ceqs.projectors._rows import key_of, neither, read_rows, table_of, write_rows
from ceqs.v1.events_pb2 import RecordedEvent


class KeyedHandler(Handler):
    """Folds the rows of a keyed model."""

    kind = "projection"

    def __init__(self, projection: KeyedProjection, decoder: EventDecoder) -> None:
        super().__init__(projection, decoder)
        self.version = projection.version
        self.metadata = table_of(projection.ceqs_model).metadata
        self._folder = KeyedFolder(projection)
        self.partition_by = self._folder.model.key if self._folder.model.partitioned else ""

    def key(self, event: RecordedEvent) -> str:
        """Give the tag by which the model keeps its row, `order:536365`; empty where the event has none."""
        return next(iter(self._folder.tags(self._decode(event))), "")

    async def apply(self, session: AsyncSession, event: RecordedEvent) -> None:
        """Fold one event."""
        async with self.batch(session, [event]) as apply:
            await apply(event)

    @asynccontextmanager
    async def batch(self, session: AsyncSession, events: Sequence[RecordedEvent]) -> AsyncGenerator[Apply]:
        """Give what folds events one by one. What came of them is written at the end."""
        rows, told = _Rows(self._folder, await session.connection()), dict[str, _Told]()
        for event in events:
            with contextlib.suppress(CeqsError):  # what cannot be read fails when it is its turn
                told[event.id] = self._read(event)
        await rows.load(tag for one in told.values() for tag in one.tags)

        async def apply(event: RecordedEvent) -> None:
            one = told[event.id] if event.id in told else self._read(event)
            rows.fold(one, recorded(event, one.message))

        yield apply
        await rows.write()

    def _read(self, event: RecordedEvent) -> _Told:
        message = self._decode(event)
        return _Told(message, self._folder.tags(message))


class _Told(NamedTuple):
    """An event, and the tags of the rows that it is about."""

    message: Message
    tags: tuple[str, ...]


class _Rows:
    """The rows that a batch of events is about."""

    def __init__(self, folder: KeyedFolder, connection: AsyncConnection) -> None:
        self._folder = folder
        self._connection = connection
        self._keys: dict[str, Key] = {}
        """By tag."""
        self._rows: dict[Key, Message | None] = {}
        self._changed: set[Key] = set()

    async def load(self, tags: Iterable[str]) -> None:
        """Load the rows of these tags."""
        model = self._folder.model
        self._keys = {tag: key_of(model, tag) for tag in tags}
        found = await read_rows(self._connection, model, self._keys.values())
        for key in self._keys.values():
            self._rows[key] = model.message.FromString(found[key]) if key in found else None

    def fold(self, told: _Told, meta: Recorded) -> None:
        """Fold an event into the rows that it is about."""
        for tag in told.tags:
            key = self._keys[tag]
            self._rows[key] = self._folder.fold(self._rows[key], key, told.message, meta)
            self._changed.add(key)

    async def write(self) -> None:
        """Write what has changed."""
        await write_rows(self._connection, self._folder.model, {key: self._rows[key] for key in self._changed})


def projecting(projection: Projection, decoder: EventDecoder) -> Handler:
    """Give what fills the places of a projection of either kind."""
    if isinstance(projection, KeyedProjection):
        return KeyedHandler(projection, decoder)
    if isinstance(projection, TableProjection):
        return ProjectionHandler(projection, decoder)
    raise neither(projection)
