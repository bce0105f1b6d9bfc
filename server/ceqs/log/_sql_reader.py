"""Reading the log in SQL: what SQLite and PostgreSQL have in common."""

from __future__ import annotations

import datetime as dt
import sqlite3
from collections.abc import Awaitable, Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import TypeVar

import asyncpg
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from ceqs.contract import Contract
from ceqs.errors import LogReplaced, LogUnavailable
from ceqs.log._follower import Follower
from ceqs.log._histories import Found, Histories, shareable
from ceqs.log._identity import refuse_another
from ceqs.log._ledger import to_head
from ceqs.log._schema import promises, taggings
from ceqs.log._select import BATCH, SLICE, Reads
from ceqs.log._shared import Shared
from ceqs.log._tagging import Rules, Tagging, rules_of
from ceqs.log._times import to_micros
from ceqs.log._types import Batch, Head, Kept, Slice, Span, StateKey, Wanted
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

T = TypeVar("T")


def _always() -> bool:
    return True


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
            head = to_head(await self._reads.head())
        if not self._in_place():
            raise LogReplaced(f"the log of {self._name} has been replaced by another file")
        return [refuse_another(self._name, self._log_id, head)] * len(asked)

    async def wait(self, after: int, timeout: float, *, public: bool = False) -> int:  # noqa: ASYNC109  # a bound, not a cancellation
        """Wait until the head's position is beyond `after`; see LogReader."""
        with self._reading():
            return await self._follower.wait(after, timeout, public=public)

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
            *_, revision = await self._reads.head()
            if not self._tagging.fits(revision):
                async with self._engine.connect() as connection:
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


async def _rules(connection: AsyncConnection) -> Rules:
    """Read by which rules the log is indexed."""
    rows = (await connection.execute(select(taggings.c.type, taggings.c.rule))).all()
    return {row.type: row.rule for row in rows}
