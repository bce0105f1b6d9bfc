"""States as positions: cached, folded on by the events after them, never trusted as truths."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from weakref import WeakValueDictionary

from google.protobuf.message import Message

from ceqs.contract import Persistence, StateType, value
from ceqs.log import BEYOND, Keep, LogReader, Slice, StateKey, Wanted
from ceqs.model import Boundary, Context


@value()
class Known:
    """A state as of a position of the log. Shared: whoever folds on folds a copy of the message."""

    state: Message
    position: int
    events: int
    """How many events it has folded."""
    kept: int = 0
    """How many those were when it was last kept in the log."""


class States:
    """Loads the states of one context from its log, and keeps those that were used last."""

    def __init__(self, context: Context, log: LogReader, *, capacity: int = 10_000) -> None:
        self._context = context
        self._log = log
        self._capacity = capacity
        self._intervals = {name: every for name, folder in context.folders.items() if (every := _every(folder.state))}
        self._fingerprints = {name: context.folders[name].fingerprint for name in self._intervals}
        self._kept: OrderedDict[str, Known] = OrderedDict()
        self._loading: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

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
                (known,) = await self._starts([boundary])
                part = await self._log.read(after=known.position, query=boundary.query)
                known = await self._read_on(boundary, known, part)
            return known

    async def load_all(
        self, wanted: Iterable[Boundary], least: Mapping[str, int] = MappingProxyType({})
    ) -> Mapping[str, Known | Exception]:
        """Give several states, by the keys of their boundaries; an error in the place of one that cannot be folded.

        Each is given as `load` gives it, `least` by the keys of some.
        """
        found: dict[str, Known | Exception] = {}
        absent: list[Boundary] = []
        for boundary in wanted:
            known = self._find(boundary, least.get(boundary.key, 0))
            if known is not None:
                found[boundary.key] = known
            else:
                absent.append(boundary)
        if absent:
            missing = list(zip(absent, await self._starts(absent), strict=True))
            parts = await self._log.read_all([Wanted(known.position, boundary.query) for boundary, known in missing])
            for (boundary, known), part in zip(missing, parts, strict=True):
                try:
                    found[boundary.key] = await self._read_on(boundary, known, part)
                except Exception as error:  # noqa: BLE001  # it is theirs who asked for this state
                    found[boundary.key] = error
        return found

    async def load_as_of(self, boundary: Boundary, position: int) -> Known:
        """Give the state as of a position that the log has reached. What is kept of the present stays as it is.

        Folding begins with what is at hand or kept in the log, where that is no later than the position.
        """
        (known,) = await self._starts([boundary], position)
        part = await self._log.read(after=known.position, query=boundary.query, until=position)
        return replace(await self._fold_on(boundary, known, part, position), position=position)

    def fold(self, boundary: Boundary, known: Known, events: Sequence[Message]) -> Known:
        """Give the state after further events of its boundary; the position stays, and so does the `known` one."""
        if not events:
            return known
        state = type(known.state)()
        state.CopyFrom(known.state)
        folder = self._context.folders[boundary.state.name]
        for event in events:
            folder.apply(state, event)
        return Known(state, known.position, known.events + len(events), known.kept)

    def keep(self, boundary: Boundary, known: Known) -> None:
        """Keep a state for later, unless a later one is kept."""
        kept = self._kept.get(boundary.key)
        if kept is None or kept.position < known.position:
            # One that is there was moved to the end when it was looked for.
            self._kept[boundary.key] = known
            if kept is None and len(self._kept) > self._capacity:
                self._kept.popitem(last=False)

    def keep_in_log(self, boundary: Boundary, after: Known) -> tuple[Known, Keep | None]:
        """Give the state after a decision, and what the log is to keep of it, where its contract wants that now."""
        every = self._intervals.get(boundary.state.name)
        if every is None or after.events - after.kept < every or (key := self._key(boundary)) is None:
            return after, None
        body = after.state.SerializeToString()
        keep = Keep(state=key.state, tag=key.tag, fingerprint=key.fingerprint, events=after.events, body=body)
        return replace(after, kept=after.events), keep

    def forget(self, boundary: Boundary) -> None:
        """Drop what is kept of a boundary: it is loaded from the log again."""
        self._kept.pop(boundary.key, None)

    def _find(self, boundary: Boundary, least: int) -> Known | None:
        known = self._kept.get(boundary.key)
        if known is None or known.position < least:
            return None
        self._kept.move_to_end(boundary.key)
        return known

    async def _starts(self, boundaries: Sequence[Boundary], latest: int = BEYOND) -> Sequence[Known]:
        """Give where folding begins: with a state at hand, one that the log keeps, or that before the first event.

        None of them is later than the position `latest`.
        """
        starts = {boundary.key: self._kept.get(boundary.key) for boundary in boundaries}
        starts = {key: known if known and known.position <= latest else None for key, known in starts.items()}
        keys = {boundary.key: self._key(boundary) for boundary in boundaries if starts[boundary.key] is None}
        wanted = {key: stored for key, stored in keys.items() if stored is not None}
        if wanted:
            for (key, stored), kept in zip(wanted.items(), await self._log.kept(list(wanted.values())), strict=True):
                if kept is not None and kept.position <= latest:
                    state = self._context.folders[stored.state].state.message.FromString(kept.body)
                    starts[key] = Known(state, kept.position, kept.events, kept.events)
        return [starts[boundary.key] or self._initial(boundary) for boundary in boundaries]

    def _initial(self, boundary: Boundary) -> Known:
        return Known(self._context.folders[boundary.state.name].initial(boundary.values()), 0, 0)

    def _key(self, boundary: Boundary) -> StateKey | None:
        """Say where the log keeps the state of a boundary: of one tag, and as its contract draws it."""
        fingerprint = self._fingerprints.get(boundary.state.name)
        if fingerprint is None or boundary.tailored or len(boundary.tags) != 1:
            return None
        return StateKey(boundary.state.name, boundary.tags[0], fingerprint)

    async def _read_on(self, boundary: Boundary, known: Known, part: Slice) -> Known:
        """Fold a part of the log and what comes after it, and keep the state."""
        try:
            known = await self._fold_on(boundary, known, part)
        except Exception:
            self.forget(boundary)
            raise
        self.keep(boundary, known)
        return known

    async def _fold_on(self, boundary: Boundary, known: Known, part: Slice, until: int | None = None) -> Known:
        """Fold a part of the log and what comes after it."""
        decode = self._context.decoder.decode_stored
        while True:
            known = self.fold(boundary, known, [decode(stored.envelope) for stored in part.events])
            known = replace(known, position=max(known.position, part.through))
            # A slice that ends with a matching event may have been cut there.
            if not part.events or part.through > part.events[-1].position or part.through == until:
                return known
            # A log may read without waiting for anything: others have their turn, and who is given up on ends here.
            await asyncio.sleep(0)
            part = await self._log.read(after=known.position, query=boundary.query, until=until)


def _every(state: StateType) -> int:
    """Give after how many events a state is kept in the log; 0 for one that is not."""
    return 1 if state.persistence is Persistence.STATE_STORED else state.snapshot_every
