"""The log in SQL: what SQLite and PostgreSQL have in common."""

from __future__ import annotations

import asyncio
import datetime as dt
import sqlite3
from collections.abc import Awaitable, Callable, Collection, Generator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager
from dataclasses import replace
from functools import partial
from typing import Any, Protocol, TypeAlias, TypeVar

import asyncpg
from sqlalchemy import Connection, insert, inspect, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from ceqs.contract import Contract
from ceqs.errors import DuplicateCommand, LogReplaced, LogUnavailable, Misconfigured
from ceqs.log._follower import Follower
from ceqs.log._fresh import Fresh
from ceqs.log._histories import Found, Histories, shareable
from ceqs.log._identity import begin_epoch, new_log_id, refuse_another
from ceqs.log._judge import CommandRow, Outcome, Verdict, repeated
from ceqs.log._ledger import HEAD, Dialect, to_command, to_head
from ceqs.log._prepare import Prepared
from ceqs.log._retention import promise, purge
from ceqs.log._schema import SCHEMA_VERSION, commands, meta, metadata, promises, taggings
from ceqs.log._select import BATCH, SLICE, Reads
from ceqs.log._shared import Shared
from ceqs.log._tagging import Rules, Tagging, adopt, rules_of
from ceqs.log._times import to_micros
from ceqs.log._types import Appended, Batch, Entry, Head, Kept, Purged, Slice, Span, StateKey, Wanted
from ceqs.log._writer import Writer
from ceqs.model import ALL, Query

FAILURES = (
    SQLAlchemyError,
    OSError,
    sqlite3.Error,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
)
"""What the databases' drivers raise."""
_PAUSES = (0.0, 0.02, 0.1, 0.3, 0.6)
"""Seconds before each attempt to commit a batch."""
_RESOLVE_PAUSE = 0.5


T = TypeVar("T")
Step: TypeAlias = Callable[[Any, Dialect[Any]], T]
"""Works with a connection to a database of either dialect."""


def _always() -> bool:
    return True


class OutcomeUnknown(Exception):
    """The transaction failed while it was being committed: nobody knows whether it was."""


