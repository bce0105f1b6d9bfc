"""How old an answer is."""

from __future__ import annotations

import datetime as dt
import time
from dataclasses import dataclass
from typing import TypeAlias

from ceqs.contract import encode_token
from ceqs.log import Head, Numbered
from ceqs.v1.answers_pb2 import Age
from ceqs.v1.events_pb2 import RecordedEvent

Trailers: TypeAlias = tuple[tuple[str, str], ...]
_KEPT = 64


@dataclass(frozen=True, slots=True)
class Aged:
    """An age, and the trailers that say it. Shared: whoever changes the message changes a copy."""

    age: Age
    trailers: Trailers


class Ages:
    """The ages of answers from one log. Of answers that lack nothing, equal ones are made once."""

    def __init__(self, log: Numbered) -> None:
        self._log = log
        self._kept: dict[tuple[str, int, dt.datetime | None, int], Aged] = {}

    async def of(self, head: Head, position: int, recorded_at: dt.datetime | None, *, parked: int = 0) -> Aged:
        """Give the age of an answer that includes the log up to `position`, against the log's head.

        `recorded_at`: when the event of that position was recorded; None where the answer includes none.
        `parked`: how many events up to `position` it does not include, for they could not be applied.
        """
        key = head.log_id, position, recorded_at, parked
        if head.position <= position and (kept := self._kept.get(key)) is not None:
            return kept
        age = Age(token=encode_token({head.log_id: position}), parked=parked)
        if recorded_at is not None:
            age.recorded_at.FromDatetime(recorded_at)
        if head.position > position:
            age.lag_events = head.position - position
            missing = (await self._log.read(after=position, limit=1)).events
            if missing:
                waiting_since = RecordedEvent.FromString(missing[0].envelope).recorded_at
                age.lag_seconds = max(0.0, (time.time_ns() - waiting_since.ToNanoseconds()) / 1e9)
            return Aged(age, trailers_of(age))
        if len(self._kept) >= _KEPT:
            self._kept.clear()
        aged = self._kept[key] = Aged(age, trailers_of(age))
        return aged


def trailers_of(age: Age) -> Trailers:
    """Give the trailers that say an age."""
    trailers = [
        ("ceqs-token", age.token),
        ("ceqs-lag", str(age.lag_events)),
        ("ceqs-lag-seconds", f"{age.lag_seconds:.3f}"),
        ("ceqs-parked", str(age.parked)),
    ]
    if age.behind:
        trailers.append(("ceqs-behind", age.behind))
    if age.HasField("recorded_at"):
        trailers.append(("ceqs-recorded-at", age.recorded_at.ToJsonString()))
    return tuple(trailers)
