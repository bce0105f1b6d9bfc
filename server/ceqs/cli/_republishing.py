"""What `ceqs republish` does: it has a publisher go through history once more."""

from __future__ import annotations

import sys
from dataclasses import dataclass

import typer

from ceqs.cli._admin import administrating, opened
from ceqs.cli._contexts import load_contexts, the_one_called
from ceqs.cli._output import Output, show
from ceqs.cli._settings import Settings
from ceqs.errors import Misconfigured


@dataclass(frozen=True, slots=True)
class _Publisher:
    context: str
    name: str

    def __str__(self) -> str:
        return f"{self.context}/{self.name}"


async def republish(settings: Settings, name: str, *, sure: bool, output: Output) -> None:
    """Have a publisher publish everything again, once somebody is sure."""
    known = [
        _Publisher(context.name, one) for context in load_contexts(settings).values() for one in context.publishers
    ]
    publisher = the_one_called(known, name, "publisher")
    if not sure:
        if not sys.stdin.isatty():
            raise Misconfigured(
                "every service that hears of it gets all of it again: say --yes if that is what you want"
            )
        typer.confirm(
            f"{publisher} publishes everything once more, as new events, and every service that hears them acts on "
            "them again. Do you want that?",
            abort=True,
        )
    async with administrating(settings, publisher.context) as admin:
        if admin:
            begun = await admin.publish_again(publisher.context, publisher.name)
        else:
            async with opened(settings, publisher.context) as log:
                begun = (await log.publish_again(publisher.name)).round
    text = f"{publisher} publishes everything again, from the first event on; the projector does it when it runs"
    show(output, text, {"publisher": str(publisher), "round": begun})
