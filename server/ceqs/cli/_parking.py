"""What `ceqs parked` does: it reads places, and leaves requests for the projectors that write them."""

from __future__ import annotations

import getpass
import time
from collections.abc import Iterable, Sequence
from typing import Any, Literal

from google.protobuf.json_format import MessageToDict

from ceqs.cli._asking import decider, places_called, seen_to
from ceqs.cli._handlers import Handler, places_of_handler, the_handler_called
from ceqs.cli._output import Listing, Output, outline, show
from ceqs.cli._settings import Settings
from ceqs.errors import Misconfigured, NotFound, Unavailable, Unreadable
from ceqs.model import EventDecoder
from ceqs.projectors import Parked, Place, Request, ask, read_given_up, read_parked
from ceqs.v1.events_pb2 import RecordedEvent


async def list_parked(settings: Settings, names: Iterable[str], limit: int, output: Output) -> None:
    """List the events that have failed, of handlers by name or of all."""
    listing = Listing(output, limit)
    async for handler, place in places_called(settings, names):
        rows = await read_parked(place)
        for row in filter(lambda row: row.error, rows):
            waiting = len(_behind(row, rows))
            text = (
                f"{handler} {place.label}  {row.position:>6} {_short(row.event):<20} {row.key:<20} "
                f"{row.error}  ({row.tries} tries{f', {waiting} wait behind it' if waiting else ''})"
            )
            listing.add(text, _described(handler, place, row) | {"waiting": waiting})
    listing.end("nothing is parked")


async def list_given_up(settings: Settings, names: Iterable[str], limit: int, output: Output) -> None:
    """List the events that were skipped, of handlers by name or of all."""
    listing = Listing(output, limit)
    async for handler, place in places_called(settings, names):
        for one in await read_given_up(place):
            text = (
                f"{handler} {place.label}  {one.position:>6} {_short(one.event):<20} "
                f"by {one.actor} at {one.given_up_at:%Y-%m-%d %H:%M:%S}: {one.why}  ({one.error})"
            )
            value = {"actor": one.actor, "why": one.why, "given_up_at": one.given_up_at.isoformat()}
            listing.add(text, _event(handler, place, one.position, one.event) | {"error": one.error} | value)
    listing.end("nothing was given up")


async def show_parked(settings: Settings, name: str, position: int, output: Output) -> None:
    """Show one parked event, in each place that has it. Raises NotFound."""
    handler = the_handler_called(settings, name)
    for place, rows in await _found(settings, handler, position):
        row = next(row for row in rows if row.position == position)
        value = _described(handler, place, row)
        if row.error:
            value |= {"trace": row.trace.splitlines(), "waiting": [other.position for other in _behind(row, rows)]}
        else:
            value["waits_behind"] = _head(row, rows).position
        value["event"] = _decoded(handler.decoder, row.event)
        show(output, outline(value), value)


async def retry(
    settings: Settings, name: str, positions: Sequence[int], *, every: bool, wait: float, output: Output
) -> None:
    """Have events tried again. Raises Unavailable where one failed again, or nobody tries them."""
    handler = the_handler_called(settings, name)
    if every == bool(positions):
        raise Misconfigured("say which: the positions of events that failed (see ceqs parked list), or --all")
    if every:
        parked = [await read_parked(place) for place in await places_of_handler(settings, handler)]
        positions = sorted({row.position for rows in parked for row in rows if row.error})
    await _request(settings, handler, "retry", positions, actor=getpass.getuser(), why="", wait=wait, output=output)


async def skip(
    settings: Settings,
    name: str,
    positions: Sequence[int],
    *,
    why: str,
    actor: str | None,
    wait: float,
    output: Output,
) -> None:
    """Go on without events. Raises Unavailable where nobody does."""
    handler = the_handler_called(settings, name)
    actor = decider(why, actor)
    await _request(settings, handler, "skip", positions, actor=actor, why=why, wait=wait, output=output)


async def _request(
    settings: Settings,
    handler: Handler,
    verb: Literal["retry", "skip"],
    positions: Sequence[int],
    *,
    actor: str,
    why: str,
    wait: float,
    output: Output,
) -> None:
    wanted: list[tuple[Place, Parked]] = []
    for position in positions:
        for place, rows in await _found(settings, handler, position):
            row = next(row for row in rows if row.position == position)
            if not row.error:
                first = _head(row, rows).position
                raise Misconfigured(f"the event at {position} has not failed: it waits behind the one at {first}")
            wanted.append((place, row))
    for place, row in wanted:
        await ask(place, Request(verb=verb, position=row.position, actor=actor, why=why))
    until, failed = time.monotonic() + wait, 0
    for place, row in wanted:
        error = await _outcome(place, row, until)
        done = {"retry": "applied", "skip": "skipped"}[verb] if not error else "failed again"
        text = f"{handler} {place.label}: {_short(row.event)} at position {row.position} {done}"
        show(
            output,
            f"{text}: {error}" if error else text,
            _described(handler, place, row) | {"outcome": done} | ({"error": error} if error else {}),
        )
        failed += bool(error)
    if failed:
        raise Unavailable(f"{failed} of {len(wanted)} failed again, and those behind wait on: see ceqs parked show")


async def _outcome(place: Place, before: Parked, until: float) -> str:
    """Wait until a request has been seen to. Give the error with which the event failed again; empty if it did not."""

    async def look() -> str | None:
        now = next((row for row in await read_parked(place) if row.position == before.position), None)
        if now is None:
            return ""
        return now.error if now.tries > before.tries and not now.due else None

    return await seen_to(place, look, until)


async def _found(settings: Settings, handler: Handler, position: int) -> list[tuple[Place, Sequence[Parked]]]:
    found: list[tuple[Place, Sequence[Parked]]] = []
    for place in await places_of_handler(settings, handler):
        rows = await read_parked(place)
        if any(row.position == position for row in rows):
            found.append((place, rows))
    if not found:
        raise NotFound(f"{handler} has no parked event at position {position}: see ceqs parked list {handler}")
    return found


def _behind(row: Parked, rows: Iterable[Parked]) -> list[Parked]:
    return [other for other in rows if row.key and other.key == row.key and other.position > row.position]


def _head(row: Parked, rows: Iterable[Parked]) -> Parked:
    return next(other for other in rows if other.key == row.key)


def _short(event: RecordedEvent) -> str:
    return event.type.rpartition(".")[2]


def _event(handler: Handler, place: Place, position: int, event: RecordedEvent) -> dict[str, Any]:
    return {
        "context": handler.context,
        "handler": handler.name,
        "place": place.label,
        "position": position,
        "type": event.type,
        "id": event.id,
        "recorded_at": event.recorded_at.ToJsonString(),
    }


def _described(handler: Handler, place: Place, row: Parked) -> dict[str, Any]:
    own = {"key": row.key, "error": row.error, "tries": row.tries, "parked_at": row.parked_at.isoformat()}
    return _event(handler, place, row.position, row.event) | own


def _decoded(decoder: EventDecoder, event: RecordedEvent) -> Any:
    try:
        return MessageToDict(decoder.decode(event), preserving_proto_field_name=True)
    except Unreadable:
        return None
