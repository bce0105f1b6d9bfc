"""The values that the log takes and gives."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple, Self

from ceqs.contract import value
from ceqs.errors import CeqsError
from ceqs.model import ALL, Query
from ceqs.v1.answers_pb2 import Receipt

MAX_EVENT_BYTES = 512 * 1024
MAX_ENTRY_EVENTS = 10_000
MAX_ENTRY_BYTES = 16 * 1024 * 1024
"""How many events, and bytes of their payloads, one command appends at most."""
MAX_EVENT_TAGS = 64
MAX_TAG_BYTES = 8 * 1024
MAX_COMMAND_ID_BYTES = 200
MAX_BATCH_ENTRIES = 256
"""How many entries one transaction takes at most."""
MAX_WAITING_ENTRIES = 4096
"""How many entries wait for their transaction at most; beyond, the log is Overloaded."""
MAX_SLICE_BYTES = 1024 * 1024
"""How many bytes one read gives at most, as a message that has the events in a field."""


@value()
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


@value()
class Condition:
    """Append only if no event after the position `after` matches the query."""

    query: Query
    after: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Keep:
    """The state of a boundary of one tag after an entry, to be stored in place of an earlier one."""

    state: str
    tag: str
    fingerprint: str
    """Of the fold that made it."""
    events: int
    """How many events it has folded."""
    body: bytes


class StateKey(NamedTuple):
    """Says which kept state is meant: that of the boundary of a tag, made by the fold with the fingerprint."""

    state: str
    tag: str
    fingerprint: str


class Kept(NamedTuple):
    """A kept state, and the position up to which it has folded the events of its boundary."""

    position: int
    events: int
    body: bytes


@value()
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
    assigned: bool = False
    events: tuple[NewEvent, ...] = ()
    condition: Condition | None = None
    response: bytes = b""
    """Stored with the receipt, and given again to a repeated command."""
    remember: bool = False
    """Store the receipt of an entry without events too, so that a repeated command is not decided again."""
    keeps: Keep | None = None
    """Stored in the same transaction as the events; ignored where there is none, or no condition that it depends on."""
    causation_id: str = ""
    correlation_id: str = ""
    causation_depth: int = 0
    actor: str = ""
    traceparent: str = ""
    expires: float | None = None
    """On the clock of time.monotonic(): when it has passed before the transaction begins, nothing is appended."""


@value()
class Appended:
    """The outcome of an entry that was accepted, now or (`repeated`) when its command id was first seen."""

    encoded: bytes
    """The receipt as it is stored: a serialised ceqs.v1.Receipt."""
    position: int
    response: bytes = b""
    repeated: bool = False

    @classmethod
    def of(cls, encoded: bytes, response: bytes = b"", *, repeated: bool = False) -> Self:
        """Give the outcome of which a receipt tells."""
        return cls(encoded, Receipt.FromString(encoded).position, response, repeated)

    @property
    def receipt(self) -> Receipt:
        """The receipt, parsed anew each time."""
        return Receipt.FromString(self.encoded)

    @property
    def token(self) -> str:
        """The receipt's token."""
        return self.receipt.token


class Progress:
    """How far the log is with entries that were given to it together: who gave them may decide upon it already."""

    def __init__(self, upon: Progress | None = None) -> None:
        """`upon`: what these were decided upon, though it was not recorded yet."""
        self.upon = upon
        self.judged = asyncio.Event()
        """Set once there are outcomes; a log may have none before all is over."""
        self.outcomes: Sequence[Appended | CeqsError] = ()
        """What the entries get if they are recorded."""
        self.recorded = False
        """Whether they are recorded with these outcomes. If not, nothing counts that was decided upon them."""


@value()
class Head:
    """Where the log stands."""

    log_id: str
    position: int = 0
    public_position: int = 0
    recorded_at: dt.datetime | None = None
    """UTC, aware; None for an empty log."""
    epoch: int = 1
    """The epoch of the log's JetStream streams."""


BEYOND = 2**63 - 1
"""Beyond every position."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """The events that one read is to give.

    Those that match the query, with positions above `after` and up to `until`, at most `limit` of them, in order or
    `backwards`. With `public`, only public events are read, and all positions are public positions.
    """

    after: int = 0
    until: int = BEYOND
    limit: int = 1000
    query: Query = ALL
    public: bool = False
    backwards: bool = False

    def beyond(self, through: int) -> Span:
        """Give what is left of the span when it has been examined through a position."""
        return replace(self, until=through - 1) if self.backwards else replace(self, after=through)

    @property
    def is_empty(self) -> bool:
        """Whether no position is left."""
        return self.after >= self.until


@dataclass(frozen=True, slots=True)
class Slice:
    """Stored events in the order they were asked for, and the position through which the log was examined."""

    events: Sequence[StoredEvent] = field(default_factory=tuple)
    through: int = 0
    """Every matching event up to here (backwards: down to here) has been given; counted as the reader counts."""


class Batch(NamedTuple):
    """Stored events as ready bytes: a message that has them, each a ceqs.v1.RecordedEvent, in its field 1."""

    data: bytes
    events: int
    """How many they are."""
    through: int
    """As in Slice."""


class Wanted(NamedTuple):
    """The history of a boundary after a position."""

    after: int
    query: Query


@dataclass(frozen=True, slots=True)
class Retagged:
    """What a retagging has done."""

    generation: int
    """The generation of tags that counts now."""
    changed: tuple[str, ...]
    """The event types whose annotations had changed; empty where there was nothing to do."""
    events: int = 0
    """How many events were tagged, those of an earlier run that was interrupted included."""


@dataclass(frozen=True, slots=True)
class Purged:
    """What one step of a purge has done."""

    examined: int
    """How many commands it has looked at."""
    forgotten: int
    """How many of them it has forgotten, or would have."""
    next: str
    """After which command id the next step begins; empty after the last one."""
