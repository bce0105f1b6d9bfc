"""Filling a place from a log up to a position, and no further: for answers as of that position."""

from __future__ import annotations

import asyncio

from ceqs.errors import Internal, OutOfRange
from ceqs.log import Numbered
from ceqs.model import EventDecoder, Projection
from ceqs.projectors._keyed import projecting
from ceqs.projectors._place import Place
from ceqs.projectors._reader import Checkpoint, checkpoint_at
from ceqs.projectors._store import Store
from ceqs.v1.events_pb2 import RecordedEvent

BATCH = 500
"""How many events one transaction takes at most."""


async def fill(place: Place, projection: Projection, decoder: EventDecoder, log: Numbered, upto: int) -> Checkpoint:
    """Fold the log that a projection follows into a place, from where that stands up to a position.

    Killed and called again it goes on, and a later position continues from an earlier one. `upto`: 1-based, inclusive.
    Gives where the place stands then, which is `upto`. Raises OutOfRange where the place is beyond it, has another log
    or the log is not there yet, Superseded where another process writes the place, and what the projection raises: no
    event is skipped.
    """
    handler = projecting(projection, decoder)
    async with Store.open(place, log.name, handler.metadata) as store:
        if not store.at.log_id:
            await store.adopt(log.log_id)
        if store.at.log_id != log.log_id or store.at.position > upto:
            raise OutOfRange(f"{place} stands at position {store.at.position} of {store.at.log_id}, not before {upto}")
        while (position := store.at.position) < upto:
            stored = (await log.read(after=position, until=upto, limit=BATCH)).events
            if not stored:
                raise OutOfRange(f"the log of {log.name} ends at position {position}, before {upto}")
            if stored[0].position != position + 1:
                raise Internal(f"the log of {log.name} gives {stored[0].position} where {position + 1} is due")
            events = [RecordedEvent.FromString(event.envelope) for event in stored]
            heard = [event for event in events if handler.hears(event)]
            to = checkpoint_at(log.log_id, stored[-1].position, events[-1])
            async with (
                store.advance(to, skipped=len(events) - len(heard)) as session,
                handler.batch(session, heard) as apply,
            ):
                for event in heard:
                    await apply(event)
                    # SQLite never waits: a server that fills a place has others to answer.
                    await asyncio.sleep(0)
    return store.at
