"""States as positions: cached, folded on by the events after them, never trusted as truths."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from weakref import WeakValueDictionary

from google.protobuf.message import Message

from ceqs.errors import Misconfigured
from ceqs.log import LogReader, StoredEvent
from ceqs.model import Boundary, Context
from ceqs.v1.events_pb2 import RecordedEvent

_Key = tuple[str, tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Known:
    """A state as of a position of the log. Shared: whoever folds on folds a copy of the message."""

    state: Message
    position: int
    events: int
    """How many events it has folded."""


class States:
    """Loads the states of one context from its log, and keeps those that were used last."""

    def __init__(self, context: Context, log: LogReader, *, capacity: int = 10_000) -> None:
        self._context = context
        self._log = log
        self._capacity = capacity
        self._kept: OrderedDict[_Key, Known] = OrderedDict()
        self._loading: WeakValueDictionary[_Key, asyncio.Lock] = WeakValueDictionary()

    async def load(self, boundary: Boundary, least: int = 0) -> Known:
        """Give the state as of the position `least` or a later one.

        What is kept is given if it stands there already; it may be older than the log's head, so whoever decides on it
        must judge the decision against the head. Many that ask for one state at once load it once.
        """
        known = self._find(boundary, least)
        if known is not None:
            return known
        lock = self._loading.setdefault(boundary.key, asyncio.Lock())
        async with lock:
            known = self._find(boundary, least)
            if known is None:
                known = await self._read(boundary, least)
                self.keep(boundary, known)
            return known

    def initial(self, boundary: Boundary) -> Known:
        """Give the state before the first event of its boundary."""
        return Known(self._context.folders[boundary.state.name].initial(boundary.values()), 0, 0)

    def is_kept(self, boundary: Boundary) -> bool:
        """Whether the state of a boundary is kept, as of whatever position."""
        return boundary.key in self._kept

    def fold(self, boundary: Boundary, known: Known, events: Sequence[Message]) -> Known:
        """Give the state after further events of its boundary; the position stays, and so does the `known` one."""
        if not events:
            return known
        state = type(known.state)()
        state.CopyFrom(known.state)
        folder = self._context.folders[boundary.state.name]
        for event in events:
            folder.apply(state, event)
        return Known(state, known.position, known.events + len(events))

    def keep(self, boundary: Boundary, known: Known) -> None:
        """Keep a state for later, unless a later one is kept."""
        kept = self._kept.get(boundary.key)
        if kept is None or kept.position < known.position:
            self._kept[boundary.key] = known
            self._kept.move_to_end(boundary.key)
            if len(self._kept) > self._capacity:
                self._kept.popitem(last=False)

    def forget(self, boundary: Boundary) -> None:
        """Drop what is kept of a boundary: it is loaded from its first event again."""
        self._kept.pop(boundary.key, None)

    def _find(self, boundary: Boundary, least: int) -> Known | None:
        known = self._kept.get(boundary.key)
        if known is None or known.position < least:
            return None
        self._kept.move_to_end(boundary.key)
        return known

    async def _read(self, boundary: Boundary, least: int) -> Known:
        known = self._kept.get(boundary.key)
        if known is None:
            known = self.initial(boundary)
        try:
            while True:
                part = await self._log.read(after=known.position, query=boundary.query)
                known = self.fold(boundary, known, list(self._decoded(part.events)))
                known = replace(known, position=max(known.position, part.through))
                # A slice that ends with a matching event may have been cut there.
                if not part.events or part.through > part.events[-1].position or known.position >= least > 0:
                    return known
        except Exception:
            self.forget(boundary)
            raise

    def _decoded(self, events: Iterable[StoredEvent]) -> Iterable[Message]:
        types = self._context.contract.events
        for stored in events:
            event = types.get(stored.type)
            if event is None:
                raise Misconfigured(f"the log holds {stored.type} at {stored.position}, which this build does not know")
            yield event.message.FromString(RecordedEvent.FromString(stored.envelope).payload)
