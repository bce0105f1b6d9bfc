"""Keeping the places of one projection: feeding those that this build can feed, and letting the newest answer.

A place that is new is filled beside the one that serves, and takes over as soon as it is not behind. Whatever else is
on record, operators and other processes have put there (see `_places`); it is looked at often.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import structlog

from ceqs.errors import Unavailable
from ceqs.projectors._crew import Crew
from ceqs.projectors._handlers import Handler
from ceqs.projectors._place import Place
from ceqs.projectors._places import Known, Places, next_of, shape_of
from ceqs.projectors._status import PAUSED, HandlerStatus, missing
from ceqs.projectors._worker import Worker

LOOK, LOOK_SOON = 0.5, 0.05
"""Seconds between two looks at the places: usually, and while one is about to take over."""
NEAR = 2000
"""So many events behind, a place is about to take over."""

_process_log = structlog.get_logger("ceqs.projectors")


@dataclass(slots=True)
class _Feeding:
    worker: Worker | Crew
    task: asyncio.Task[None]


class Keeper:
    """Keeps the places of one projection, of which this build has one version or more."""

    def __init__(
        self, versions: Sequence[Handler], places: Places, work: Callable[[Handler, Place], Worker | Crew]
    ) -> None:
        self.places = places
        self._handlers = {handler.version: handler for handler in versions}
        self._newest = self._handlers[max(self._handlers)]
        self._shapes = {version: shape_of(handler.metadata) for version, handler in self._handlers.items()}
        self._work = work
        self._fed: dict[Place, _Feeding] = {}
        self._known: Sequence[Known] = ()
        self._serving: Place | None = None
        self._problem = ""

    @property
    def name(self) -> str:
        """The projection's name."""
        return self._newest.name

    def status(self) -> HandlerStatus:
        """Say where the place stands that answers, or else the newest."""
        shown = self._serving if self._serving in self._fed else next(reversed(self._fed), None)
        if shown is not None:
            return self._fed[shown].worker.status()
        obstacles = [obstacle for known in self._known if (obstacle := self._obstacle(known))]
        reason = self._problem or (obstacles[-1] if obstacles else "")
        nothing = missing(self._newest)
        return replace(nothing, state=PAUSED, reason=reason) if reason else nothing

    async def run(self) -> None:
        """Keep the places until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                while True:
                    pause = LOOK
                    try:
                        await self._look(group)
                        pause = LOOK if await self._promote() else LOOK_SOON
                        self._problem = ""
                    except (Unavailable, OSError) as error:
                        if not self._problem:
                            _process_log.warning("the places cannot be looked at", places=str(self.places), error=error)
                        self._problem = str(error)
                    await asyncio.sleep(pause)
        finally:
            await self.places.close()

    async def _look(self, group: asyncio.TaskGroup) -> None:
        """See which places there are, and feed those that are to be fed."""
        known, self._serving = await self.places.known(), await self.places.serving()
        newest = self._newest.version
        higher = self._serving is None or self._serving.version < newest
        if higher and all(k.place.version != newest for k in known):
            await self.places.make(next_of(known, newest, self.places), self._shapes[newest])
            known = await self.places.known()
        wanted = [k.place for k in known if k.place.version in self._handlers and not self._obstacle(k)]
        for place in [place for place in self._fed if place not in wanted]:
            feeding = self._fed.pop(place)
            feeding.task.cancel()
            await asyncio.gather(feeding.task, return_exceptions=True)
            _process_log.info("no longer fed", place=str(place))
        for place in wanted:
            if place not in self._fed:
                worker = self._work(self._handlers[place.version], place)
                self._fed[place] = _Feeding(worker, group.create_task(worker.run(), name=f"feed {place}"))
        if known != self._known:
            for obstacle in [obstacle for one in known if (obstacle := self._obstacle(one))]:
                _process_log.warning(obstacle, projection=self.name)
        self._known = known

    def _obstacle(self, known: Known) -> str:
        """Say why a place is not fed; nothing where it is."""
        label, record = known.place.label, known.record
        if record.dropping:
            return f"{label} is being dropped"
        if record.held:
            return f"{label} was paused by an operator: `ceqs projection resume {self.name}` lets it go on"
        if record.shape != self._shapes.get(known.place.version, record.shape):
            return (
                f"the tables of {self.name} have changed since {label} was made: raise its `version`, or fill it anew: "
                f"`ceqs projection rebuild {self.name}`"
            )
        return ""

    async def _promote(self) -> bool:
        """Let places that have caught up answer. Say whether none is about to."""
        settled = True
        serving = next((k for k in self._known if k.place == self._serving), None)
        for known in self._known:
            feeding = self._fed.get(known.place)
            if feeding is None or known.record.filled:
                continue
            # What is filled beside a place that answers has time, and leaves the machine to those who have none.
            feeding.worker.unhurried = serving is not None and known != serving
            lag = feeding.worker.lag
            if lag is None or lag > 0:
                settled = settled and lag is not None and lag > NEAR
            elif known == serving or (serving and serving.record.made_at > known.record.made_at):
                await self.places.note(known.place, filled=True)
            elif await self.places.switch(known.place):
                await self.places.note(known.place, filled=True)
                _process_log.info("serves", place=str(known.place), instead_of=str(self._serving or "nothing"))
                serving, self._serving = known, known.place
                feeding.worker.unhurried = False
            else:
                settled = False
        return settled
