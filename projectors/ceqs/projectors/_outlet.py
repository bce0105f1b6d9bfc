"""What leaves a place: the calls of its outbox, and the timers that turn into calls."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Callable

import structlog

from ceqs.projectors._clock import Clock
from ceqs.projectors._dispatcher import Dispatcher, Sender
from ceqs.projectors._outbox import REFUSED, Outcome, Outgoing
from ceqs.projectors._store import Store

_process_log = structlog.get_logger("ceqs.projectors")

Heard = Callable[[dt.datetime], dt.datetime]
"""Gives, for a time, up to when a handler has heard everything."""


class Outlet:
    """Fires the timers of a place and makes the calls of its outbox."""

    def __init__(self, store: Store, sender: Sender, clock: Clock, heard: Heard) -> None:
        self._store = store
        self._sender = sender
        self._clock = clock
        self._heard = heard
        self._dispatcher = Dispatcher(store.outbox, self._send)

    @property
    def problem(self) -> str:
        """Why calls are being repeated; empty where none is."""
        return self._sender.problem

    async def _send(self, call: Outgoing) -> Outcome:
        outcome = await self._sender.send(call)
        if outcome.kind in REFUSED:
            place = self._store.place
            _process_log.warning(
                "refused, and kept for somebody to see to: ceqs outbox list",
                handler=f"{place.context}/{place.name}",
                rpc=call.path,
                keys=list(call.keys),
                outcome=outcome.name,
                why=outcome.message,
            )
        return outcome

    async def run(self) -> None:
        """Go on until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._dispatcher.run())
            group.create_task(self._store.timers.run(self._clock, self._heard, self._fired))

    def wake(self) -> None:
        """Say that calls have been put into the outbox."""
        self._dispatcher.wake()

    def _fired(self, calls: int) -> None:
        self._store.outbox.unsent += calls
        self._dispatcher.wake()
