"""Appending to the log in SQL: what SQLite and PostgreSQL have in common."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from functools import partial
from typing import Any, Protocol, TypeAlias, TypeVar

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncEngine

from ceqs.contract import Contract
from ceqs.errors import DuplicateCommand, LogUnavailable
from ceqs.log._follower import Follower
from ceqs.log._fresh import Fresh
from ceqs.log._histories import Histories
from ceqs.log._identity import begin_epoch
from ceqs.log._judge import CommandRow, Outcome, Verdict, repeated
from ceqs.log._ledger import Dialect, to_command
from ceqs.log._prepare import Prepared
from ceqs.log._published import Published, names, note_published, publish_again
from ceqs.log._retention import promise, purge
from ceqs.log._schema import commands
from ceqs.log._select import Reads
from ceqs.log._sql_reader import FAILURES, SqlReader
from ceqs.log._tagging import Tagging, adopt, rules_of
from ceqs.log._types import BEYOND, Appended, Entry, Head, Progress, Purged, Slice, Span
from ceqs.log._writer import Judged, Writer
from ceqs.model import ALL, Query

_PAUSES = (0.0, 0.02, 0.1, 0.3, 0.6)
"""Seconds before each attempt to commit a batch."""
_RESOLVE_PAUSE = 0.5
COMPANY = 0.002
"""How long, in seconds, it pays to wait for others: where each transaction takes several ways to a database. In a file,
so many arrive while a transaction is on its way to the disk that waiting gains nothing."""

T = TypeVar("T")
Step: TypeAlias = Callable[[Any, Dialect[Any]], T]
"""Works with a connection to a database of either dialect."""


class OutcomeUnknown(Exception):
    """The transaction failed while it was being committed: nobody knows whether it was."""


class Untold(Exception):
    """What this process knows of the log is not enough to judge a batch."""


class Store(Protocol):
    """The one writing connection to a log's database."""

    tagging: Tagging
    """What is appended must fit it."""

    async def attempt(self, batch: Sequence[Prepared], judged: Judged, *, again: bool) -> Verdict:
        """Settle a batch in one transaction under the log's lock; `again` where that was tried before.

        `judged` is told the outcomes before they are recorded.

        Raises OutcomeUnknown where the commit failed, one of FAILURES or Untold where something before it did.
        """
        ...

    async def ahead(self, batch: Sequence[Prepared], judged: Judged) -> Verdict:
        """Settle a batch as `attempt` does, upon one that is on its way to the disk: recorded only if that is.

        Raises OutcomeUnknown as that does, which says that the other is recorded. Raises Untold where that has to be
        over first, or has failed, and one of FAILURES: nothing is recorded then.
        """
        ...

    async def known(self, command_ids: Collection[str]) -> Mapping[str, CommandRow]:
        """Give those of the commands that are stored, once no earlier transaction can store any."""
        ...

    async def work(self, step: Step[T], *, locked: bool = True) -> T:
        """Execute a step in a transaction of its own, which holds the log's lock unless it may do without."""
        ...

    def holding(self, keys: Collection[str]) -> AbstractAsyncContextManager[None]:
        """Keep other processes waiting that hold any of the keys; see Log."""
        ...

    async def close(self) -> None:
        """Give up the connection, and the right to write."""
        ...


