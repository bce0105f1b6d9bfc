"""`ceqs relay status` and `ceqs relay new-epoch`: the streams of contexts beside their logs."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Iterable, Mapping
from typing import Any

from nats.aio.msg import Msg
from nats.js import JetStreamContext
from rich.console import Console
from rich.table import Table

from ceqs.cli._admin import administrating, opened, reading
from ceqs.cli._contexts import choose, load_contexts
from ceqs.cli._output import Output, show
from ceqs.cli._running import find_running
from ceqs.cli._settings import Settings
from ceqs.relay import ALARMING, Condition, Survey, remedy, status_subject, survey
from ceqs.streams import StreamClient, connected

HEARD = 0.5
"""Seconds that relays have to say how they are doing."""
WIDTH = 140
"""Of the table, where the output goes to no terminal."""


class Alarming:
    """Whether anything was found that somebody has to mend."""

    found = False


async def status(settings: Settings, names: Iterable[str], alarming: Alarming, *, output: Output) -> None:
    """Say how the streams of contexts compare with their logs."""
    table = Table()
    for column in ("context", "stream", "epoch", "log", "stream has", "size", "condition", "relays"):
        table.add_column(column, no_wrap=True)
    notes: list[str] = []
    async with connected(_nats_url(settings), name="ceqs relay status") as client:
        for name in choose(load_contexts(settings), names):
            async with reading(settings, name) as reader:
                told = await _relays(client, name)
                for public in (False, True):
                    found = await survey(JetStreamContext(client), reader, public=public)
                    alarming.found = alarming.found or found.condition in ALARMING
                    value = _value(name, found, [one for one in told if one["public"] == public])
                    if output is Output.JSON:
                        show(output, "", value)
                    table.add_row(*_row(value))
                    notes += _notes(value)
    if output is Output.TEXT:
        console = Console() if sys.stdout.isatty() else Console(width=WIDTH)
        console.print(table)
        for note in dict.fromkeys(notes):
            console.print(note, soft_wrap=True, highlight=False)


async def new_epoch(settings: Settings, name: str, *, output: Output) -> None:
    """Begin the next epoch of a log's streams, beyond that of any stream that there is."""
    async with (
        administrating(settings, name) as admin,
        connected(_nats_url(settings), name="ceqs relay new-epoch") as client,
    ):
        async with reading(settings, name) as reader:
            found = [await survey(JetStreamContext(client), reader, public=public) for public in (False, True)]
        after = max((one.stream.epoch for one in found if one.stream), default=0)
        renew = any(one.condition is Condition.FORKED and one.same_log for one in found)
        if admin:
            epoch = await admin.begin_epoch(name, after, renew=renew)
        else:
            async with opened(settings, name) as log:
                epoch = (await log.begin_epoch(after=after, renew=renew)).epoch
    text = f"{name}: epoch {epoch} has begun; the relay makes its streams and fills them from the log"
    if renew:
        text += (
            f".\n{name}: the log has a new id, for the old streams have events that it does not have: "
            "what was built from them stops, and says how to go on"
        )
    show(output, text, {"context": name, "epoch": epoch, "renewed": renew})


def _nats_url(settings: Settings) -> str:
    running = find_running(settings)
    return running.nats_url if running else settings.nats_url


async def _relays(client: StreamClient, name: str) -> list[dict[str, Any]]:
    """Ask the relays of a log how they are doing: each answers for each of its two streams."""
    told: list[dict[str, Any]] = []
    inbox = client.new_inbox()

    async def hear(message: Msg) -> None:
        if message.data:  # none where nobody relays
            told.append(json.loads(message.data))

    subscription = await client.subscribe(inbox, cb=hear)  # pyright: ignore[reportUnknownMemberType]
    await client.publish(status_subject(name), reply=inbox)
    await asyncio.sleep(HEARD)
    await subscription.unsubscribe()
    return told


def _value(name: str, found: Survey, told: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    stream = found.stream
    return {
        "context": name,
        "stream": found.name,
        "public": found.public,
        "epoch": found.epoch,
        "head": found.head,
        "first": stream.first if stream else 0,
        "last": stream.last if stream else 0,
        "messages": stream.messages if stream else 0,
        "bytes": stream.size if stream else 0,
        "missing": stream.deleted if stream else 0,
        "condition": found.condition.value,
        "reason": found.reason,
        "remedy": remedy(name) if found.condition in ALARMING else "",
        "relays": [{k: one[k] for k in ("relay", "position", "last_error", "alarms", "repairs")} for one in told],
    }


def _row(value: Mapping[str, Any]) -> list[str]:
    colour = {"equal": "green", "broken": "red", "forked": "red"}.get(value["condition"], "yellow")
    has = f"{value['first']:,} to {value['last']:,}" if value["messages"] else "nothing"
    return [
        value["context"],
        value["stream"],
        str(value["epoch"]),
        f"{value['head']:,}",
        has,
        f"{value['bytes'] / 1e6:,.1f} MB",
        f"[{colour}]{value['condition']}",
        str(len(value["relays"])) if value["relays"] else "[yellow]none",
    ]


def _notes(value: Mapping[str, Any]) -> Iterable[str]:
    if value["remedy"]:
        yield f"{value['reason']}: {value['remedy']}"
    for relay in value["relays"]:
        yield from (f"{relay['relay']}: {repair}" for repair in relay["repairs"])
        if relay["last_error"] and not value["remedy"]:
            yield f"{relay['relay']}: {relay['last_error']}"
