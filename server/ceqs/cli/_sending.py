"""What `ceqs outbox` does: it reads places, and leaves requests for the projectors that write them."""

from __future__ import annotations

import enum
import getpass
import time
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from typing import Any, Literal

from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message

from ceqs.cli._asking import decider, places_called, seen_to
from ceqs.cli._handlers import Handler, places_of_handler, the_handler_called
from ceqs.cli._output import Listing, Output, outline, show
from ceqs.cli._settings import Settings
from ceqs.errors import Misconfigured, NotFound, Unavailable
from ceqs.projectors import (
    ACCEPTED,
    REFUSED,
    SKIPPED,
    WAITING,
    Call,
    Outcome,
    Place,
    Request,
    ask,
    count_calls,
    read_calls,
    read_timers,
)
from ceqs.v1.admin_pb2 import AppendPublicRequest


class Which(enum.Enum):
    """Which calls are listed."""

    REFUSED = "nothing was refused"
    WAITING = "nothing waits to be sent"
    SKIPPED = "nothing was skipped"

    @property
    def outcomes(self) -> Collection[str]:
        """The outcomes of these calls."""
        return {Which.REFUSED: REFUSED, Which.WAITING: (WAITING,), Which.SKIPPED: (SKIPPED,)}[self]


async def list_calls(settings: Settings, names: Iterable[str], which: Which, limit: int, output: Output) -> None:
    """List calls, of handlers by name or of all."""
    listing = Listing(output, limit)
    async for handler, place in places_called(settings, names):
        calls = await read_calls(place, which.outcomes, limit=listing.room)
        for call in calls:
            listing.add(f"{handler} {place.label}  {_line(call)}", _described(handler, place, call))
        listing.leave_out(await count_calls(place, which.outcomes) - len(calls))
    listing.end(which.value)


async def list_timers(settings: Settings, names: Iterable[str], limit: int, output: Output) -> None:
    """List the commands whose time is yet to come, of handlers by name or of all."""
    listing = Listing(output, limit)
    async for handler, place in places_called(settings, names):
        timers, count = await read_timers(place, listing.room)
        for timer in timers:
            rpc = timer.call.path if timer.call else ""
            text = f"{handler} {place.label}  {timer.due:%Y-%m-%d %H:%M:%S}  {rpc.rpartition('/')[2]:<24} {timer.key}"
            value = {"context": handler.context, "handler": handler.name, "place": place.label, "rpc": rpc}
            listing.add(text, value | {"key": timer.key, "due": timer.due.isoformat()})
        listing.leave_out(count - len(timers))
    listing.end("no timer is set")


async def show_call(settings: Settings, name: str, number: int, output: Output) -> None:
    """Show one call, in each place that has it. Raises NotFound."""
    handler = the_handler_called(settings, name)
    for place, call in await _found(settings, handler, number):
        value = _described(handler, place, call) | {"request": _decoded(handler, call)}
        show(output, outline(value), value)


async def retry(
    settings: Settings, name: str, numbers: Sequence[int], *, every: bool, wait: float, output: Output
) -> None:
    """Have calls made again. Raises Unavailable where one is refused again, or nobody makes them."""
    handler = the_handler_called(settings, name)
    if every == bool(numbers):
        raise Misconfigured("say which: the numbers of what was refused (see ceqs outbox list), or --all")
    if every:
        calls = [await read_calls(place, REFUSED) for place in await places_of_handler(settings, handler)]
        numbers = sorted({call.number for some in calls for call in some})
    await _request(settings, handler, "retry", numbers, actor=getpass.getuser(), why="", wait=wait, output=output)


async def skip(
    settings: Settings,
    name: str,
    numbers: Sequence[int],
    *,
    why: str,
    actor: str | None,
    wait: float,
    output: Output,
) -> None:
    """Go on without calls. Raises Unavailable where nobody does."""
    handler = the_handler_called(settings, name)
    actor = decider(why, actor)
    await _request(settings, handler, "skip", numbers, actor=actor, why=why, wait=wait, output=output)


async def _request(
    settings: Settings,
    handler: Handler,
    verb: Literal["retry", "skip"],
    numbers: Sequence[int],
    *,
    actor: str,
    why: str,
    wait: float,
    output: Output,
) -> None:
    wanted = [found for number in numbers for found in await _found(settings, handler, number)]
    for _, call in wanted:
        if not call.refused:
            state = "was skipped" if call.outcome.kind else "waits to be sent"
            raise Misconfigured(f"{call.number} was not refused: it {state}")
    for place, call in wanted:
        await ask(place, Request(verb=verb, call=call.number, actor=actor, why=why))
    until, refused = time.monotonic() + wait, 0
    for place, call in wanted:
        now = await _outcome(place, call, until)
        refused += now.refused
        message = f": {now.outcome.message}" if now.refused else ""
        text = f"{handler} {place.label}: {_short(call)} {call.number} {now.outcome.name}{message}"
        show(output, text, _described(handler, place, now))
    if refused:
        raise Unavailable(f"{refused} of {len(wanted)} were refused again: see ceqs outbox show")


async def _outcome(place: Place, before: Call, until: float) -> Call:
    """Wait until a request has been seen to. Give what became of the call."""
    mine = before.outgoing.request_id

    async def look() -> Call | None:
        now = next(iter(await read_calls(place, request_id=mine)), None)
        if now is None:
            return replace(before, outcome=Outcome(ACCEPTED))
        news = now.outcome.kind and (now.number, now.outcome.kind) != (before.number, before.outcome.kind)
        return now if news else None

    return await seen_to(place, look, until)


async def _found(settings: Settings, handler: Handler, number: int) -> list[tuple[Place, Call]]:
    found = [
        (place, call)
        for place in await places_of_handler(settings, handler)
        for call in await read_calls(place, number=number)
    ]
    if not found:
        raise NotFound(f"{handler} has nothing under the number {number}: see ceqs outbox list {handler}")
    return found


def _short(call: Call) -> str:
    return call.outgoing.path.rpartition("/")[2]


def _line(call: Call) -> str:
    out = call.outgoing
    what = f"{call.number:>6} {_short(call):<24} {', '.join(out.keys):<20} after {out.position:>6}"
    if not call.outcome.kind:
        return what
    message = f": {call.outcome.message}" if call.outcome.message else ""
    by = f"  (by {call.actor}: {call.why})" if call.actor else ""
    return f"{what}  {call.outcome.name}{message}{by}"


def _described(handler: Handler, place: Place, call: Call) -> dict[str, Any]:
    out = call.outgoing
    value: dict[str, Any] = {
        "context": handler.context,
        "handler": handler.name,
        "place": place.label,
        "number": call.number,
        "rpc": out.path,
        "id": out.request_id,
        "keys": list(out.keys),
        "position": out.position,
        "causation_id": out.causation_id,
        "outcome": call.outcome.name or "waits",
    }
    value |= {"message": call.outcome.message} if call.outcome.message else {}
    return value | ({"actor": call.actor, "why": call.why} if call.actor else {})


def _decoded(handler: Handler, call: Call) -> Any:
    command = handler.contract.commands.get(call.outgoing.path)
    if command:
        return _as_dict(command.request.FromString(call.outgoing.request))
    events = AppendPublicRequest.FromString(call.outgoing.request).events
    known = [(event.type, handler.contract.events.get(event.type), event.payload) for event in events]
    return [
        {"type": name} | (_as_dict(kind.message.FromString(payload)) if kind else {}) for name, kind, payload in known
    ]


def _as_dict(message: Message) -> dict[str, Any]:
    return MessageToDict(message, preserving_proto_field_name=True)
