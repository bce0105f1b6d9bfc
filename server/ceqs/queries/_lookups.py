"""Looking up rows of a keyed model: all that are asked for at a time are read together, as of one position."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

from ceqs.contract import KeyedModel
from ceqs.log import Shared, linger
from ceqs.model import Key
from ceqs.projectors import read_rows
from ceqs.queries._ages import Aged
from ceqs.queries._models import Checkpoint, ModelReader

FEW = 1
"""Lookups of one look that are not yet a load."""


@dataclass(frozen=True, slots=True)
class Look:
    """What was found at one look at a model."""

    rows: Mapping[Key, bytes]
    """The messages that there are, by their keys."""
    position: int
    aged: Aged


class Lookups(Shared[Key, Look]):
    """Looks at one keyed model for all who ask for the row of a key.

    Whoever asks while a look is under way is part of the next one: nothing is older than it would be if each looked
    alone, and the more ask, the less each costs. Raises Behind and Unavailable, as the reader does.
    """

    def __init__(self, model: KeyedModel, reader: ModelReader, age: Callable[[Checkpoint], Awaitable[Aged]]) -> None:
        super().__init__(self._look)
        self._model = model
        self._reader = reader
        self._age = age
        self._before = 0
        """How many the last look was for."""

    async def _look(self, keys: Sequence[Key]) -> Sequence[Look]:
        self._before = len(keys)
        async with self._reader.session() as (session, checkpoint):
            rows = await read_rows(await session.connection(), self._model, set(keys))
        # Aged after the snapshot, an answer never seems to be ahead of the log.
        return [Look(rows, checkpoint.position, await self._age(checkpoint))] * len(keys)

    async def _linger(self) -> None:
        """Under load, wait for as long as every tick brings several more."""
        if self._before > FEW:
            await linger(lambda: len(self._waiting))
