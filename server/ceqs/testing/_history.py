"""What the clients of a log did and heard, as far as they know it."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from ceqs.v1.answers_pb2 import Receipt


class Ending(enum.Enum):
    """What a client knows of its operation in the end."""

    ACCEPTED = "accepted"
    """It has a receipt."""
    REFUSED = "refused"
    """The answer says for sure that nothing was appended: Rejected, Invalid."""
    DUPLICATE = "duplicate"
    """The answer says that the command id was accepted with other content."""
    UNKNOWN = "unknown"
    """No answer, or one after which the client would have to ask again: it may have been done."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One call of a client, all its attempts included.

    Times are of one clock for all clients. Several operations may share a command id: twins, repetitions, abuse.
    """

    command_id: str
    invoked: float
    completed: float = float("inf")
    """When the answer was there; never, for an unknown outcome."""
    ending: Ending = Ending.UNKNOWN
    receipt: Receipt | None = None
    """Of an accepted one."""
    boundary: tuple[str, ...] = ()
    """The tags of which an event has any, to move what was decided on; none where every event does."""
    saw: int | None = None
    """On how many events of its boundary it was decided, where the answer says so: also of a refusal."""
    content: bytes = b""
    """What was asked for: a command id stands for one content."""
    events: int | None = None
    """How many events it appends when it is accepted, where the client knows that."""


@dataclass(frozen=True, slots=True)
class Fact:
    """What a history is held against: an event as the log has it."""

    position: int
    id: str
    command_id: str
    tags: tuple[str, ...] = ()
    public_position: int = 0


@dataclass(frozen=True, slots=True)
class Violation:
    """A promise that was broken: which, and by what."""

    rule: str
    what: str

    def __str__(self) -> str:
        return f"{self.rule}: {self.what}"
