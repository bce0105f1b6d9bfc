"""The log that a projection folds, as far as its answers are concerned: the own one, or what another context tells.

                   own                                    of another context
at least           what a token has led to here           the public position at which it is public there
as of              a position of the log, a time          a public position, a position of its log, a time
how old            against the own head                   against its public head, as far as its server says it
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import Protocol

from ceqs.contract import Moment, encode_token, public_of
from ceqs.errors import Behind, Unavailable
from ceqs.log import Head, LogReader
from ceqs.queries._ages import Aged, Ages, trailers_of
from ceqs.queries._hops import Hops, Told
from ceqs.queries._models import Checkpoint, ModelReader
from ceqs.queries._moments import position_of, time_of
from ceqs.v1.answers_pb2 import Age


class Folded(Protocol):
    """A log that a projection folds."""

    async def least(self, token: Mapping[str, int], patience: float) -> int:
        """Give the position that an answer must include which includes what a token says; 0 for any.

        Waits at most `patience` seconds for what has to happen elsewhere. Raises Behind, Unavailable and Expired.
        """
        ...

    async def position_of(self, moment: Moment, least: int = 0) -> int:
        """Give the last position that belongs to a moment, of a log that is to have reached `least`.

        Raises Behind where it has not, OutOfRange where the moment is to come, Invalid where it is none of this log,
        and Unavailable where nobody says.
        """
        ...

    async def aged(self, at: Checkpoint) -> Aged:
        """Give the age of an answer from a snapshot that was read before."""
        ...


class OwnLog:
    """The log of the context."""

    def __init__(self, log: LogReader, hops: Hops) -> None:
        self._log, self._hops, self._ages = log, hops, Ages(log)

    async def least(self, token: Mapping[str, int], patience: float) -> int:
        """Give the position at which all that a token says has arrived, once the log is there."""
        least = await self._hops.arrived(token, patience) if token else 0
        if least:
            # The model cannot be where the log is not yet: so nobody looks at it in vain.
            await self._log.wait(least - 1, patience)
        return least

    async def position_of(self, moment: Moment, least: int = 0) -> int:
        """Give the position of a moment."""
        head = await self._log.head()
        require(self._log.name, head.position, least)
        return await position_of(moment, self._log, head)

    async def aged(self, at: Checkpoint) -> Aged:
        """Give the age. Read after the snapshot, the head is never behind the answer."""
        return await self._ages.of(await self._log.head(), at.position, at.recorded_at, parked=at.parked)


class ToldLog:
    """What another context tells: its public events, counted by public positions."""

    def __init__(self, told: Told, model: ModelReader, own: LogReader, hops: Hops) -> None:
        self._told, self._model, self._own, self._hops = told, model, own, hops
        self._ages = Ages(told)
        self._log_id = ""
        """Of the log that the model has folded."""
        self._head: Head | None = None
        self._said: dt.datetime | None = None
        """When the other context has last said where it stands, and where that was."""

    async def least(self, token: Mapping[str, int], patience: float) -> int:
        """Give the public position at which all that a token says is public there.

        What it says of the own log is no concern: the model has nothing of it. A public position, as the model's own
        answers carry it, is known without asking.
        """
        foreign = self._hops.foreign(token)
        if not foreign:
            return 0
        if not self._log_id:
            async with self._model.session() as (_, at):
                self._log_id = at.log_id
        if set(foreign) == {public_of(self._log_id)}:
            return foreign[public_of(self._log_id)]
        return await self._hops.published(self._told.name, foreign, patience)

    async def position_of(self, moment: Moment, least: int = 0) -> int:
        """Give the public position of a moment: of a position of either log, what was public by then."""
        head = await self._told.head()
        require(self._told.name, head.position, least)
        if isinstance(moment, Mapping) and head.log_id not in moment:
            there = {log_id: at for log_id, at in moment.items() if public_of(log_id) == head.log_id}
            if there:
                return await self._told.counted(*there.values())
            if self._own.log_id in moment:
                moment = await time_of(moment, self._own, await self._own.head())
        return await position_of(moment, self._told, head)

    async def aged(self, at: Checkpoint) -> Aged:
        """Give the age, as far as it is known."""
        self._log_id = at.log_id
        try:
            head = await self._told.head()
            if at.log_id and public_of(at.log_id) != head.log_id:
                return self._unknown(at)  # the other context has another log by now, which the projector says too
            self._head, self._said = head, dt.datetime.now(dt.UTC)
            return await self._ages.of(head, at.position, at.recorded_at, parked=at.parked)
        except Unavailable:
            return self._unknown(at)

    def _unknown(self, at: Checkpoint) -> Aged:
        """Give the age of an answer of which nobody says whether it lacks anything."""
        now = dt.datetime.now(dt.UTC)
        known = self._head.position if self._head else 0
        level = self._said if at.position >= known else None
        since = max((time for time in (at.recorded_at, level) if time is not None), default=now)
        age = Age(
            token=encode_token({public_of(at.log_id): at.position}) if at.log_id else "",
            lag_events=max(0, known - at.position),
            lag_seconds=max(0.0, (now - since).total_seconds()),
            parked=at.parked,
            behind=self._told.name,
        )
        if at.recorded_at is not None:
            age.recorded_at.FromDatetime(at.recorded_at)
        return Aged(age, trailers_of(age))


def require(model: str, position: int, least: int) -> None:
    """Raise Behind where a model, or a log, is not where it must be at least."""
    if position < least:
        raise Behind(
            f"{model} stands at position {position}, {least - position} before {least}, which the query asks for",
            metadata={"position": str(position), "asked": str(least)},
        )
