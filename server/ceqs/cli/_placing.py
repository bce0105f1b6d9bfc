"""What `ceqs projection` does: it reads what is on record about places, and changes it for the projectors to see."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from ceqs.cli._contexts import choose, load_contexts, the_one_called
from ceqs.cli._logs import behind, head_of, lag_of, number_of
from ceqs.cli._output import Output, outline, show
from ceqs.cli._progress import progress
from ceqs.cli._settings import Settings
from ceqs.errors import Misconfigured, NotFound, Unavailable
from ceqs.log import Head
from ceqs.model import Context, Projection
from ceqs.projectors import (
    Place,
    Places,
    Standing,
    drop,
    hold,
    look_over,
    metadata_of,
    places_of,
    roll_back,
    shape_of,
    start_rebuild,
)

LOOK = 0.2
"""Seconds between two looks at a rebuild."""
UNFED = 3.0
"""Seconds after which it is said that nobody feeds a place."""


@dataclass(frozen=True, slots=True)
class _Chosen:
    context: Context
    projection: Projection

    @property
    def name(self) -> str:
        """The projection's name."""
        return self.projection.ceqs_name()

    @property
    def public(self) -> bool:
        """Whether it folds the public events of another context."""
        return self.projection.ceqs_contract.context != self.context.name

    def __str__(self) -> str:
        return f"{self.context.name}/{self.name}"


async def list_places(settings: Settings, names: Iterable[str], output: Output) -> None:
    """List the places of all projections of contexts. Raises Unavailable in the end where some cannot be reached."""
    known, unreached = _all(settings, names), 0
    for chosen in known:
        try:
            await _list(settings, chosen, output)
        except (Unavailable, OSError) as error:
            unreached += 1
            show(output, f"{chosen!s:<28} -      {error}", {"projection": str(chosen), "error": str(error)})
    if unreached:
        raise Unavailable(f"{unreached} of {len(known)} projections cannot be reached")


async def _list(settings: Settings, chosen: _Chosen, output: Output) -> None:
    async with _opened(settings, chosen) as places:
        standings = await look_over(places)
        head = await _head(settings, chosen)  # after the places, which would be beyond it otherwise
        for one in standings:
            lag = behind(head, one.at, public=chosen.public)
            text = f"{chosen!s:<28} {one.place.label:<6} {_state(one):<22} {one.at.position:>9,} {lag:>16}"
            show(output, f"{text}  {one.fed_by or 'nobody feeds it'}", _value(chosen, one, head))
        if not standings:
            show(output, f"{chosen!s:<28} -      no projector has run yet", {"projection": str(chosen)})


async def show_places(settings: Settings, name: str, output: Output) -> None:
    """Show what is known about the places of a projection."""
    chosen = _one(settings, name)
    async with _opened(settings, chosen) as places:
        standings = await look_over(places)
        head = await _head(settings, chosen)
        for one in standings:
            value = _value(chosen, one, head)
            show(output, outline(value), value)


async def rebuild(settings: Settings, name: str, *, version: int | None, follow: bool, output: Output) -> None:
    """Have a version filled anew, and follow it until it answers."""
    chosen = _one(settings, name)
    projection = _versioned(chosen, version)
    async with _opened(settings, chosen) as places:
        place, new = await start_rebuild(places, projection.version, shape_of(metadata_of(projection)))
        if not follow:
            text = f"{chosen}: {place.label} is {'to be' if new else 'being'} filled by the projector"
            show(output, text, {"projection": str(chosen), "place": place.label, "state": "filling"})
            return
        with progress("rebuilds", f"{chosen} {place.label}", "events", output) as report:
            one, events, seconds = await _filled(settings, chosen, places, place, report)
    rate = events / seconds if seconds else 0.0
    others = "" if one.place.label == "v1" else f"; go back: ceqs projection rollback {chosen}"
    show(
        output,
        f"{chosen}: {place.label} answers, at position {one.at.position:,} ({events:,} events in {seconds:.1f} s, "
        f"{rate:,.0f}/s){others}",
        {"projection": str(chosen), "place": place.label, "state": "serves", "position": one.at.position}
        | {"events": events, "seconds": round(seconds, 3)},
    )


async def roll_back_to(settings: Settings, name: str, *, to: str | None, wait: float, output: Output) -> None:
    """Let an earlier place answer."""
    chosen = _one(settings, name)
    async with _opened(settings, chosen) as places:
        place, before = await roll_back(places, to, wait)
    text = f"{chosen}: {place.label} answers in place of {before.label}, which is fed until it is dropped"
    show(output, text, {"projection": str(chosen), "place": place.label, "instead_of": before.label})


async def hold_places(settings: Settings, name: str, place: str | None, *, held: bool, output: Output) -> None:
    """Have places wait, or go on."""
    chosen = _one(settings, name)
    async with _opened(settings, chosen) as places:
        changed = [one.label for one in await hold(places, held, place)]
    done = "paused" if held else "resumed"
    text = f"{done} {', '.join(changed)}" if changed else f"nothing to do: it is {done} already"
    show(output, f"{chosen}: {text}", {"projection": str(chosen), done: changed})


