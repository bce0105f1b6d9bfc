"""The bank's log and states, and a model that stands where the test says."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from typing import Any

import pytest

from ceqs.contract import tags_of
from ceqs.log import Appended, Entry, Log, NewEvent, open_log
from ceqs.queries import Answers, QueryCall, States, Stop

_ids = count(1)


class FakeModel:
    """A query model of a total."""

    def __init__(self) -> None:
        self.total = 0
        self.log_id = ""
        self.position = 0
        self.recorded_at: dt.datetime | None = None
        self.parked = 0
        self.patience: list[float] = []
        self._moved = asyncio.Event()

    def move(self, position: int, total: int) -> None:
        self.position, self.total = position, total
        self._moved.set()

    @asynccontextmanager
    async def session(self) -> AsyncIterator[tuple[Any, Any]]:
        yield self, self

    async def wait(self, position: int, timeout: float) -> bool:
        self.patience.append(timeout)
        try:
            async with asyncio.timeout(timeout):
                while self.position < position:
                    self._moved.clear()
                    await self._moved.wait()
        except TimeoutError:
            return False
        return True


class Asking:
    """Records events and asks queries."""

    def __init__(self, bank: Any, context: Any, log: Log, model: FakeModel) -> None:
        self.bank, self.context, self.log, self.model = bank, context, log, model
        self.states = States(context, log)
        self.stop = Stop()
        self.answers = Answers(context, log, self.states, {"Total": model}, stop=self.stop)

    async def record(self, *events: Any) -> Appended:
        contract = self.context.contract
        new = tuple(
            NewEvent(
                id=f"00000000-0000-7000-8000-{next(_ids):012}",
                type=event.DESCRIPTOR.full_name,
                payload=event.SerializeToString(),
                tags=tags_of(event, contract.event(event).tags),
            )
            for event in events
        )
        return await self.log.append(Entry(command_id=new[0].id, events=new))

    def rpc(self, name: str) -> Any:
        return self.context.contract.queries[f"/bank.v1.BankQueriesService/{name}"]

    async def ask(self, name: str, call: QueryCall | None = None, **fields: Any) -> Any:
        request = getattr(self.bank, f"{name}Request")(**fields)
        return await self.answers.answer(self.rpc(name), request, call or QueryCall())


@pytest.fixture
async def log() -> AsyncIterator[Log]:
    opened = await open_log("memory:", "bank")
    yield opened
    await opened.close()


@pytest.fixture
def model() -> FakeModel:
    return FakeModel()


@pytest.fixture
def asking(bank: Any, log: Log, model: FakeModel) -> Asking:
    return Asking(bank, bank.make_context(), log, model)
