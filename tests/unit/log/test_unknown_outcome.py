"""A commit whose outcome nobody heard is resolved by its command ids before anybody is answered."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import TypeVar

import pytest
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import create_async_engine

from ceqs.errors import LogUnavailable
from ceqs.log import Entry, Head, NewEvent, _sql
from ceqs.log._follower import Follower
from ceqs.log._histories import SqliteHistories
from ceqs.log._judge import CommandRow, Verdict, judge
from ceqs.log._prepare import Prepared
from ceqs.log._select_sqlite import SqliteReads
from ceqs.log._sql import OutcomeUnknown, SqlLog, Step, Untold
from ceqs.log._tagging import Tagging
from ceqs.log._writer import Judged

T = TypeVar("T")
NOON = dt.datetime(2026, 1, 2, 12, tzinfo=dt.UTC)
LOST = OperationalError("", {}, Exception("connection lost"))
STORED_ALL_THE_SAME = OutcomeUnknown("connection lost after the commit")
NOT_STORED = OutcomeUnknown("connection lost before the commit")


class Store:
    """A store in memory whose attempts and lookups fail as told, in turn; then they work."""

    def __init__(self) -> None:
        self.tagging = Tagging("orders")
        self.attempts: list[Exception] = []
        self.lookups: list[Exception] = []
        self.again: list[bool] = []
        self.commands: dict[str, CommandRow] = {}
        self.head = Head("log")

    async def attempt(self, batch: Sequence[Prepared], judged: Judged, *, again: bool) -> Verdict:
        await asyncio.sleep(0)
        self.again.append(again)
        error = self.attempts.pop(0) if self.attempts else None
        if error in (LOST, NOT_STORED):
            raise error
        verdict = judge(batch, self.head, generation=1, known=self.commands, moved=(), now=NOON, monotonic=0.0)
        judged(verdict.outcomes)
        self.head = verdict.head
        self.commands |= verdict.commands
        if error:
            raise error
        return verdict

    async def ahead(self, batch: Sequence[Prepared], judged: Judged) -> Verdict:
        raise Untold

    async def known(self, command_ids: Collection[str]) -> Mapping[str, CommandRow]:
        await asyncio.sleep(0)
        if self.lookups:
            raise self.lookups.pop(0)
        return {i: self.commands[i] for i in command_ids if i in self.commands}

    async def work(self, step: Step[T], *, locked: bool = True) -> T:
        raise AssertionError("nothing else is asked of it")

    def holding(self, keys: Collection[str]) -> AbstractAsyncContextManager[None]:
        return nullcontext()

    async def close(self) -> None:
        await asyncio.sleep(0)


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
async def log(store: Store, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[SqlLog]:
    monkeypatch.setattr(_sql, "_PAUSES", (0.0, 0.0, 0.0))
    monkeypatch.setattr(_sql, "_RESOLVE_PAUSE", 0.001)
    log = SqlLog(
        "orders",
        Head("log"),
        create_async_engine("sqlite+aiosqlite://"),
        Follower(Head("log")),
        SqliteHistories("file::memory:"),
        SqliteReads("file::memory:"),
        store=store,
        max_waiting=100,
    )
    yield log
    await log.close()


def entry(command_id: str) -> Entry:
    return Entry(command_id=command_id, events=(NewEvent(id=command_id, type="shop.Placed", payload=b""),))


@pytest.mark.parametrize(
    "attempts",
    [[LOST], [LOST, LOST], [NOT_STORED], [STORED_ALL_THE_SAME], [STORED_ALL_THE_SAME, LOST], [NOT_STORED, NOT_STORED]],
    ids=str,
)
async def test_a_batch_is_tried_again_and_happens_once(log: SqlLog, store: Store, attempts: list[Exception]) -> None:
    store.attempts = list(attempts)
    appended = await asyncio.gather(log.append(entry("c1")), log.append(entry("c2")))
    assert [a.receipt.position for a in appended] == [1, 2]
    assert store.head.position == 2
    assert store.again[: len(attempts) + 1] == [False] + [True] * len(attempts), "what may be stored is looked up"


async def test_a_batch_that_never_reached_a_commit_is_unavailable(log: SqlLog, store: Store) -> None:
    store.attempts = [LOST] * 3
    store.lookups = [LOST] * 100
    with pytest.raises(LogUnavailable, match="connection lost"):
        await log.append(entry("c1"))
    assert len(store.lookups) == 100, "nothing was in doubt"
    assert (await log.append(entry("c1"))).receipt.position == 1


async def test_what_was_found_to_be_stored_is_followed(log: SqlLog, store: Store) -> None:
    following = [asyncio.create_task(log.wait(0, 60, public=public)) for public in (False, True)]
    store.attempts = [STORED_ALL_THE_SAME, LOST, LOST]
    await log.append(Entry(command_id="c1", events=(NewEvent(id="c1", type="shop.Told", payload=b"", public=True),)))
    assert await asyncio.wait_for(asyncio.gather(*following), 10) == [1, 1]


@pytest.mark.parametrize("last", [LOST, NOT_STORED], ids=str)
async def test_what_was_stored_is_acknowledged_however_often_its_answer_was_lost(
    log: SqlLog, store: Store, last: Exception
) -> None:
    store.attempts = [STORED_ALL_THE_SAME, LOST, last]
    store.lookups = [LOST] * 5
    appended = await log.append(entry("c1"))
    assert (appended.receipt.position, store.lookups) == (1, [])


async def test_what_was_not_stored_is_unavailable_once_that_is_known(log: SqlLog, store: Store) -> None:
    store.attempts = [NOT_STORED] * 3
    store.lookups = [LOST] * 5
    with pytest.raises(LogUnavailable):
        await log.append(entry("c1"))
    assert store.lookups == []
    assert store.head.position == 0


async def test_closing_ends_the_search_for_an_outcome(log: SqlLog, store: Store) -> None:
    store.attempts = [NOT_STORED] * 3
    store.lookups = [LOST] * 1_000_000
    waiting = asyncio.create_task(log.append(entry("c1")))
    await asyncio.sleep(0.02)
    assert not waiting.done()
    await log.close()
    with pytest.raises(LogUnavailable, match="closed before it answered"):
        await waiting