async def drop_place(settings: Settings, name: str, label: str, *, wait: float, output: Output) -> None:
    """Delete a place."""
    chosen = _one(settings, name)
    async with _opened(settings, chosen) as places:
        place = await drop(places, label, wait)
    show(output, f"{chosen}: dropped {place.label}", {"projection": str(chosen), "dropped": place.label})


async def _filled(
    settings: Settings, chosen: _Chosen, places: Places, place: Place, report: Callable[[int, int], None]
) -> tuple[Standing, int, float]:
    """Wait until a place answers. Give where it stands, how many events went into it meanwhile, and the seconds."""
    began, first, said = time.monotonic(), None, ""
    while True:
        one = next((one for one in await look_over(places) if one.place == place), None)
        if one is None or one.record.dropping:
            raise NotFound(f"{place.label} was dropped before it was filled")
        first = one.at.position if first is None else first
        head = await _head(settings, chosen)
        report(one.at.position, number_of(head, public=chosen.public) if head else one.at.position)
        if one.serves:
            return one, one.at.position - first, time.monotonic() - began
        if one.record.filled:
            raise Unavailable(f"{place.label} is filled and does not answer: a newer place does")
        trouble = _trouble(chosen, one) if time.monotonic() - began > UNFED else ""
        if trouble and trouble != said:
            print(trouble, file=sys.stderr, flush=True)
        said = trouble
        await asyncio.sleep(LOOK)


def _trouble(chosen: _Chosen, one: Standing) -> str:
    if one.record.held:
        return f"{one.place.label} is paused: ceqs projection resume {chosen} --place {one.place.label}"
    if not one.fed_by:
        return (
            f"no projector of a build with version {one.place.version} runs: start one (ceqs project "
            f"{chosen.context.name}, or ceqs dev). It goes on from position {one.at.position}"
        )
    return f"{one.place.label} waits at position {one.at.position}: {one.paused}" if one.paused else ""


@asynccontextmanager
async def _opened(settings: Settings, chosen: _Chosen) -> AsyncGenerator[Places]:
    places = places_of(settings.models_url_of(chosen.context.name, chosen.name), chosen.context.name, chosen.name)
    try:
        yield places
    finally:
        await places.close()


async def _head(settings: Settings, chosen: _Chosen) -> Head | None:
    """Say where the log stands that the projection folds; None where that cannot be read from here."""
    return await head_of(settings, chosen.projection.ceqs_contract.context)


def _versioned(chosen: _Chosen, version: int | None) -> Projection:
    """Give the projection in the version that is to be filled."""
    earlier = [one for one in chosen.context.earlier if one.ceqs_name() == chosen.name]
    versions = {one.version: one for one in [chosen.projection, *earlier]}
    if version is not None and version not in versions:
        known = ", ".join(map(str, sorted(versions)))
        raise Misconfigured(
            f"this build has {chosen} in version {known}, not {version}: keep the earlier class beside the newer one "
            "(projections=[...]), or run the command of the build that has it"
        )
    return versions[version] if version else chosen.projection


def _all(settings: Settings, names: Iterable[str]) -> list[_Chosen]:
    contexts = choose(load_contexts(settings), names).values()
    return [_Chosen(context, projection) for context in contexts for projection in context.projections.values()]


def _one(settings: Settings, name: str) -> _Chosen:
    for context in load_contexts(settings).values():
        short = name.removeprefix(f"{context.name}/")
        if short in context.publishers:
            raise Misconfigured(
                f"{name} is a publisher: what it has published stands in the log, and it goes on from there by itself. "
                f"To have everything published again: ceqs republish {name}"
            )
        if short in context.subscribers:
            raise Misconfigured(f"{name} is a subscriber: what it did is done, and is not done again by a rebuild")
    return the_one_called(_all(settings, []), name, "projection")


def _state(one: Standing) -> str:
    parked = f", {one.at.parked} parked" if one.at.parked else ""
    return f"{one.state}{', answers' if one.serves and one.state != 'serves' else ''}{parked}"


def _value(chosen: _Chosen, one: Standing, head: Head | None) -> dict[str, Any]:
    value: dict[str, Any] = {
        "projection": str(chosen),
        "place": one.place.label,
        "state": one.state,
        "serves": one.serves,
        "position": one.at.position,
        "head": number_of(head, public=chosen.public) if head else None,
        "lag": lag_of(head, one.at, public=chosen.public),
        "log_id": one.at.log_id,
        "recorded_at": one.at.recorded_at.isoformat() if one.at.recorded_at else None,
        "parked": one.at.parked,
        "fed_by": one.fed_by or None,
        "where": str(one.place),
    }
    return value | ({"reason": one.paused} if one.paused else {})
