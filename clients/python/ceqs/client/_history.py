"""What happened to something, and why: events under the commands that brought them, and under events what followed."""

from __future__ import annotations

import asyncio
import datetime as dt
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from ceqs.client._answers import Event
from ceqs.errors import Unavailable

if TYPE_CHECKING:
    from ceqs.client._client import ContextClient

CLOCKS = dt.timedelta(minutes=5)
"""By how much the clocks of services may differ: what follows from an event may bear an earlier time."""
_DERIVED = re.compile(r"ceqs:([^:]+):")
_Key: TypeAlias = tuple[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryEvent:
    """A recorded event, and what followed from it."""

    context: str
    event: Event
    carries: bool
    """Whether it carries the tags itself; if not, it led to an event that does, or came of one, or with one."""
    followed: tuple[HistoryCommand, ...]
    """What reactions to it have done, in the order of time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryCommand:
    """A command, or what a publisher appended, by its outcome. Of one that was refused, nothing is recorded."""

    context: str
    """Where it was done."""
    command_id: str
    actor: str
    handler: str
    """The reaction that sent it, `inventory/deliver-orders`; empty where somebody did."""
    causation_id: str
    """The event that the reaction heard; empty for the first command."""
    events: tuple[HistoryEvent, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """What happened, as trees."""

    commands: tuple[HistoryCommand, ...]
    """What began it, in the order of time: sent by somebody, or caused by what no context that was asked has."""
    silent: Mapping[str, Unavailable] = field(default_factory=dict[str, Unavailable])
    """Contexts that did not answer: what happened there is not told."""

    def __iter__(self) -> Iterator[HistoryEvent]:
        """Give every event, in the order of time."""
        events = [event for command in self.commands for event in _events_of(command)]
        return iter(sorted(events, key=lambda one: (one.event.recorded_at, one.context, one.event.position)))


async def read_history(clients: Iterable[ContextClient], tags: Sequence[str], *, last: int | None = None) -> History:
    """Give what happened to what the tags name, by the private events of contexts, whose key the clients have.

    Events that carry all of the tags (of each context the `last` so many), the commands that brought them, what led to
    these, and all that followed, in whichever of the contexts. A context without an answer is named in the history.
    Raises Unavailable where none answers, Denied and Unauthenticated without the key.
    """
    asked = {client.ceqs_context: client for client in clients}
    silent: dict[str, Unavailable] = {}

    async def read(context: str, **options: object) -> list[Event]:
        if context in silent:
            return []
        try:
            events = asked[context].events(scope="private", live=False, **options)  # type: ignore[arg-type]
            return [event async for event in events]
        except Unavailable as error:
            silent[context] = error
            return []

    async def read_all(**options: object) -> list[tuple[str, Event]]:
        parts = await asyncio.gather(*(read(context, **options) for context in asked))
        return [(context, event) for context, part in zip(asked, parts, strict=True) for event in part]

    newest: dict[str, object] = {} if last is None else {"backwards": True, "limit": last}
    carrying = await read_all(tags=tuple(tags), **newest)
    known = {event.id: (context, event) for context, event in carrying}
    if carrying:
        since = min(event.recorded_at for _, event in carrying)
        correlated = sorted({event.correlation_id for _, event in carrying} - {""})
        related = await read_all(from_time=_before(since), correlation_ids=correlated)
        known |= {event.id: (context, event) for context, event in related}
    if silent and len(silent) == len(asked):
        raise next(iter(silent.values()))
    return History(commands=_Graph(known.values(), {event.id for _, event in carrying}).trees(), silent=silent)


def _before(time: dt.datetime) -> dt.datetime:
    return max(time, dt.datetime.min.replace(tzinfo=dt.UTC) + CLOCKS) - CLOCKS


class _Graph:
    """Commands and their events, linked by causation."""

    def __init__(self, events: Iterable[tuple[str, Event]], carrying: set[str]) -> None:
        self._carrying = carrying
        self._outcomes: dict[_Key, list[Event]] = {}
        by_id: dict[str, _Key] = {}
        for context, event in sorted(events, key=lambda one: (one[1].recorded_at, one[0], one[1].position)):
            key = (context, event.command_id)
            self._outcomes.setdefault(key, []).append(event)
            by_id[event.id] = key
        self._caused: dict[str, list[_Key]] = {}
        self._cause: dict[_Key, _Key] = {}
        for key, outcome in self._outcomes.items():
            causation_id = outcome[0].causation_id
            if causation_id in by_id:
                self._caused.setdefault(causation_id, []).append(key)
                self._cause[key] = by_id[causation_id]

    def trees(self) -> tuple[HistoryCommand, ...]:
        """Give the commands of interest under those that began it."""
        told = self._told()
        return tuple(
            self._command(key, told) for key in self._outcomes if key in told and self._cause.get(key) not in told
        )

    def _told(self) -> set[_Key]:
        """Give the commands with events that carry the tags, what led to them, and what followed from them."""
        own = [key for key, outcome in self._outcomes.items() if any(event.id in self._carrying for event in outcome)]
        told, following = set[_Key](), list(own)
        while following:
            key = following.pop()
            if key not in told:
                told.add(key)
                following += [one for event in self._outcomes[key] for one in self._caused.get(event.id, ())]
        for key in own:
            while (before := self._cause.get(key)) is not None and before not in told:
                told.add(before)
                key = before
        return told

    def _command(self, key: _Key, told: set[_Key]) -> HistoryCommand:
        context, command_id = key
        derived = _DERIVED.match(command_id)
        first = self._outcomes[key][0]
        return HistoryCommand(
            context=context,
            command_id=command_id,
            actor=first.actor,
            handler=derived[1] if derived else "",
            causation_id=first.causation_id,
            events=tuple(
                HistoryEvent(
                    context=context,
                    event=event,
                    carries=event.id in self._carrying,
                    followed=tuple(self._command(one, told) for one in self._caused.get(event.id, ()) if one in told),
                )
                for event in self._outcomes[key]
            ),
        )


def _events_of(command: HistoryCommand) -> Iterator[HistoryEvent]:
    for event in command.events:
        yield event
        for followed in event.followed:
            yield from _events_of(followed)
