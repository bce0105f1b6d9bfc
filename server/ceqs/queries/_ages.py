"""How old an answer is."""

from __future__ import annotations

import datetime as dt
import time

from ceqs.contract import encode_token
from ceqs.log import Head, LogReader
from ceqs.v1.answers_pb2 import Age
from ceqs.v1.events_pb2 import RecordedEvent


async def age_of(log: LogReader, head: Head, position: int, recorded_at: dt.datetime | None, *, parked: int = 0) -> Age:
    """Give the age of an answer that includes the log up to `position`, against the log's head.

    `recorded_at`: when the event of that position was recorded; None where the answer includes none.
    `parked`: how many events up to `position` it does not include, for they could not be applied.
    """
    age = Age(token=encode_token({head.log_id: position}), parked=parked)
    if recorded_at is not None:
        age.recorded_at.FromDatetime(recorded_at)
    if head.position > position:
        age.lag_events = head.position - position
        missing = (await log.read(after=position, limit=1)).events
        if missing:
            waiting_since = RecordedEvent.FromString(missing[0].envelope).recorded_at
            age.lag_seconds = max(0.0, (time.time_ns() - waiting_since.ToNanoseconds()) / 1e9)
    return age
