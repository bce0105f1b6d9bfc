"""The past of a projection: replayed up to a position, and kept for who asks for that one or a later one next."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from ceqs.errors import Behind, TooLarge
from ceqs.log import Numbered
from ceqs.model import EventDecoder, Projection
from ceqs.projectors._fill import fill
from ceqs.projectors._place import Place
from ceqs.projectors._reader import Checkpoint, ModelReader
from ceqs.projectors._scratch import Scratch

STEP = 2_000
"""How many events are replayed between two looks at the limits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PastLimits:
    """What models of the past may take, of each projection."""

    places: int = 4
    """How many are kept."""
    bytes: int = 1024 * 1024 * 1024
    """How large each may become."""
    seconds: float = 60.0
    """How long one replay may take."""
    idle: float = 600.0
    """For how many seconds one is kept that nobody asks."""


@dataclass(slots=True, eq=False)
class _Kept:
    """A model of the past. Nobody writes it while it has readers."""

    place: Place
    reader: ModelReader
    log_id: str = ""
    position: int = 0
    readers: int = 0
    used: float = 0.0


class Past:
    """Models of one projection as of earlier positions of the log that it folds.

    `url` says where, as `place_of` takes it: of the same dialect as the model itself. Needs a running event loop from
    its first use on; `close` it there.
    """

    def __init__(
        self, projection: Projection, decoder: EventDecoder, log: Numbered, url: str, limits: PastLimits | None = None
    ) -> None:
        self._projection, self._decoder = projection, decoder
        self._name = projection.ceqs_name()
        self._log = log
        self._url = url
        self._limits = limits or PastLimits()
        self._scratch: Scratch | None = None
        self._kept: list[_Kept] = []
        self._turn = asyncio.Lock()
        self._replaying: dict[int, asyncio.Task[_Kept]] = {}
        self._reached = 0
        self._sweeping: asyncio.Task[None] | None = None

    @asynccontextmanager
    async def session(
        self,
        position: int,
        timeout: float,  # noqa: ASYNC109  # a bound: the replay goes on
    ) -> AsyncGenerator[tuple[AsyncSession, Checkpoint]]:
        """Give a read-only session on the model as of a position that the log has reached, and its checkpoint.

        Raises Behind where the replay takes longer than `timeout` seconds: it goes on, for who asks again. Raises
        TooLarge where it takes more than the limits, and what the projection raises.
        """
        kept = await self._at(position, timeout)
        try:
            async with kept.reader.session() as found:
                yield found
        finally:
            kept.readers -= 1
            kept.used = time.monotonic()

    async def close(self) -> None:
        """Remove everything."""
        tasks: list[asyncio.Task[Any]] = [*self._replaying.values(), *([self._sweeping] if self._sweeping else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for kept in self._kept:
            await kept.reader.close()
        if self._scratch is not None:
            await self._scratch.close()

    async def _at(self, position: int, timeout: float) -> _Kept:  # noqa: ASYNC109  # as above
        """Give the model as of a position, with one reader more."""
        until = time.monotonic() + timeout
        while True:
            kept = self._find(position)
            if kept is not None:
                kept.readers += 1
                return kept
            task = self._replaying.get(position)
            if task is None:
                task = self._replaying[position] = asyncio.create_task(self._replay(position))
                task.add_done_callback(lambda _: self._replaying.pop(position, None))
            await asyncio.wait([task], timeout=max(0.0, until - time.monotonic()))
            if not task.done():
                raise Behind(
                    f"{self._name} is being replayed as of position {position} and stands at {self._reached}",
                    metadata={"position": str(self._reached), "asked": str(position)},
                )
            task.result()

    def _find(self, position: int) -> _Kept | None:
        return next((kept for kept in self._mine() if kept.position == position), None)

    def _mine(self) -> list[_Kept]:
        """Give those of the log as it is now: that of another context may be replaced while this goes on."""
        return [kept for kept in self._kept if kept.log_id == self._log.log_id]

    async def _replay(self, position: int) -> _Kept:
        """Make the model as of a position: one after the other, so that a later one continues from an earlier one."""
        async with self._turn:
            kept = self._find(position) or await self._begin(position)
            began = time.monotonic()
            try:
                await self._go_on(kept, position, began)
            except BaseException:
                await self._remove(kept)
                raise
            kept.used = time.monotonic()
            if kept not in self._kept:
                self._kept.append(kept)
            if self._sweeping is None:
                self._sweeping = asyncio.create_task(self._sweep())
            return kept

    async def _begin(self, position: int) -> _Kept:
        """Give the model that is to be replayed on: the nearest earlier one, or a copy of it, or a new one."""
        scratch = await self._opened()
        earlier = sorted((kept for kept in self._mine() if kept.position < position), key=lambda kept: -kept.position)
        for nearest in earlier[:1]:
            if copy := await scratch.copied(nearest.place):
                await self._make_room()
                return _Kept(copy, ModelReader(copy), nearest.log_id, nearest.position)
        for idle in earlier:
            if not idle.readers:
                self._kept.remove(idle)
                return idle
        await self._make_room()
        place = scratch.place(self._name)
        return _Kept(place, ModelReader(place))

    async def _go_on(self, kept: _Kept, position: int, began: float) -> None:
        scratch, limits = await self._opened(), self._limits
        filled = False
        while not filled or kept.position < position:
            self._reached = kept.position
            at = await fill(kept.place, self._projection, self._decoder, self._log, min(position, kept.position + STEP))
            kept.log_id, kept.position, filled = at.log_id, at.position, True
            said = f"{self._name} as of position {position} is beyond the limits: at position {at.position} it"
            if (size := await scratch.size(kept.place)) > limits.bytes:
                raise TooLarge(f"{said} has {size:,} bytes (scratch_megabytes)")
            if (took := time.monotonic() - began) > limits.seconds and at.position < position:
                raise TooLarge(f"{said} has taken {took:.0f} s (scratch_seconds)")

    async def _opened(self) -> Scratch:
        if self._scratch is None:
            self._scratch = await Scratch.open(self._url)
        return self._scratch

    async def _make_room(self) -> None:
        """Remove those that were asked for least lately, so that there is room for one more."""
        for kept in sorted(self._kept, key=lambda kept: kept.used):
            if len(self._kept) >= self._limits.places and not kept.readers:
                await self._remove(kept)

    async def _sweep(self) -> None:
        """Remove what nobody asks for any more."""
        while True:
            await asyncio.sleep(self._limits.idle / 4)
            async with self._turn:
                for kept in list(self._kept):
                    if not kept.readers and time.monotonic() - kept.used > self._limits.idle:
                        await self._remove(kept)

    async def _remove(self, kept: _Kept) -> None:
        if kept in self._kept:
            self._kept.remove(kept)
        await kept.reader.close()
        await (await self._opened()).drop(kept.place)
