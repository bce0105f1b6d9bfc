"""Commands on their way: each as it is queued, and those that are decided together."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

from google.protobuf.message import Message

from ceqs.contract import CommandRpc
from ceqs.log import Appended, Entry, Progress
from ceqs.model import Boundary
from ceqs.queries import Known
from ceqs.server._calls import CommandCall
from ceqs.server._pending import Pending

LONGEST_TURN = 0.05
"""How long, in seconds, a process reads commands, or decides, before it does anything else.

A handler is not interrupted.
"""
TOGETHER = 64
"""How many commands are read together, and their events validated, at most."""


@dataclass(slots=True, eq=False)
class Queued(ABC):
    """A command on its way: what it asks, and what it would append. Who queues it knows who asks, and hears of it."""

    rpc: CommandRpc
    raw: bytes
    """Its request, as it came."""
    request: Message = field(init=False)
    call: CommandCall = field(init=False)
    boundary: Boundary = field(init=False)
    content_hash: bytes = field(init=False, default=b"")
    """Empty until the command is known to be well-formed."""
    attempts: int = field(init=False, default=0)
    since: float = field(init=False)
    """When it was queued, on the clock of time.monotonic()."""
    least: int = field(init=False, default=0)
    """The position that its state must stand at."""
    entry: Entry = field(init=False)
    after: Known | None = field(init=False, default=None)
    """The state after its events, of the position that it was loaded at."""
    refusal: Exception | None = field(init=False, default=None)
    """Why it is refused, if the log agrees that it was decided on the present."""

    @abstractmethod
    def says(self, request: Message) -> CommandCall:
        """Give what its call says besides the request. Raises what is wrong with that."""

    @abstractmethod
    def done(self) -> bool:
        """Whether it is answered, or nobody waits for the answer any more."""

    @abstractmethod
    def set_result(self, appended: Appended) -> None:
        """Answer it."""

    @abstractmethod
    def set_exception(self, error: Exception) -> None:
        """Answer it with an error."""


@dataclass(slots=True, eq=False)
class Batch:
    """Commands that are decided together."""

    wanted: Mapping[str, Boundary]
    """Their boundaries, by key."""
    progress: Progress
    holding: AsyncExitStack = field(default_factory=AsyncExitStack)
    """What other processes are kept waiting by until it is recorded."""
    pending: Pending = field(init=False)
    commands: Sequence[Queued] = ()
    """Those that are decided."""
    rest: Sequence[Queued] = ()
    """Those that there was no time for."""

    def left(self, wanted: Mapping[str, Boundary]) -> Mapping[str, Known] | None:
        """Give the states that it leaves, of those that are wanted next, before it is recorded.

        None where that has to be waited for: where any of it is refused or repeated, and where a boundary has events of
        it that commands of other boundaries propose.
        """
        accepted = [one for one in self.progress.outcomes if isinstance(one, Appended) and not one.repeated]
        if len(accepted) < len(self.commands):
            return None
        if not self.pending.are_own(wanted.values()):
            return None
        if self.wanted.keys().isdisjoint(wanted):
            return {}
        pairs = zip(self.commands, accepted, strict=True)
        last = {command.boundary.key: (command.after, outcome) for command, outcome in pairs if command.after}
        return {key: stands(*last[key]) for key in last.keys() & wanted}


def stands(after: Known, outcome: Appended) -> Known:
    """Give the state after a command as of the position where it was appended."""
    return Known(after.state, outcome.position, after.events, after.kept)
