"""Keeping the places of one projection fed, and letting the newest answer once it is caught up."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from ceqs.errors import Unavailable
from ceqs.projectors._handlers import Handler
from ceqs.projectors._place import Place
from ceqs.projectors._places import Places
from ceqs.projectors._status import HandlerStatus, missing
from ceqs.projectors._worker import Worker

LOOK, LOOK_SOON = 0.5, 0.02
"""Seconds between two looks at the places: usually, and while one is about to take over."""

_process_log = structlog.get_logger("ceqs.projectors")


class Keeper:
    """Runs a worker for each place of a projection that this build can feed."""

    def __init__(self, handler: Handler, places: Places, work: Callable[[Handler, Place], Worker]) -> None:
        self.handler = handler
        self.places = places
        self._work = work
        self._workers: dict[Place, Worker] = {}
        self._serving: Place | None = None

    def status(self) -> HandlerStatus:
        """Say where the place stands that answers, or else the newest."""
        if self._serving in self._workers:
            return self._workers[self._serving].status()
        newest = next(iter(reversed(self._workers.values())), None)
        return newest.status() if newest else missing(self.handler)

    async def run(self) -> None:
        """Feed the places until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                while True:
                    pause = LOOK
                    try:
                        for place in await self._fed():
                            if place not in self._workers:
                                worker = self._workers[place] = self._work(self.handler, place)
                                group.create_task(worker.run(), name=f"feed {place}")
                        pause = LOOK if await self._take_over() else LOOK_SOON
                    except Unavailable as error:
                        _process_log.warning("the places cannot be looked at", places=str(self.places), error=error)
                    await asyncio.sleep(pause)
        finally:
            await self.places.close()

    async def _fed(self) -> list[Place]:
        """Give the places that this build can feed; the first of its version is made where there is none."""
        mine = [place for place in await self.places.existing() if place.version == self.handler.version]
        return mine or [self.places.at(self.handler.version)]

    async def _take_over(self) -> bool:
        """Let the newest place answer as soon as it is caught up. Say whether it does."""
        newest = list(self._workers)[-1]
        self._serving = await self.places.serving()
        if self._serving == newest:
            return True
        if self._workers[newest].caught_up and await self.places.serve(newest, instead_of=self._serving):
            _process_log.info("serves", place=str(newest), instead_of=str(self._serving or "nothing"))
            self._serving = newest
            return True
        return False
