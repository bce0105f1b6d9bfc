"""Several workers for one place, each with a share of its keys."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Sequence
from dataclasses import replace

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from ceqs.projectors._place import Place, dispose
from ceqs.projectors._status import CATCHING_UP, LIVE, PAUSED, STAND_BY, STOPPED, HandlerStatus
from ceqs.projectors._tables import CHECKPOINT
from ceqs.projectors._worker import Worker

APART = 0.2
"""Seconds between the starts of two workers: processes that begin together come to share the work."""
LOOK = 0.25
"""Seconds between two looks at where the place stands, while others write a part of it."""
_WORST_FIRST = (STOPPED, PAUSED, CATCHING_UP, LIVE, STAND_BY)


class Crew:
    """Runs the workers of all shares of a place. Those that another process runs stand by."""

    def __init__(self, workers: Sequence[Worker]) -> None:
        self.handler = workers[0].handler
        self.place = workers[0].place
        self._workers = workers
        self._looked: int | None = None

    @property
    def name(self) -> str:
        """The handler's name."""
        return self.handler.name

    @property
    def unhurried(self) -> bool:
        """Rest between batches; see Pace."""
        return self._workers[0].unhurried

    @unhurried.setter
    def unhurried(self, value: bool) -> None:
        for worker in self._workers:
            worker.unhurried = value

    @property
    def lag(self) -> int | None:
        """How many events of its log the place lacks, whoever writes it; None where that is not known."""
        lags = [worker.lag for worker in self._workers]
        known = [lag for lag in lags if lag is not None]
        if len(known) == len(lags):
            return max(known)
        return self._looked if known else None

    def status(self) -> HandlerStatus:
        """Say where the handler stands: as the worker that is behind all others, with the worst of states."""
        found = [(worker.share, worker.status()) for worker in self._workers]
        mine = [(share, one) for share, one in found if one.state != STAND_BY] or found
        share, worst = min(mine, key=lambda one: (_WORST_FIRST.index(one[1].state), one[1].position))
        least = min((one for _, one in mine), key=lambda one: one.position)
        return replace(
            least,
            state=worst.state,
            reason=f"{share}: {worst.reason}" if worst.reason else "",
            skipped=sum(one.skipped for _, one in mine),
            parked=sum(one.parked for _, one in mine),
        )

    async def run(self) -> None:
        """Work until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._look(self.place), name=f"look at {self.place}")
            for worker in random.sample(self._workers, len(self._workers)):
                group.create_task(worker.run(), name=f"feed {self.place}, {worker.share}")
                await asyncio.sleep(APART)

    async def _look(self, place: Place) -> None:
        """Look at where the place stands for as long as other processes write a part of it."""
        engine, least = place.reading_engine(), sa.select(sa.func.min(CHECKPOINT.c.position))
        try:
            while True:
                await asyncio.sleep(LOOK)
                lags = [worker.lag for worker in self._workers]
                head = max(worker.status().head or 0 for worker in self._workers)
                if None not in lags or not head:
                    continue
                self._looked = None
                with contextlib.suppress(DBAPIError, OSError):
                    async with engine.connect() as connection:
                        self._looked = max(0, head - ((await connection.execute(least)).scalar_one() or 0))
        finally:
            await dispose(engine)