class Store(Protocol):
    """The one writing connection to a log's database."""

    tagging: Tagging
    """What is appended must fit it."""

    async def attempt(self, batch: Sequence[Prepared]) -> Verdict:
        """Settle a batch in one transaction under the log's lock.

        Raises OutcomeUnknown where the commit failed, one of FAILURES where something before it did.
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


class SqlReader:
    """Reads a log from its tables."""

    _alone = False
    """Whether nobody else writes the log."""

    def __init__(
        self,
        name: str,
        head: Head,
        engine: AsyncEngine,
        follower: Follower,
        histories: Histories,
        reads: Reads,
        tagging: Tagging | None = None,
        *,
        in_place: Callable[[], bool] = _always,
    ) -> None:
        """`in_place` says whether what was opened is still where it was found."""
        self._name = name
        self._tagging = tagging or Tagging(name)
        self._in_place = in_place
        self._log_id = head.log_id
        self._engine = engine
        self._follower = follower
        self._heads: Shared[None, Head] = Shared(self._read_heads)
        self._histories = histories
        self._reads = reads
        self._closed = False

    @property
    def name(self) -> str:
        """The log's name: the context's."""
        return self._name

    @property
    def log_id(self) -> str:
        """Tells this log from every other of the name."""
        return self._log_id

    async def head(self) -> Head:
        """Say where the log stands."""
        return await self._heads.ask(None)

    async def declare(self, contract: Contract) -> Sequence[str]:
        """Say by which contract this process understands tags; see LogReader."""
        tagging = self._tagging
        tagging.rules, tagging.revision = rules_of(contract), 0
        with self._reading():
            async with self._engine.connect() as connection:
                return tagging.unfit(await _rules(connection))

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
        span = Span(after=after, limit=limit, query=query, public=public, backwards=backwards)
        return await self._fitting(partial(self._read, span, until), query)

    async def _read(self, span: Span, until: int | None) -> Slice:
        if until is None and not span.public and not span.backwards and shareable(span.query):
            with self._reading():
                found = await self._histories.ask(Wanted(span.after, span.query))
            if found is not None and len(found.events) < span.limit:
                return found
        with self._reading():
            return await self._reads.read(span if until is None else replace(span, until=until), SLICE)

    async def read_batch(self, span: Span) -> Batch:
        """Read as ready bytes; see LogReader."""
        with self._reading():
            return await self._reads.read(span, BATCH)

    async def read_all(self, wanted: Sequence[Wanted]) -> Sequence[Slice]:
        """Read several histories at once; see LogReader."""
        return await self._fitting(partial(self._read_all, wanted), *(one.query for one in wanted))

    async def _read_all(self, wanted: Sequence[Wanted]) -> Sequence[Slice]:
        together = [one for one in wanted if shareable(one.query)]
        with self._reading():
            read = iter(await self._histories.read(together) if together else ())
            found: list[Found] = [next(read) if shareable(one.query) else None for one in wanted]
            return [
                await self._reads.read(Span(after=one.after, query=one.query), SLICE) if slice_ is None else slice_
                for one, slice_ in zip(wanted, found, strict=True)
            ]

    async def kept(self, wanted: Sequence[StateKey]) -> Sequence[Kept | None]:
        """Read kept states; see LogReader."""
        with self._reading():
            return await self._histories.kept(wanted) if wanted else []

    async def position_before(self, time: dt.datetime, *, public: bool = False) -> int:
        """Give the last position that was recorded before a time; see LogReader."""
        with self._reading():
            return await self._reads.position_before(to_micros(time), public=public)

    async def tagged(self, tags: Sequence[str], after: int, until: int) -> Sequence[tuple[int, str]]:
        """Give which of the positions carry which of the tags; see LogReader."""
        with self._reading():
            return await self._reads.tagged(tags, after, until)

    async def _read_heads(self, asked: Sequence[None]) -> Sequence[Head]:
        with self._reading():
            async with self._engine.connect() as connection:
                head = to_head((await connection.execute(HEAD)).one())
        if not self._in_place():
            raise LogReplaced(f"the log of {self._name} has been replaced by another file")
        return [refuse_another(self._name, self._log_id, head)] * len(asked)

    async def wait(self, after: int, timeout: float) -> int:  # noqa: ASYNC109  # a bound, not a cancellation
        """Wait until the head's position is beyond `after`; see LogReader."""
        with self._reading():
            return await self._follower.wait(after, timeout)

    async def remembers(self) -> int | None:
        """Give for how many days the ids of commands are remembered; see LogReader."""
        last = select(promises.c.days).order_by(promises.c.since.desc()).limit(1)
        with self._reading():
            async with self._engine.connect() as connection:
                return (await connection.execute(last)).scalar_one_or_none()

    async def _fitting(self, read: Callable[[], Awaitable[T]], *queries: Query) -> T:
        """Read by tags while the log is indexed by the rules of this process. Raises Unavailable where it is not."""
        tagging = self._tagging
        if not tagging.rules or not any(item.tags for query in queries for item in query.items):
            return await read()
        while True:
            if not tagging.revision:
                await self._look()
            revision, found = tagging.revision, await read()
            if not self._alone:
                # Another process may have put other tags in their place meanwhile.
                await self._look()
            if tagging.revision == revision:
                return found

    async def _look(self) -> None:
        with self._reading():
            async with self._engine.connect() as connection:
                revision = (await connection.execute(select(meta.c.tagging))).scalar_one()
                if not self._tagging.fits(revision):
                    self._tagging.judge(revision, await _rules(connection))

    async def close(self) -> None:
        """End the reading."""
        self._closed = True
        await self._follower.close()
        await self._heads.close()
        await self._histories.close()
        await self._reads.close()
        await self._engine.dispose()

    @contextmanager
    def _reading(self) -> Generator[None]:
        if self._closed:
            raise LogUnavailable("the log is closed")
        try:
            yield
        except FAILURES as error:
            raise LogUnavailable(f"the log {self._name!r} cannot be read: {error}") from error


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
        self._fresh = Fresh()
        self._store = store
        self._storing = asyncio.Lock()
        self._writer = Writer(self._commit, max_waiting=max_waiting)

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
        # Where other processes write, what this one has appended may not be all that there is.
        if until is None and not public and not backwards and self._known_head is not None:
            fresh = self._fresh.give(Span(after=after, limit=limit, query=query))
            if fresh is not None and not self._closed:
                return fresh
        return await super().read(
            after=after, limit=limit, query=query, public=public, until=until, backwards=backwards
        )

    async def append(self, entry: Entry) -> Appended:
        """Append the events of one command; see Log."""
        return await self._writer.append(entry)

    async def append_all(self, entries: Sequence[Entry]) -> Sequence[Outcome]:
        """Append the events of several commands in one transaction; see Log."""
        return await self._writer.append_all(entries)

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
        """End the log's work: what was accepted is on disk."""
        self._closed = True
        await self._writer.close()
        await self._store.close()
        await super().close()

    async def _commit(self, batch: Sequence[Prepared]) -> Sequence[Outcome]:
        """Commit a batch, again where that fails: command ids make the repetition harmless."""
        unknown, failure = False, ""
        for pause in _PAUSES:
            await asyncio.sleep(pause)
            try:
                async with self._storing:
                    verdict = await self._store.attempt(batch)
            except (OutcomeUnknown, *FAILURES) as error:
                unknown = unknown or isinstance(error, OutcomeUnknown)
                failure = str(error)
            else:
                if self._known_head is not None:
                    self._known_head = verdict.head
                self._fresh.add(verdict.events)
                self._follower.advance(verdict.head.position)
                return verdict.outcomes
        unavailable = f"the log {self._name!r} cannot be written: {failure}"
        if not unknown:
            raise LogUnavailable(unavailable)
        self._known_head = None
        known = await self._resolve([prepared.entry.command_id for prepared in batch if not prepared.invalid])
        return [self._resolved(prepared, known) or LogUnavailable(unavailable) for prepared in batch]

    @staticmethod
    def _resolved(prepared: Prepared, known: Mapping[str, CommandRow]) -> Outcome | None:
        entry, row = prepared.entry, known.get(prepared.entry.command_id)
        if row is None:
            return prepared.invalid
        return repeated(row, entry.content_hash, derived=entry.derived)

    async def _resolve(self, command_ids: Collection[str]) -> Mapping[str, CommandRow]:
        """Find out what a lost commit stored. Nobody is answered before that is known."""
        while True:
            try:
                return await self._store.known(command_ids)
            except FAILURES as error:
                if self._closed:
                    raise LogUnavailable(f"the log {self._name!r} was closed before it answered: {error}") from error
            await asyncio.sleep(_RESOLVE_PAUSE)


