"""States as positions: cached, folded on by the events after them, never trusted as truths."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from weakref import WeakValueDictionary

from google.protobuf.message import Message

from ceqs.errors import Misconfigured
from ceqs.log import LogReader, Slice, StoredEvent, Wanted
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
                known = self._kept_or_initial(boundary)
                part = await self._log.read(after=known.position, query=boundary.query)
                known = await self._read_on(boundary, known, part)
            return known

    async def load_all(self, wanted: Mapping[object, tuple[Boundary, int]]) -> Mapping[object, Known | Exception]:
        """Give several states, by the keys of their boundaries; an error in the place of one that cannot be folded.

        Each is as of its position `least` or a later one, as `load` gives it.
        """
        found: dict[object, Known | Exception] = {}
        missing: list[tuple[Boundary, Known]] = []
        for key, (boundary, least) in wanted.items():
            known = self._find(boundary, least)
            if known is not None:
                found[key] = known
            else:
                missing.append((boundary, self._kept_or_initial(boundary)))
        if missing:
            parts = await self._log.read_all([Wanted(known.position, boundary.query) for boundary, known in missing])
            for (boundary, known), part in zip(missing, parts, strict=True):
                try:
                    found[boundary.key] = await self._read_on(boundary, known, part)
                except Exception as error:  # noqa: BLE001  # it is theirs who asked for this state
                    found[boundary.key] = error
        return found

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

    def _kept_or_initial(self, boundary: Boundary) -> Known:
        kept = self._kept.get(boundary.key)
        return kept or Known(self._context.folders[boundary.state.name].initial(boundary.values()), 0, 0)

    async def _read_on(self, boundary: Boundary, known: Known, part: Slice) -> Known:
        """Fold a part of the log and what comes after it, and keep the state."""
        try:
            while True:
                known = self.fold(boundary, known, list(self._decoded(part.events)))
                known = replace(known, position=max(known.position, part.through))
                # A slice that ends with a matching event may have been cut there.
                if not part.events or part.through > part.events[-1].position:
                    break
                part = await self._log.read(after=known.position, query=boundary.query)
        except Exception:
            self.forget(boundary)
            raise
        self.keep(boundary, known)
        return known

    def _decoded(self, events: Iterable[StoredEvent]) -> Iterable[Message]:
        types = self._context.contract.events
        for stored in events:
            event = types.get(stored.type)
            if event is None:
                raise Misconfigured(f"the log holds {stored.type} at {stored.position}, which this build does not know")
            yield event.message.FromString(RecordedEvent.FromString(stored.envelope).payload)
