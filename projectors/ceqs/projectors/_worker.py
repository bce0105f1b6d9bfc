"""The work of one handler: follow its log, apply, commit, and hold where an event cannot be applied."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Callable, Sequence
from contextlib import aclosing
from typing import NoReturn

import structlog

from ceqs.errors import CeqsError
from ceqs.projectors._dispatcher import Dispatcher, Sender
from ceqs.projectors._handlers import Handler, Unreadable
from ceqs.projectors._lock import held
from ceqs.projectors._place import Place
from ceqs.projectors._reader import Checkpoint
from ceqs.projectors._retry import backoff, said
from ceqs.projectors._status import CATCHING_UP, LIVE, PAUSED, STAND_BY, STOPPED, HandlerStatus
from ceqs.projectors._store import Store, Superseded
from ceqs.projectors._tail import LogReplaced, Tail
from ceqs.v1.events_pb2 import RecordedEvent

BATCH = 500
"""How many events one transaction takes at most."""
TRIES = 5
"""How often an event is tried, with a growing pause, before the handler counts as paused."""
SLOWEST = 15.0
"""Seconds between two tries of a paused handler, at most."""

_process_log = structlog.get_logger("ceqs.projectors")


class EventFailed(Exception):  # not an error of the platform's
    """Applying a batch failed at an event; nothing of the batch was committed."""

    def __init__(self, index: int, cause: Exception) -> None:
        super().__init__(str(cause))
        self.index = index
        self.cause = cause


class Worker:
    """Runs one handler over one log, in one place."""

    def __init__(self, handler: Handler, place: Place, tail: Tail, sender: Callable[[], Sender]) -> None:
        self.handler = handler
        self.place = place
        self._tail = tail
        self._sender = sender() if handler.kind != "projection" else None
        self._at = Checkpoint()
        self._store: Store | None = None
        self._state, self._reason = STAND_BY, ""
        self._log = _process_log.bind(handler=handler.name, place=str(place))

    @property
    def caught_up(self) -> bool:
        """Whether the place includes everything that its log is known to have."""
        return self._state == LIVE and bool(self._tail.log_id) and self._at.position >= self._tail.head

    def status(self) -> HandlerStatus:
        """Say where the handler stands."""
        known = bool(self._tail.log_id)
        behind = not known or self._at.position < self._tail.head
        store = self._store
        return HandlerStatus(
            name=self.handler.name,
            kind=self.handler.kind,
            version=self.place.version,
            source=self._tail.link.context,
            state=CATCHING_UP if self._state == LIVE and behind else self._state,
            reason=self._reason or self._tail.problem or (self._sender.problem if self._sender else ""),
            log_id=self._at.log_id,
            position=self._at.position,
            recorded_at=self._at.recorded_at,
            head=self._tail.head if known else None,
            skipped=store.skipped if store else 0,
            unsent=store.outbox.unsent if store else 0,
            outcomes=dict(store.outbox.outcomes) if store else {},
        )

    async def run(self) -> None:
        """Work until cancelled. Returns only where going on would be wrong: the log is another one."""
        failures = 0
        while True:
            try:
                async with held(self.place):
                    await self._work()
            except Exception as caught:  # noqa: BLE001  # whatever it is, the other handlers go on, and this one tries again
                error = _first(caught)
                failures = 1 if self._state == LIVE else failures + 1
                if isinstance(error, LogReplaced):
                    self._state, self._reason = STOPPED, error.message
                    self._log.error("stopped", error=error.message)
                    return
                self._state, self._reason = (
                    STAND_BY if isinstance(error, Superseded) else PAUSED,
                    f"{self.place}: {said(error)}",
                )
                self._log.error(self._state, error=self._reason, exc_info=_unexpected(error))
            await asyncio.sleep(backoff(failures, most=SLOWEST))

    async def _work(self) -> NoReturn:
        source = self._tail.link.context
        async with Store.open(self.place, source, self.handler.metadata) as store, asyncio.TaskGroup() as group:
            self._store, self._at = store, await store.checkpoint()
            self._state, self._reason = LIVE, ""
            dispatcher = Dispatcher(store.outbox, self._sender.send) if self._sender else None
            if dispatcher:
                group.create_task(dispatcher.run())
            if not self._at.log_id and await self._tail.identify():
                self._at = await store.adopt(self._at, self._tail.log_id)
            async with aclosing(self._tail.follow(self._at.position, self._at.log_id)) as batches:
                async for batch in batches:
                    for first in range(0, len(batch), BATCH):
                        await self._apply(store, batch[first : first + BATCH])
                        if dispatcher:
                            dispatcher.wake()
        raise AssertionError("a log has no end")

    async def _apply(self, store: Store, batch: Sequence[RecordedEvent]) -> None:
        """Apply a batch in one transaction; where an event fails, those before it, and then it alone until it goes."""
        size, tries = len(batch), 0
        while batch:
            try:
                await self._commit(store, batch[:size])
            except EventFailed as failed:
                if failed.index:
                    size = failed.index
                else:
                    size, tries = 1, tries + 1
                    await self._hold(store, batch[0], failed.cause, tries)
            else:
                if tries:
                    self._state, self._reason = LIVE, ""
                batch = batch[size:]
                size, tries = len(batch), 0

    async def _commit(self, store: Store, events: Sequence[RecordedEvent]) -> None:
        last = events[-1]
        after = Checkpoint(
            self._at.log_id or self._tail.log_id,
            self._tail.link.number(last),
            last.id,
            last.recorded_at.ToDatetime(dt.UTC),
        )
        heard = [self._hears(index, event) for index, event in enumerate(events)]
        index = 0
        try:
            async with store.advance(self._at, after, skipped=heard.count(False)) as session:
                for index, event in enumerate(events):
                    if heard[index]:
                        await self.handler.apply(session, event)
                index = len(events) // 2  # what fails from here on fails in the commit: the half that does is found
        except Superseded:
            raise
        except Exception as error:
            raise EventFailed(index, error) from error
        self._at = after

    def _hears(self, index: int, event: RecordedEvent) -> bool:
        if self._tail.link.private and event.type not in self.handler.contract.events:
            unknown = Unreadable(
                f"{event.type} at position {event.position} is no event of this build's contract; deploy the build "
                "that knows it"
            )
            raise EventFailed(index, unknown)
        return self.handler.hears(event)

    async def _hold(self, store: Store, event: RecordedEvent, error: Exception, tries: int) -> None:
        """Wait before an event is tried again; from the last quick try on, count as paused."""
        reason = f"{event.type} at position {self._tail.link.number(event)}: {said(error)}"
        self._reason = reason
        if tries == TRIES or (isinstance(error, Unreadable) and tries == 1):
            self._state = PAUSED
            self._log.error("paused", error=reason, exc_info=_unexpected(error))
            await store.pause(reason)
        await asyncio.sleep(backoff(tries, least=0.05, most=SLOWEST))


def _first(error: Exception) -> Exception:
    """Give the first of the errors that a group of tasks ended with."""
    return _first(error.exceptions[0]) if isinstance(error, ExceptionGroup) else error  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType]


def _unexpected(error: Exception) -> Exception | None:
    return None if isinstance(error, CeqsError) else error
