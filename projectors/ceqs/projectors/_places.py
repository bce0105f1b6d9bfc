"""The places of one handler: which there are, what is on record about each, and which of them answers.

Each projection has one place or more: that of a version which is being filled, that which answers, older ones which are
fed until they are dropped. All processes share what is on record here, and look at it often:

    the serving pointer   which place answers: read per query, so that readers move over by themselves
    the record of a place whether it is filled, held by an operator, or about to be dropped

On SQLite both are files beside the places (`_files`), on PostgreSQL tables (`_schemas`).
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import sqlite
from sqlalchemy.schema import CreateTable

from ceqs.projectors._place import Place, place_of, read_label


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What is on record about a place."""

    made_at: float
    """Seconds since 1970."""
    shape: str
    """Tells its tables from others; see `shape_of`."""
    filled: bool = False
    """It has caught up with its log once; from then on it may answer."""
    held: bool = False
    """An operator wants it to wait."""
    dropping: bool = False
    """It is about to go: nobody may write it any more."""

    def but(self, **changes: bool) -> Record:
        """Give the record with changes."""
        values: dict[str, Any] = asdict(self) | changes
        return Record(**values)


@dataclass(frozen=True, slots=True)
class Known:
    """A place with what is on record about it."""

    place: Place
    record: Record


class Places(ABC):
    """The places of one handler. `close` them in the event loop that used them."""

    def __init__(self, models_url: str, context: str, name: str) -> None:
        self.context = context
        self.name = name
        self._models_url = models_url
        self._places: dict[tuple[int, int], Place] = {}

    def at(self, version: int, generation: int = 1) -> Place:
        """Give a place, which need not exist."""
        place = self._places.get((version, generation))
        if place is None:  # each query looks at the pointer, and what it names
            place = place_of(self._models_url, self.context, self.name, version, generation)
            self._places[version, generation] = place
        return place

    def labelled(self, label: str) -> Place | None:
        """Give the place of a label, which need not exist; None for what is no label."""
        parts = read_label(label)
        return self.at(*parts) if parts else None

    @abstractmethod
    async def existing(self) -> Sequence[Place]:
        """Give the places that have been written to. Raises Unavailable."""

    @abstractmethod
    async def known(self) -> Sequence[Known]:
        """Give the places on record, oldest first. Raises Unavailable."""

    @abstractmethod
    async def make(self, place: Place, shape: str) -> bool:
        """Put a place on record, for the projectors to fill; False where it is."""

    @abstractmethod
    async def note(self, place: Place, **changes: bool) -> None:
        """Change what is on record about a place."""

    @abstractmethod
    async def serving(self) -> Place | None:
        """Give the place that answers; None where none does yet. Raises Unavailable."""

    @abstractmethod
    async def switch(self, to: Place) -> bool:
        """Let a place answer from now on, unless it is to go or behind the one that answers now; say whether it does.

        Nobody advances the other one meanwhile: no answer is older than one before it. What is noted before is heeded.
        """

    @abstractmethod
    async def remove(self, place: Place, timeout: float) -> bool:  # noqa: ASYNC109  # a bound, not a cancellation
        """Wait until nobody reads a place, and delete it; False where somebody still does after `timeout` seconds."""

    @abstractmethod
    async def close(self) -> None:
        """Give up what they are read with."""

    def __str__(self) -> str:
        return f"{self.name} of the context {self.context}"


def places_of(models_url: str, context: str, name: str) -> Places:
    """Give the places of a handler; see `place_of`. Raises Misconfigured."""
    from ceqs.projectors._files import Files
    from ceqs.projectors._schemas import Schemas

    first = place_of(models_url, context, name)
    return Schemas(models_url, first) if first.schema else Files(models_url, first)


def shape_of(metadata: sa.MetaData | None) -> str:
    """Give what tells these tables from others: a handler of other tables cannot use their place."""
    tables = metadata.sorted_tables if metadata is not None else []
    # One dialect for all, so that the shape is the same wherever the place is.
    text = "".join(str(CreateTable(table).compile(dialect=sqlite.dialect())) for table in tables)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def next_of(known: Sequence[Known], version: int, places: Places) -> Place:
    """Give the place that a version is to fill next."""
    return places.at(version, max((k.place.generation for k in known if k.place.version == version), default=0) + 1)
