"""A full batch is decided upon the one before while that is on its way to the disk."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.unit.server.conftest import Sender, Watched, turns_of

from ceqs.contract import Locking
from ceqs.errors import LogUnavailable, Rejected
from ceqs.log import MAX_BATCH_ENTRIES, Log, open_log
from ceqs.log import _sql as sql
from ceqs.log._sqlite import SqliteStore
from ceqs.testing import eventually

FULL = MAX_BATCH_ENTRIES


class Disk:
    """Lets as many transactions end as it is told to, and fails as many of them."""

    def __init__(self) -> None:
        self._turns = threading.Semaphore(0)
        self.failing = 0
        self._commit = SqliteStore.commit_transaction

    def commit(self, connection: sqlite3.Connection) -> None:
        assert self._turns.acquire(timeout=10)
        if self.failing:
            self.failing -= 1
            raise sqlite3.OperationalError("disk I/O error")
        self._commit(connection)

    def let(self, transactions: int) -> None:
        self._turns.release(transactions)


ALL = 1000
"""More transactions than any test makes."""


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    turns_of(60.0, monkeypatch)
    monkeypatch.setattr(sql, "_PAUSES", (0.0, 0.0))


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    made = Disk()
    monkeypatch.setattr(SqliteStore, "commit_transaction", staticmethod(made.commit))
    return made


@pytest.fixture
async def log(tmp_path: Path) -> AsyncIterator[Log]:
    opened = await open_log(f"sqlite:///{tmp_path}/log.db", "bank")
    yield opened
    await opened.close()


class Calls:
    """Calls that are made at once: what each of them is answered."""

    def __init__(self, sender: Sender, watched: Watched, disk: Disk) -> None:
        self._sender, self._watched, self._disk = sender, watched, disk
        self._sent: list[asyncio.Task[Any]] = []

    def send(self, rpc: str, times: int = FULL, **fields: Any) -> None:
        self._sent += [asyncio.create_task(self._sender.send(rpc, **fields)) for _ in range(times)]

    @property
    def answered(self) -> int:
        """How many have their answers."""
        return sum(one.done() for one in self._sent)

    async def decided(self, batches: int) -> None:
        """Wait until so many batches are decided, none of which is recorded."""
        await eventually(lambda: len(self._watched.batches) == batches)
        assert not self.answered

    async def answers(self) -> Sequence[Any]:
        """Let the disk work, and give the balance after each call, or what refused it."""
        self._disk.let(ALL)
        ended = await asyncio.gather(*self._sent, return_exceptions=True)
        return [one if isinstance(one, BaseException) else getattr(one.response, "balance", None) for one in ended]


@pytest.fixture
def calls(sender: Sender, watched: Watched, disk: Disk) -> Calls:
    return Calls(sender, watched, disk)


async def test_it_goes_on_with_the_states_that_the_one_before_leaves(calls: Calls, sender: Sender) -> None:
    calls.send("Deposit", 2 * FULL, account_id="a", amount=1)
    await calls.decided(2)
    assert await calls.answers() == list(range(1, 2 * FULL + 1))
    assert sender.decided() == 2 * FULL, "none is decided twice"


async def test_what_is_not_recorded_yet_is_nobody_elses(calls: Calls, sender: Sender, log: Log) -> None:
    calls.send("Deposit", 2 * FULL, account_id="a", amount=1)
    await calls.decided(2)
    boundary = sender.context.boundary(sender.rpc("Deposit"), sender.bank.DepositRequest(account_id="a"))
    assert (await sender.executor._states.load(boundary)).position == 0
    assert (await log.head()).position == 0
    await calls.answers()
    state: Any = (await sender.executor._states.load(boundary)).state
    assert state.balance == 2 * FULL


async def test_a_batch_that_is_not_full_waits_for_more_instead(
    calls: Calls, watched: Watched, disk: Disk, log: Log
) -> None:
    calls.send("Deposit", 2 * FULL + 3, account_id="a", amount=1)
    await calls.decided(2)
    disk.let(1)
    await eventually(lambda: calls.answered == FULL)
    calls.send("Deposit", 2, account_id="a", amount=1)
    assert await calls.answers() == list(range(1, 2 * FULL + 6))
    assert [len(batch) for batch in watched.batches] == [FULL, FULL, 5]


async def test_a_batch_that_fills_up_meanwhile_is_decided_then(calls: Calls, watched: Watched, disk: Disk) -> None:
    calls.send("Deposit", 3 * FULL - 1, account_id="a", amount=1)
    await calls.decided(2)
    disk.let(1)
    await eventually(lambda: calls.answered == FULL)
    assert len(watched.batches) == 2
    calls.send("Deposit", 1, account_id="a", amount=1)
    await eventually(lambda: len(watched.batches) == 3)
    assert calls.answered == FULL
    assert await calls.answers() == list(range(1, 3 * FULL + 1))


async def test_those_who_take_turns_with_other_processes_wait_until_their_last_turn_is_recorded(
    calls: Calls, sender: Sender, watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    pessimistic = replace(sender.rpc("Deposit").state, locking=Locking.PESSIMISTIC)
    monkeypatch.setattr(sender, "rpc", lambda name: replace(Sender.rpc(sender, name), state=pessimistic))
    calls.send("Deposit", 2 * FULL, account_id="a", amount=1)
    await calls.decided(1)
    assert await calls.answers() == list(range(1, 2 * FULL + 1))
    assert [bool(keys) for keys in watched.held] == [True, False] * 2


async def test_where_recording_fails_what_was_decided_upon_it_is_decided_again(
    calls: Calls, disk: Disk, log: Log
) -> None:
    disk.failing = len(sql._PAUSES)
    calls.send("Deposit", account_id="a", amount=1)
    calls.send("Withdraw", 1, account_id="a", amount=1)
    calls.send("Deposit", FULL - 1, account_id="a", amount=1)
    await calls.decided(2)
    failed, (refused, *accepted) = (answers := await calls.answers())[:FULL], answers[FULL:]
    assert all(isinstance(one, LogUnavailable) for one in failed)
    assert isinstance(refused, Rejected), "what it would have taken out was never put in"
    assert accepted == list(range(1, FULL))
    assert (await log.head()).position == FULL - 1


async def test_where_recording_is_tried_again_what_was_decided_upon_it_keeps_its_order(
    calls: Calls, disk: Disk, log: Log
) -> None:
    disk.failing = 1
    calls.send("Deposit", 3 * FULL, account_id="a", amount=1)
    await calls.decided(2)
    assert await calls.answers() == list(range(1, 3 * FULL + 1))
    assert (await log.head()).position == 3 * FULL


async def test_events_of_a_boundary_that_others_propose_are_waited_for(calls: Calls, sender: Sender) -> None:
    calls.send("Deposit", account_id="a", amount=1)
    calls.send("Transfer", 1, to="b", amount=FULL, **{"from": "a"})
    calls.send("Deposit", FULL - 1, account_id="c", amount=1)
    await calls.decided(1)
    assert await calls.answers() == [*range(1, FULL + 1), None, *range(1, FULL)]
    assert sender.decided() == 2 * FULL, "none is decided twice"


async def test_after_a_refusal_the_next_batch_is_decided_on_what_is_recorded(
    calls: Calls, sender: Sender, rival: Sender, disk: Disk
) -> None:
    disk.let(2)
    await sender.send("Deposit", account_id="a", amount=1)
    # The sender does not know of this one, so what it decides on that account is refused, and decided again.
    await rival.send("Withdraw", account_id="a", amount=1)
    calls.send("Withdraw", 1, account_id="a", amount=1)
    calls.send("Deposit", 2 * FULL - 1, account_id="a", amount=1)
    first, *others = await calls.answers()
    assert isinstance(first, Rejected)
    assert others == list(range(1, 2 * FULL))


async def test_an_error_before_anything_is_recorded_is_the_answer_and_the_work_goes_on(
    calls: Calls, disk: Disk, watched: Watched
) -> None:
    watched.errors = [LogUnavailable("no")]
    calls.send("Deposit", 3 * FULL, account_id="a", amount=1)
    answers = await calls.answers()
    assert all(isinstance(one, LogUnavailable) for one in answers[:FULL])
    assert answers[FULL:] == list(range(1, 2 * FULL + 1))
