"""Processes, as far as several can be had in one: told to, they die or lose their way to the log; nobody is killed."""

from __future__ import annotations

import asyncio
import sqlite3
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

from ceqs.log import Log
from ceqs.log._sql_reader import SqlReader
from ceqs.server import CommandExecutor
from ceqs.server._events import Events

EXECUTORS = 3
"""How many there are in each process, each with a memory of its own."""


class Lost(sqlite3.OperationalError, OSError):
    """The way to the log is cut while it commits; the process lives, and does not know whether it did."""


class Died(BaseException):
    """The process dies while its log commits. It answers nobody."""


class Process:
    """A log, and what is forgotten when its process ends."""

    def __init__(self, log: Log, make_context: Callable[[], Any]) -> None:
        self.log: Any = log
        self.events = Events(log, make_context().decoder)
        self.failing = deque[tuple[bool, BaseException]]()
        """Of each of the next commits: whether the log has it all the same, and how it fails."""
        self._make_context = make_context
        store = getattr(log, "_store", None)
        if store is not None:
            store.commit_transaction = partial(self._commit, store.commit_transaction)
        self.forget()

    def forget(self) -> None:
        """Go on with executors that know nothing."""
        self.executors = [CommandExecutor(self._make_context(), self.log) for _ in range(EXECUTORS)]

    async def dead(self) -> None:
        """Wait until it has died at a commit."""
        writing = self.log._writer._task
        await asyncio.wait([writing])
        assert isinstance(writing.exception(), Died)

    async def buried(self) -> None:
        """Close what it has left open, as a system does it."""
        lanes = [lane for executor in self.executors for lane in (executor._optimistic, executor._pessimistic)]
        for lane in lanes:
            if lane._task:
                lane._task.cancel()
                await asyncio.wait([lane._task])
        await self.log._store.close()
        await SqlReader.close(self.log)

    def _commit(self, commit: Callable[..., Any], *connection_and_statement: object) -> Any:
        committed, error = self.failing.popleft() if self.failing else (True, None)
        done = commit(*connection_and_statement) if committed else None
        if error:
            raise error
        return done