async def _rules(connection: AsyncConnection) -> Rules:
    """Read by which rules the log is indexed."""
    rows = (await connection.execute(select(taggings.c.type, taggings.c.rule))).all()
    return {row.type: row.rule for row in rows}


def create(connection: Connection, name: str, guards: Sequence[str]) -> None:
    """Create the tables of a new log, and the triggers that guard them."""
    metadata.create_all(connection, checkfirst=False)
    for guard in guards:
        connection.exec_driver_sql(guard)
    values = {"one": 1, "name": name, "log_id": new_log_id(), "epoch": 1, "tag_generation": 1, "tagging": 1}
    connection.execute(insert(meta), {**values, "schema_version": SCHEMA_VERSION})


def identify(connection: Connection, name: str, place: str) -> Head | None:
    """Give the head of the log that is stored here; None where there is none.

    Raises Misconfigured where it is another log, or of a schema that this code does not know.
    """
    if not inspect(connection).has_table(meta.name):
        return None
    row = connection.execute(select(meta.c.name, meta.c.schema_version)).one()
    if row.schema_version > SCHEMA_VERSION:
        raise Misconfigured(
            f"{place} has the schema version {row.schema_version}, this ceqs knows up to {SCHEMA_VERSION}: upgrade ceqs"
        )
    if row.schema_version < SCHEMA_VERSION:
        raise Misconfigured(
            f"{place} has the schema version {row.schema_version} of an earlier ceqs, this one needs {SCHEMA_VERSION}"
        )
    if row.name != name:
        raise Misconfigured(f"{place} is the log of {row.name!r}, not of {name!r}")
    return to_head(connection.execute(HEAD).one())
