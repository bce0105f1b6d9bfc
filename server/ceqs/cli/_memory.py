"""`ceqs log remember` and `ceqs log purge`: for how long commands are remembered, and forgetting them afterwards."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AsyncExitStack
from functools import partial

from ceqs.cli._admin import administrating, opened, reading
from ceqs.cli._contexts import choose, load_contexts
from ceqs.cli._output import Output, show
from ceqs.cli._settings import Settings
from ceqs.errors import Misconfigured


async def remember(
    settings: Settings, name: str, *, days: int | None, forever: bool, shorten: bool, output: Output
) -> None:
    """Say for how long the log of a context remembers commands, after promising another time if one is given."""
    choose(load_contexts(settings), [name])
    if days is not None and forever:
        raise Misconfigured("--days or --forever, not both")
    # Only its server makes a log: there is none to promise anything where this fails.
    async with reading(settings, name) as reader:
        if days is not None or forever:
            async with opened(settings, name) as log:
                await log.remember(days, shorten=shorten)
        promised = await reader.remembers()
    how_long = "for ever" if promised is None else f"for {promised} days"
    show(output, f"{name}: commands are remembered {how_long}", {"remembers": name, "days": promised})


async def purge(settings: Settings, names: Iterable[str], *, dry_run: bool, output: Output) -> None:
    """Forget what the logs of contexts no longer promise to remember, through their servers where these run."""
    for name in choose(load_contexts(settings), names):
        async with AsyncExitStack() as stack:
            admin = await stack.enter_async_context(administrating(settings, name))
            if admin:
                step = partial(admin.purge, name, dry_run=dry_run)
            else:
                async with reading(settings, name):
                    pass  # There is one: it is not for a purge to make a log.
                log = await stack.enter_async_context(opened(settings, name))
                step = partial(log.purge, dry_run=dry_run)
            done = await step("")
            examined, forgotten = done.examined, done.forgotten
            while done.next:
                done = await step(done.next)
                examined, forgotten = examined + done.examined, forgotten + done.forgotten
        text = f"{name}: {'would forget' if dry_run else 'forgot'} {forgotten} of {examined} commands"
        show(output, text, {"purged": name, "examined": examined, "forgotten": forgotten, "dry_run": dry_run})
