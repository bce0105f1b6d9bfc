"""Batches of a log for those who want to read today's events only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ceqs.log import Batch, LogReader, Query, QueryItem, Span, StoredEvent, splice
from ceqs.model import EventDecoder
from ceqs.server._pages import LIMIT
from ceqs.v1.events_pb2 import RecordedEvent


class Upcast:
    """Reads a log in batches, in which events of earlier versions are those of the newest."""

    def __init__(self, log: LogReader, decoder: EventDecoder) -> None:
        self._log = log
        self._decoder = decoder

    def query(self, query: Query) -> Query:
        """Give a query that finds the types which were replaced as well, where what replaced them is meant."""
        return Query(tuple(QueryItem(self._recorded_as(item.types), item.tags) for item in query.items))

    async def read(self, span: Span) -> Batch:
        """Read the next batch of a span. Raises Unreadable where it has an event that cannot be upcast."""
        span = replace(span, limit=min(LIMIT, span.limit))
        found = await self._log.read(
            after=span.after,
            until=span.until,
            limit=span.limit,
            query=self.query(span.query),
            public=span.public,
            backwards=span.backwards,
        )
        envelopes = self.envelopes(found.events)
        return Batch(splice(envelopes), len(envelopes), found.through)

    def envelopes(self, events: Sequence[StoredEvent]) -> Sequence[bytes]:
        """Give the envelopes of events, upcast where they are of earlier forms. Raises Unreadable."""
        evolved = self._decoder.evolved
        return [self._renewed(event.envelope) if event.type in evolved else event.envelope for event in events]

    def _renewed(self, envelope: bytes) -> bytes:
        return self._decoder.renewed(RecordedEvent.FromString(envelope)).SerializeToString()

    def _recorded_as(self, types: frozenset[str]) -> frozenset[str]:
        events = self._decoder.contract.events
        return types.union(*(events[name].recorded_as for name in types if name in events))
