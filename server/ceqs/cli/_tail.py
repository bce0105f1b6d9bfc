"""`ceqs tail`: the events of a context as they are recorded, decoded."""

from __future__ import annotations

import contextlib
import datetime as dt
import difflib
import itertools
from collections.abc import Iterable
from functools import partial
from typing import Literal

from ceqs.cli._contexts import choose, load_contexts
from ceqs.cli._events import EventsClient, as_value, fields_of
from ceqs.cli._output import Output, show
from ceqs.cli._running import whereabouts
from ceqs.cli._settings import Settings
from ceqs.cli._signals import together
from ceqs.cli._times import time_of
from ceqs.client import Event
from ceqs.contract import Contract
from ceqs.errors import Misconfigured


async def tail(
    settings: Settings,
    names: Iterable[str],
    *,
    types: Iterable[str],
    tags: Iterable[str],
    after: int | None,
    since: str | None,
    last: int | None,
    private: bool | None,
    follow: bool,
    limit: int | None,
    output: Output,
) -> None:
    """Print the events of contexts (all where none is named): from now on, or from where it is said."""
    if sum(one is not None for one in (after, since, last)) > 1:
        raise Misconfigured("--after, --since and --last each say where to begin: give one of them")
    from_time = None if since is None else time_of("--since", since, dt.datetime.now(dt.UTC))
    contexts = load_contexts(settings)
    addresses, key = whereabouts(settings, contexts, "events")
    chosen = choose(contexts, names)
    if after is not None and len(chosen) > 1:
        raise Misconfigured("--after is a position in one log; say which context")
    scope_private = bool(key) if private is None else private
    contracts = [context.contract for context in chosen.values()]
    known = {event.name: event.full_name for contract in contracts for event in contract.events.values()}
    wanted = [_event_type(name, known) for name in types]

    shown = itertools.count(1)

    def print_one(contract: Contract, event: Event) -> None:
        _show(contract, event, output)
        if next(shown) == limit:
            raise _LimitReachedError

    async def one(contract: Contract) -> None:
        mine = [name for name in wanted if name in contract.events]
        if wanted and not mine:
            return
        async with EventsClient.of(contract, addresses[contract.context], key) as client:
            scope: Literal["private", "public"] = "private" if scope_private else "public"
            events_of = partial(client.events, scope=scope, types=mine, tags=tags)
            start = after or 0
            if last is not None or (after is None and from_time is None and follow):
                head = await client.head()
                start = head.position if scope_private else head.public_position
            if last is not None:
                newest = [e async for e in events_of(before=start + 1, backwards=True, limit=last, live=False)]
                for event in reversed(newest):
                    print_one(contract, event)
                if not follow:
                    return
            async with contextlib.aclosing(events_of(after=start, from_time=from_time, live=follow)) as events:
                async for event in events:
                    print_one(contract, event)

    with contextlib.suppress(_LimitReachedError):
        await together(map(one, contracts))


class _LimitReachedError(Exception):
    """As many events were printed as were asked for."""


def _event_type(name: str, known: dict[str, str]) -> str:
    full_name = name if name in known.values() else known.get(name)
    if full_name is None:
        near = difflib.get_close_matches(name, known, 1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}"
        raise Misconfigured(f"--type {name}: no such event; {hint}")
    return full_name


def _show(contract: Contract, event: Event, output: Output) -> None:
    short = event.type.rpartition(".")[2]
    fields = fields_of(event)
    visibility = "*" if event.public_position else " "
    show(
        output,
        f"{event.recorded_at:%H:%M:%S} {contract.context:<10} {event.position:>6}{visibility} {short:<20} {fields}",
        as_value(contract.context, event),
    )
