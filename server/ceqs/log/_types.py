"""The values that the log takes and gives, and the log's interface."""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from ceqs.errors import CeqsError
from ceqs.model import ALL, Query
from ceqs.v1.answers_pb2 import Receipt

MAX_EVENT_BYTES = 512 * 1024
MAX_EVENT_TAGS = 64
MAX_TAG_BYTES = 8 * 1024
MAX_COMMAND_ID_BYTES = 200
MAX_BATCH_ENTRIES = 256
"""How many entries one transaction takes at most."""
MAX_WAITING_ENTRIES = 4096
"""How many entries wait for their transaction at most; beyond, the log is Overloaded."""
MAX_SLICE_BYTES = 1024 * 1024
"""How many bytes of envelopes one read gives, unless its first event alone is larger."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewEvent:
    """An event before it is recorded."""

    id: str
    """A UUID."""
    type: str
    """The full name of its message type."""
    payload: bytes
    tags: tuple[str, ...] = ()
    """`key:value`."""
    public: bool = False
    bucket: int = 0
    version: int = 1


class StoredEvent(NamedTuple):
    """A recorded event as it is stored: `envelope` is a serialised ceqs.v1.RecordedEvent."""

    position: int
    public_position: int
    """0 for a private event."""
    type: str
    envelope: bytes


@dataclass(frozen=True, slots=True)
class Condition:
    """Append only if no event after the position `after` matches the query."""

    query: Query
    after: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What one command appends: events in order, together or not at all.

    An entry without events is looked up and judged all the same. `remember` tells a success that changes nothing, whose
    receipt is stored like any other, from a refusal, of which nothing is stored.

    `content_hash` is the hash of rpc, actor and request by which a reused id is told from a repeated command. With
    `derived`, the id was made by the platform: the first receipt wins, whatever the content.
    """

    command_id: str
    content_hash: bytes = b""
    derived: bool = False
    events: tuple[NewEvent, ...] = ()
    condition: Condition | None = None
    response: bytes = b""
    """Stored with the receipt, and given again to a repeated command."""
    remember: bool = False
    """Store the receipt of an entry without events too, so that a repeated command is not decided again."""
    causation_id: str = ""
    correlation_id: str = ""
    causation_depth: int = 0
    actor: str = ""
    traceparent: str = ""
    expires: float | None = None
    """On the clock of time.monotonic(): when it has passed before the transaction begins, nothing is appended."""


@dataclass(frozen=True, slots=True)
class Appended:
    """The outcome of an entry that was accepted, now or (`repeated`) when its command id was first seen."""

    receipt: Receipt
    encoded: bytes
    """The receipt as it is stored."""
    response: bytes = b""
    repeated: bool = False
    first_position: int = 0
    """Position of the entry's first event; 0 where it had none or was repeated."""


@dataclass(frozen=True, slots=True)
class Head:
    """Where the log stands."""

    log_id: str
    position: int = 0
    public_position: int = 0
    recorded_at: dt.datetime | None = None
    """UTC, aware; None for an empty log."""
    epoch: int = 1
    """The epoch of the log's JetStream streams."""


@dataclass(frozen=True, slots=True)
class Slice:
    """Stored events in the order of their positions, and the position through which the log was examined."""

    events: Sequence[StoredEvent] = field(default_factory=tuple)
    through: int = 0
    """Every matching event up to here has been given; counted as the reader counts (see `public`)."""


class Wanted(NamedTuple):
    """The history of a boundary after a position."""

    after: int
    query: Query


class LogReader(Protocol):
    """Reads the event log of one context. Positions are gapless and in the order of commits."""

    @property
    def name(self) -> str:
        """The log's name: the context's."""
        ...

    @property
    def log_id(self) -> str:
        """Tells this log from every other of the name; renewed when the log is restored from a backup."""
        ...

    async def head(self) -> Head:
        """Say where the log stands."""
        ...

    async def read(
        self, *, after: int = 0, limit: int = 1000, query: Query = ALL, public: bool = False, until: int | None = None
    ) -> Slice:
        """Read stored events after a position, in order, at most `limit` and about 1 MiB of envelopes.

        With `public`, only public events are read and `after`, `until` and `Slice.through` are public positions.
        `until` bounds the positions that are read, inclusive.
        """
        ...

    async def read_all(self, wanted: Sequence[Wanted]) -> Sequence[Slice]:
        """Read several histories at once, from the log as it is at one moment; a slice may be cut as in `read`."""
        ...

    async def wait(self, after: int, timeout: float) -> int:  # noqa: ASYNC109  # a bound, not a cancellation
        """Wait until the head's position is beyond `after`, at most `timeout` seconds; give the head's position.

        One task per process follows the head, however many wait.
        """
        ...

    async def close(self) -> None:
        """End the log's work: what was accepted is on disk."""
        ...


class Log(LogReader, Protocol):
    """The event log of one context as its server sees it: append-only."""

    async def append(self, entry: Entry) -> Appended:
        """Append the events of one command, or judge its condition where it has none.

        Raises Conflict (the condition fails), DuplicateCommand (the id was used with other content), Invalid (beyond
        the limits), Expired, Overloaded, LogUnavailable. Raising any of them, it has appended nothing.
        """
        ...

    async def append_all(self, entries: Sequence[Entry]) -> Sequence[Appended | CeqsError]:
        """Append the events of several commands in one transaction, each entry accepted or refused by itself.

        The entries were decided in sequence: each knows what those before it append, so that does not fail its
        condition. Where one of them is refused, those fail whose conditions its events match. Raises Overloaded and
        LogUnavailable for all of them.
        """
        ...

    def holding(self, keys: Collection[str]) -> AbstractAsyncContextManager[None]:
        """Keep other processes waiting that hold any of the keys, so that decisions do not meet at the log.

        A courtesy, not a guarantee: what is appended is judged all the same.
        """
        ...

    async def find(self, command_id: str, content_hash: bytes, *, derived: bool = False) -> Appended | None:
        """Give what the command id was accepted with, if it was. Raises DuplicateCommand for other content."""
        ...
