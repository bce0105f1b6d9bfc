"""Batches of a log, kept for the next reader: what is recorded never changes, and many read it from the beginning."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import replace

from ceqs.log import Batch, LogReader, Span

LIMIT = 2000
"""Events in a batch at most."""
MOST_BYTES = 64 * 1024 * 1024
"""How much is kept of a log; what was not asked for the longest goes first."""


class Pages:
    """Reads a log in batches, and keeps those that anybody else who reads everything will ask for."""

    def __init__(self, log: LogReader) -> None:
        self._log = log
        self._kept: OrderedDict[tuple[bool, int], Batch] = OrderedDict()
        self._bytes = 0

    async def read(self, span: Span) -> Batch:
        """Read the next batch of a span.

        One that is read forwards and unfiltered ends at a multiple of LIMIT, so that readers who began in different
        places meet there.
        """
        if span.query.items or span.backwards:
            return await self._log.read_batch(replace(span, limit=min(LIMIT, span.limit)))
        key, limit = (span.public, span.after), LIMIT - span.after % LIMIT
        kept = self._kept.get(key)
        if kept is not None and kept.through <= span.until and kept.events <= span.limit:
            self._kept.move_to_end(key)
            return kept
        batch = await self._log.read_batch(replace(span, limit=min(limit, span.limit)))
        # Ended by the head or by the reader's own bounds, it is of no use to others.
        if limit <= span.limit and (batch.events == limit or batch.through < span.until):
            self._keep(key, batch)
        return batch

    def _keep(self, key: tuple[bool, int], batch: Batch) -> None:
        before = self._kept.pop(key, None)
        self._kept[key] = batch
        self._bytes += len(batch.data) - (len(before.data) if before else 0)
        while self._bytes > MOST_BYTES:
            _, oldest = self._kept.popitem(last=False)
            self._bytes -= len(oldest.data)