class SqlLog(SqlReader):
    """Appends to a log's tables through the one writing connection of this process."""

    def __init__(
        self,
        name: str,
        head: Head,
        engine: AsyncEngine,
        follower: Follower,
        histories: Histories,
        reads: Reads,
        *,
        store: Store,
        max_waiting: int,
        alone: bool = False,
    ) -> None:
        """`alone`: no other process writes, so the head is known without asking the database."""
        super().__init__(name, head, engine, follower, histories, reads, store.tagging)
        self._known_head = head if alone else None
        self._alone = alone
        self.company = 0.0 if alone else COMPANY
        self._fresh = Fresh()
        self._store = store
        self._storing = asyncio.Lock()
        self._writer = Writer(self._commit, max_waiting=max_waiting, ahead=alone)
        self._ending: asyncio.Task[None] | None = None

    async def head(self) -> Head:
        """Say where the log stands."""
        if self._known_head is None or self._closed:
            return await super().head()
        return self._known_head

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
        """Read stored events after a position; see LogReader."""
        # Where other processes write, what this one has appended may not be all that there is, but up to its end it is.
        if (self._known_head is not None) if until is None else (until < BEYOND):
            span = Span(after=after, limit=limit, query=query, public=public, backwards=backwards)
            fresh = self._fresh.give(span if until is None else replace(span, until=until))
            if fresh is not None and not self._closed:
                return fresh
        return await super().read(
            after=after, limit=limit, query=query, public=public, until=until, backwards=backwards
        )

    async def append(self, entry: Entry) -> Appended:
        """Append the events of one command; see Log."""
        return await self._writer.append(entry)

    async def append_all(self, entries: Sequence[Entry], progress: Progress | None = None) -> Sequence[Outcome]:
        """Append the events of several commands in one transaction; see Log."""
        return await self._writer.append_all(entries, progress)

    def holding(self, keys: Collection[str]) -> AbstractAsyncContextManager[None]:
        """Keep other processes waiting that hold any of the keys; see Log."""
        return self._store.holding(keys)

    async def declare(self, contract: Contract) -> Sequence[str]:
        """Say by which contract this process derives tags; see Log."""
        rules, tagging = rules_of(contract), self._tagging
        stored = await self._work(partial(adopt, rules=rules))
        tagging.rules, tagging.revision = rules, 0
        return tagging.unfit(stored)

    async def find(self, command_id: str, content_hash: bytes, *, derived: bool = False) -> Appended | None:
        """Give what the command id was accepted with; see Log."""
        with self._reading():
            async with self._engine.connect() as connection:
                rows = await connection.execute(select(commands).where(commands.c.command_id == command_id))
                row = rows.one_or_none()
        if row is None:
            return None
        outcome = repeated(to_command(row), content_hash, derived=derived)
        if isinstance(outcome, DuplicateCommand):
            raise outcome
        return outcome

    async def remember(self, days: int | None, *, shorten: bool = False) -> None:
        """Promise to remember the ids of commands for so many days; see Log."""
        await self._work(partial(promise, days=days, shorten=shorten, name=self._name))

    async def purge(self, after: str = "", *, dry_run: bool = False) -> Purged:
        """Forget commands that nothing is promised to any more; see Log."""
        return await self._work(partial(purge, after=after, dry_run=dry_run))

    async def published(self, publisher: str, told: Published | None = None) -> Published:
        """Give how far a publisher has published; see Log."""
        return await self._work(partial(note_published, name=publisher, told=told))

    async def publishers(self) -> Sequence[str]:
        """Give the publishers that have published; see Log."""
        return await self._work(names)

    async def publish_again(self, publisher: str) -> Published:
        """Have a publisher begin once more; see Log."""
        return await self._work(partial(publish_again, name=publisher))

    async def begin_epoch(self, *, after: int = 0, renew: bool = False) -> Head:
        """Begin the next epoch of the log's streams; see Log."""
        head = await self._work(partial(begin_epoch, after=after, renew=renew))
        if self._known_head is not None:
            # Of another log, this object knows nothing: whoever asks next is told so.
            self._known_head = None if renew else replace(self._known_head, epoch=head.epoch)
        return head

    async def _work(self, step: Step[T]) -> T:
        with self._reading():
            async with self._storing:
                return await self._store.work(step)

    async def close(self) -> None:
        """End the log's work: what was accepted is on disk. It goes on to its end even if nobody waits for that."""
        self._closed = True
        if self._ending is None:
            self._ending = asyncio.create_task(self._end())
        await asyncio.shield(self._ending)

    async def _end(self) -> None:
        await self._writer.close()
        # Behind what waits for it already.
        async with self._storing:
            await self._store.close()
        await super().close()

    async def _commit(self, batch: Sequence[Prepared], judged: Judged, *, ahead: bool) -> Sequence[Outcome] | None:
        """Commit a batch, again where that fails: command ids make the repetition harmless. See Commit."""
        unknown, failure = False, ""
        for attempt, pause in enumerate(_PAUSES):
            if pause:
                await asyncio.sleep(pause)
            first_ahead = ahead and not attempt
            try:
                if first_ahead:
                    verdict = await self._store.ahead(batch, judged)
                else:
                    async with self._storing:
                        verdict = await self._store.attempt(batch, judged, again=attempt > 0)
            except (OutcomeUnknown, Untold, *FAILURES) as error:
                # Where so much as its commit was begun, what it was judged upon is recorded.
                if first_ahead and not isinstance(error, OutcomeUnknown):
                    return None
                unknown = unknown or isinstance(error, OutcomeUnknown)
                failure = str(error)
            else:
                if self._alone:
                    self._known_head = verdict.head
                self._fresh.add(verdict.events)
                self._follower.advance(verdict.head.position, verdict.head.public_position)
                return verdict.outcomes
        unavailable = f"the log {self._name!r} cannot be written: {failure}"
        if not unknown:
            raise LogUnavailable(unavailable)
        self._known_head = None
        known = await self._resolve([entry.command_id for group in batch for entry, invalid in group if not invalid])
        outcomes = [
            _resolved(entry, known) or invalid or LogUnavailable(unavailable)
            for group in batch
            for entry, invalid in group
        ]
        # What is found to be there is no less to be followed.
        for outcome in outcomes:
            if isinstance(outcome, Appended):
                self._follower.advance(outcome.position, outcome.receipt.public_position)
        return outcomes

    async def _resolve(self, command_ids: Collection[str]) -> Mapping[str, CommandRow]:
        """Find out what a lost commit stored. Nobody is answered before that is known."""
        while True:
            try:
                async with self._storing:
                    return await self._store.known(command_ids)
            except FAILURES as error:
                if self._closed:
                    raise LogUnavailable(f"the log {self._name!r} was closed before it answered: {error}") from error
            await asyncio.sleep(_RESOLVE_PAUSE)


def _resolved(entry: Entry, known: Mapping[str, CommandRow]) -> Outcome | None:
    row = known.get(entry.command_id)
    return repeated(row, entry.content_hash, derived=entry.derived) if row else None
