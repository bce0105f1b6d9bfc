"""The work of one handler: follow its log, apply, commit, and park or wait where an event cannot be applied."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import aclosing
from typing import NoReturn

import structlog

from ceqs.contract import BUCKETS
from ceqs.errors import CeqsError, LogReplaced, Unavailable, Unreadable
from ceqs.projectors._blame import Blame, Full, blame
from ceqs.projectors._fill import BATCH
from ceqs.projectors._handlers import Endless, Handler
from ceqs.projectors._lease import Superseded
from ceqs.projectors._looking import SIDE_BY_SIDE, look_around
from ceqs.projectors._outlet import Heard, Outlet
from ceqs.projectors._pace import Pace
from ceqs.projectors._parking import Lot, Parked, trace_of
from ceqs.projectors._place import Place
from ceqs.projectors._published import Mark, Published
from ceqs.projectors._reader import Checkpoint, checkpoint_at
from ceqs.projectors._refused import heed_calls
from ceqs.projectors._retry import backoff, said
from ceqs.projectors._shares import WHOLE, Share
from ceqs.projectors._status import CATCHING_UP, LIVE, PAUSED, STAND_BY, STOPPED, HandlerStatus
from ceqs.projectors._store import Store
from ceqs.projectors._tail import Tail
from ceqs.streams import heed_cancellation
from ceqs.v1.events_pb2 import RecordedEvent

TRIES = 5
"""How often an event is tried, with a growing pause, before it is parked, or the handler counts as paused."""
SLOWEST = 15.0
"""Seconds between two tries of a paused handler, at most."""
LOOK = 0.05
"""Seconds between two looks whether there is room for more calls."""
ATTEND = 0.25
"""Seconds between two looks at what operators ask for, where events are parked."""

_process_log = structlog.get_logger("ceqs.projectors")


NOTE, LISTEN = 0.5, 2.0
"""Seconds after which a publisher tells the log how far it is: where it has moved, and where it has not."""


class _BeginAgain(Exception):  # not an error of the platform's
    """A publisher stands elsewhere than its log says."""


class EventFailed(Exception):  # not an error of the platform's
    """Applying a batch failed at an event; nothing of the batch was committed."""

    def __init__(self, index: int, cause: Exception) -> None:
        super().__init__(str(cause))
        self.index = index
        self.cause = cause


class Worker:
    """Runs one handler over one log, in one place."""

    def __init__(
        self,
        handler: Handler,
        place: Place,
        tail: Tail,
        outlet: Callable[[Store, Heard], Outlet],
        lease: float,
        share: Share = WHOLE,
        published: Published | None = None,
    ) -> None:
        self.handler = handler
        self.place = place
        self.share = share
        self.unhurried = False
        """Rest between batches; see Pace."""
        self._lease = lease
        self._tail = tail
        self._published = published
        self._open = outlet
        self._outlet: Outlet | None = None
        self._store: Store | None = None
        self._lot: Lot | None = None
        self._freed = asyncio.Event()
        self._state, self._reason = STAND_BY, ""
        self._log = _process_log.bind(handler=handler.name, place=str(place))

    @property
    def name(self) -> str:
        """The handler's name."""
        return self.handler.name

    @property
    def lag(self) -> int | None:
        """How many events of its log the place lacks; None where that is not known, or nothing is written there now."""
        if self._state != LIVE or self._store is None or not self._tail.log_id:
            return None
        return max(0, self._tail.head - self._store.at.position)

    def status(self) -> HandlerStatus:
        """Say where the handler stands."""
        store = self._store
        at = store.at if store else Checkpoint()
        return HandlerStatus(
            name=self.handler.name,
            kind=self.handler.kind,
            version=self.place.version,
            source=self._tail.link.context,
            state=CATCHING_UP if self._state == LIVE and self._behind else self._state,
            reason=self._reason or self._tail.problem or (self._outlet.problem if self._outlet else ""),
            log_id=at.log_id,
            position=at.position,
            recorded_at=at.recorded_at,
            head=self._tail.head if self._tail.log_id else None,
            skipped=store.skipped if store else 0,
            unsent=store.outbox.unsent if store else 0,
            timers=store.timers.waiting if store else 0,
            outcomes=dict(store.outbox.outcomes) if store else {},
            parked=len(self._lot) if self._lot else 0,
        )

    async def run(self) -> None:
        """Work until cancelled. Returns only where going on would be wrong: the log is another one."""
        failures = 0
        while True:
            try:
                await self._work()
            except Exception as caught:  # noqa: BLE001  # whatever it is, the other handlers go on, and this one tries again
                error = _first(caught)
                failures = 1 if self._state == LIVE else failures + 1
                if self._published and isinstance(error, (LogReplaced, _BeginAgain)):
                    self._log.warning("begins where the log says", why=str(error))
                    continue
                if isinstance(error, LogReplaced):
                    self._state, self._reason = STOPPED, f"{error.message}: {self._anew}"
                    self._log.error("stopped", error=self._reason)
                    return
                if isinstance(error, Superseded):
                    self._state, self._reason = STAND_BY, error.message
                    self._log.warning("stands by", why=error.message)
                else:
                    self._state, self._reason = PAUSED, f"{self.place}: {said(error)}"
                    self._log.error("paused", error=self._reason, exc_info=_unexpected(error))
            heed_cancellation()
            await asyncio.sleep(backoff(failures, most=SLOWEST))

    async def _work(self) -> NoReturn:
        source = self._tail.link.context
        opening = Store.open(self.place, source, self.handler.metadata, lease=self._lease, share=self.share)
        async with opening as store, asyncio.TaskGroup() as group:
            self._store = store
            if self._published:
                await self._begin_where_it_ended(store, self._published)
                group.create_task(self._note(store, self._published))
            self._lot = await Lot.open(store, self.handler.max_parked)
            self._state, self._reason = LIVE, ""
            if self.handler.kind != "projection":
                self._outlet = self._open(store, self._heard)
                group.create_task(self._outlet.run())
            wake = self._outlet.wake if self._outlet else lambda: None
            group.create_task(self._attend(store, self._lot, wake))
            # A transaction costs the same, however many events it passes over.
            most = SIDE_BY_SIDE if self.handler.looks_around else BATCH * BUCKETS // self.share.size
            if not store.at.log_id and await self._tail.identify():
                await store.adopt(self._tail.log_id)
            async with aclosing(self._tail.follow(store.at.position, store.at.log_id)) as batches:
                pace = Pace()
                async for batch in batches:
                    for first in range(0, len(batch), most):
                        began, some = time.monotonic(), batch[first : first + most]
                        await self._room(store)
                        await self._apply(store, self._lot, some)
                        wake()
                        if self.unhurried:
                            worked = time.monotonic() - began
                            await asyncio.sleep(pace.rest(worked, len(some), self._tail.head))
        raise AssertionError("a log has no end")

    async def _begin_where_it_ended(self, store: Store, published: Published) -> None:
        """Begin where the log says that a publisher has ended, unless it is farther already."""
        mark, at = await published.ask(), store.at
        to = Checkpoint(mark.log_id, mark.position)
        if (at.log_id and at.log_id != mark.log_id) or store.round != mark.round:
            await store.begin_at(to, mark.round)
        elif at.position < mark.position:
            async with store.advance(to):
                pass
        self.handler.begin(store.round)

    async def _note(self, store: Store, published: Published) -> NoReturn:
        """Tell the log how far a publisher is, and hear whether it is to begin again."""
        noted, looked = -1, time.monotonic()
        while True:
            await asyncio.sleep(NOTE)
            position = await store.settled()
            if position == noted and time.monotonic() < looked + LISTEN:
                continue
            with contextlib.suppress(Unavailable):
                mark = await published.tell(Mark(store.at.log_id, store.round, position))
                if (mark.log_id, mark.round) != (store.at.log_id, store.round) and store.at.log_id:
                    raise _BeginAgain(f"everything is to be published again, for the {mark.round - 1}. time")
                noted, looked = position, time.monotonic()

    async def _room(self, store: Store) -> None:
        """Wait until no more calls are unsent than may be."""
        most, waited = self.handler.max_unsent, False
        while store.outbox.unsent >= most:
            why = f"{store.outbox.unsent} calls are unsent, and no more than {most} may be"
            if problem := self._outlet.problem if self._outlet else "":
                why = f"{why}: {problem}"
            if not waited:
                waited, self._state = True, PAUSED
                self._log.warning("paused", error=why)
                await store.pause(why)
            self._reason = why
            await asyncio.sleep(LOOK)
        if waited:
            self._state, self._reason = LIVE, ""

    @property
    def _anew(self) -> str:
        """Say how the handler is built anew for another log."""
        if self.handler.kind == "projection":
            return f"ceqs projection rebuild {self.place.context}/{self.place.name}"
        return (
            f"remove {self.place} and start the projector again; it begins with the first event, and what it did "
            "for events that the log has is not done twice"
        )

    @property
    def _behind(self) -> bool:
        at = self._store.at.position if self._store else 0
        return not self._tail.log_id or at < self._tail.head

    def _heard(self, now: dt.datetime) -> dt.datetime:
        """Give up to when the handler has heard everything."""
        recorded_at = self._store.at.recorded_at if self._store else None
        return (recorded_at or dt.datetime.min.replace(tzinfo=dt.UTC)) if self._behind else now

    async def _apply(self, store: Store, lot: Lot, batch: Sequence[RecordedEvent]) -> None:
        """Apply a batch in one transaction; where an event fails, those before it, and then it alone until it goes.

        One that does not go by its own fault is parked.
        """
        size, tries = len(batch), 0
        while batch:
            try:
                await self._commit(store, lot, batch[:size])
            except EventFailed as failed:
                if failed.index:
                    size = failed.index
                    continue
                size, tries = 1, tries + 1
                if not await self._park(store, lot, batch[0], failed.cause, tries):
                    continue
            if tries:
                self._state, self._reason = LIVE, ""
            batch = batch[size:]
            size, tries = len(batch), 0

    async def _commit(self, store: Store, lot: Lot, events: Sequence[RecordedEvent]) -> None:
        lacked = store.lacked(events, self._tail.link.number)
        heard = [index for index in lacked if self._hears(index, events[index])]
        skipped = len(lacked) - len(heard)
        if self.handler.looks_around:
            await self._look_around(lot, {index: events[index] for index in heard})
        index, waiting = 0, list[Parked]()
        began = False
        try:
            async with store.advance(self._after(store, events[-1]), skipped=skipped) as session:
                began, blocking = True, lot.keys
                async with self.handler.batch(session, [events[index] for index in heard]) as apply:
                    for index in heard:
                        event = events[index]
                        if blocking and lot.blocks(key := self.handler.key(event)):
                            lot.check_room(len(waiting), f"{self._named(event)} waits for {key}")
                            waiting.append(self._set_aside(event, key))
                        else:
                            await apply(event)
                    index = len(events) // 2  # what fails from here on fails in writing: the half that does is found
                if waiting:
                    await lot.park(session, waiting)
        except Exception as error:
            if isinstance(error, Superseded) or not began:
                raise
            raise EventFailed(index, error) from error
        lot.note(waiting)
        for index in heard:
            self.handler.forget(events[index])

    async def _look_around(self, lot: Lot, events: Mapping[int, RecordedEvent]) -> None:
        if failed := await look_around(self.handler, lot, list(events.values())):
            index, error = failed
            raise EventFailed(list(events)[index], error) from error

    async def _park(self, store: Store, lot: Lot, event: RecordedEvent, error: Exception, tries: int) -> bool:
        """Park an event that has failed, or wait before it is tried again. Say whether it is parked."""
        reason = f"{self._named(event)}: {said(error)}"
        fault = blame(error)
        if fault is Blame.EVENT and (tries >= TRIES or isinstance(error, Endless)):
            try:
                lot.check_room(0, reason)
                parked = self._set_aside(event, self.handler.key(event), said(error), trace_of(error), tries)
            except (Full, Unreadable) as kept:
                fault, reason = Blame.HANDLER, kept.message
            else:
                async with store.advance(self._after(store, event)) as session:
                    await lot.park(session, [parked])
                lot.note([parked])
                self._log.error("parked", error=reason, exc_info=_unexpected(error))
                return True
        news, self._reason = reason != self._reason, reason
        if (fault is Blame.HANDLER or tries >= TRIES) and (news or self._state != PAUSED):
            self._state = PAUSED
            self._log.error("paused", error=reason, exc_info=_unexpected(error))
            await store.pause(reason)
        self._freed.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(backoff(tries, least=0.05, most=SLOWEST)):
                await self._freed.wait()
        return False

    async def _attend(self, store: Store, lot: Lot, wake: Callable[[], None]) -> NoReturn:
        """Do what operators ask for, and apply what waits behind nobody any more."""
        failures = 0
        while True:
            await asyncio.sleep(backoff(failures, most=SLOWEST) if failures else ATTEND)
            if store.outbox.refused:
                for request in await heed_calls(store):
                    self._log.info(request.verb, call=request.call, actor=request.actor, why=request.why)
                    wake()
            if not len(lot):
                continue
            for request in await lot.heed():
                self._freed.set()
                self._log.info(request.verb, position=request.position, actor=request.actor, why=request.why)
            while parked := await lot.next_due():
                try:
                    await self.handler.look_around(parked.event)
                    async with lot.leaving(parked) as session:
                        await self.handler.apply(session, parked.event)
                    self.handler.forget(parked.event)
                except Superseded:
                    raise
                except Exception as error:  # noqa: BLE001  # whatever it is, it is kept with the event, or passes
                    self._log.warning("failed again", error=f"{self._named(parked.event)}: {said(error)}")
                    if blame(error) is Blame.CIRCUMSTANCES:
                        failures += 1
                        break
                    await lot.failed_again(parked, error)
                else:
                    self._freed.set()
                    wake()
                failures = 0

    def _hears(self, index: int, event: RecordedEvent) -> bool:
        if self._tail.link.private and event.type not in self.handler.contract.recorded:
            unknown = Unreadable(
                f"{event.type} at position {event.position} is no event of this build's contract; deploy the build "
                "that knows it"
            )
            raise EventFailed(index, unknown)
        return self.handler.hears(event)

    def _after(self, store: Store, event: RecordedEvent) -> Checkpoint:
        return checkpoint_at(store.at.log_id or self._tail.log_id, self._tail.link.number(event), event)

    def _named(self, event: RecordedEvent) -> str:
        return f"{event.type} at position {self._tail.link.number(event)}"

    def _set_aside(self, event: RecordedEvent, key: str, error: str = "", trace: str = "", tries: int = 0) -> Parked:
        return Parked(
            position=self._tail.link.number(event),
            key=key,
            event=event,
            error=error,
            trace=trace,
            tries=tries,
            parked_at=dt.datetime.now(dt.UTC),
        )


def _first(error: Exception) -> Exception:
    """Give the first of the errors that a group of tasks ended with."""
    return _first(error.exceptions[0]) if isinstance(error, ExceptionGroup) else error  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType]


def _unexpected(error: Exception) -> Exception | None:
    """Give an error whose place in the code helps: it is the handler's, or ours."""
    return None if isinstance(error, CeqsError) or blame(error) is Blame.CIRCUMSTANCES else error
