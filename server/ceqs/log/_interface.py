"""The log's interface: as its readers see it, and as its server does."""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from ceqs.contract import Contract
from ceqs.errors import CeqsError
from ceqs.log._published import Published
from ceqs.log._types import (
    Appended,
    Batch,
    Entry,
    Head,
    Kept,
    Progress,
    Purged,
    Slice,
    Span,
    StateKey,
    Wanted,
)
from ceqs.model import ALL, Query


class Numbered(Protocol):
    """Events that are numbered without a gap: those of a log, or the public ones of another context's."""

    @property
    def name(self) -> str:
        """The context's name."""
        ...

    @property
    def log_id(self) -> str:
        """Tells them from every other log of the name; renewed when the log is restored from a backup.

        That of public events is another one, see `public_of`.
        """
        ...

    async def head(self) -> Head:
        """Say where they end."""
        ...

    async def read(self, *, after: int = 0, limit: int = 1000, until: int | None = None) -> Slice:
        """Read them; see LogReader."""
        ...

    async def position_before(self, time: dt.datetime) -> int:
        """Give the last position that was recorded before an aware time; 0 where there is none."""
        ...


class LogReader(Numbered, Protocol):
    """Reads the event log of one context. Positions are gapless and in the order of commits."""

    async def declare(self, contract: Contract) -> Sequence[str]:
        """Say by which contract this process derives tags; give the event types that the log is indexed otherwise by.

        While there is any, appending and reading what is found by tags raise Unavailable, until the log is retagged.
        """
        ...

    async def read(
        self,
        *,
        after: int = 0,
        limit: int = 1000,
        query: Query = ALL,
        public: bool = False,
        until: int | None = None,
        backwards: bool = False,
    ) -> Slice:
        """Read stored events of a span, at most 1 MiB of them; see Span. `until` is inclusive, None for the head.

        A slice without events is the end: nothing else in the span matches.
        """
        ...

    async def read_batch(self, span: Span) -> Batch:
        """Read stored events as ready bytes, at most 1 MiB, otherwise as `read`."""
        ...

    async def position_before(self, time: dt.datetime, *, public: bool = False) -> int:
        """Give the last position that was recorded before an aware time; 0 where there is none."""
        ...

    async def tagged(self, tags: Sequence[str], after: int, until: int) -> Sequence[tuple[int, str]]:
        """Give which of the positions above `after` and up to `until` carry which of the tags, in no order."""
        ...

    async def read_all(self, wanted: Sequence[Wanted]) -> Sequence[Slice]:
        """Read several histories at once, from the log as it is at one moment; a slice may be cut as in `read`."""
        ...

    async def kept(self, wanted: Sequence[StateKey]) -> Sequence[Kept | None]:
        """Read kept states; None for what is not kept, or by another fold. Fold on the events after its position."""
        ...

    async def wait(self, after: int, timeout: float, *, public: bool = False) -> int:  # noqa: ASYNC109  # a bound, not a cancellation
        """Wait until the head's position is beyond `after`, at most `timeout` seconds; give the head's position.

        With `public`, both are public positions: who follows the public events is not woken by the others. One task per
        process follows the head, however many wait.
        """
        ...

    async def remembers(self) -> int | None:
        """Give for how many days the ids of commands are remembered that are recorded now; None: for ever."""
        ...

    async def close(self) -> None:
        """End the log's work: what was accepted is on disk."""
        ...


class Log(LogReader, Protocol):
    """The event log of one context as its server sees it: append-only."""

    company: float
    """How long, in seconds, commands may wait for others to share their transaction under load."""

    async def append(self, entry: Entry) -> Appended:
        """Append the events of one command, or judge its condition where it has none.

        Raises Conflict (the condition fails), DuplicateCommand (the id was used with other content), Invalid (beyond
        the limits), Expired, Overloaded, LogUnavailable. Raising any of them, it has appended nothing.
        """
        ...

    async def append_all(
        self, entries: Sequence[Entry], progress: Progress | None = None
    ) -> Sequence[Appended | CeqsError]:
        """Append the events of several commands in one transaction, each entry accepted or refused by itself.

        The entries were decided in sequence: each knows what those before it append, so that does not fail its
        condition. Where one of them is refused, those fail whose conditions its events match. Raises Overloaded and
        LogUnavailable for all of them.

        A log may tell by `progress` what becomes of them before that is recorded. What was decided `upon` that is given
        to the log at once; if that is not recorded so, all of it fails with Conflict.
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

    async def remember(self, days: int | None, *, shorten: bool = False) -> None:
        """Promise to remember the ids of commands for so many days after they were recorded; None: for ever.

        A longer promise holds for all that is remembered, a shorter one for the commands to come. Raises Misconfigured
        for a shorter one unless asked to `shorten`, or no command was recorded yet.
        """
        ...

    async def purge(self, after: str = "", *, dry_run: bool = False) -> Purged:
        """Forget commands that nothing is promised to any more, among the next few hundred after a command id.

        Ids that the platform derived are never forgotten. With `dry_run`, it only counts. Go on after `Purged.next`.
        """
        ...

    async def published(self, publisher: str, told: Published | None = None) -> Published:
        """Give how far a publisher has published; what it has `told` is noted first, where that is farther."""
        ...

    async def publishers(self) -> Sequence[str]:
        """Give the names of those that have published, or are to begin once more, in order."""
        ...

    async def publish_again(self, publisher: str) -> Published:
        """Have a publisher begin with the first event once more, under new ids. Give where it stands then."""
        ...

    async def begin_epoch(self, *, after: int = 0, renew: bool = False) -> Head:
        """Begin the next epoch of the log's streams, beyond the log's own and `after`; give the head then.

        With `renew`, the log gets a new id: whoever knows it by the old one begins anew. This object is one of them:
        it raises LogReplaced from then on.
        """
        ...
