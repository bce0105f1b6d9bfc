"""`ceqs log backup` and `ceqs log restore`, with progress."""

from __future__ import annotations

from pathlib import Path

from ceqs.cli._contexts import choose, load_contexts
from ceqs.cli._output import Output, show
from ceqs.cli._progress import progress
from ceqs.cli._settings import Settings
from ceqs.log import backup_log, restore_log


async def backup(settings: Settings, name: str, file: Path, *, output: Output) -> None:
    """Back up the log of a context into a file."""
    choose(load_contexts(settings), [name])
    with progress("backs_up", name, _unit(settings), output) as report:
        made = await backup_log(settings.log_url(name), name, file, report)
    head = made.head
    show(
        output,
        f"{name}: {head.position:,} events are in {file} ({made.size / 1e6:,.1f} MB)",
        {"backed_up": name, "file": str(file), "events": head.position, "log_id": head.log_id, "bytes": made.size},
    )


async def restore(settings: Settings, name: str, file: Path, *, replace: bool, output: Output) -> None:
    """Restore the log of a context from a backup."""
    choose(load_contexts(settings), [name])
    with progress("restores", name, _unit(settings), output) as report:
        head = (await restore_log(settings.log_url(name), name, file, report, replace=replace)).head
    show(
        output,
        f"{name}: restored {head.position:,} events, as the log {head.log_id}. The relay fills streams of epoch "
        f"{head.epoch}; projections and subscribers that know the log by its old id stop, and say how to go on",
        {"restored": name, "events": head.position, "log_id": head.log_id, "epoch": head.epoch},
    )


def _unit(settings: Settings) -> str:
    return "pages" if settings.store == "sqlite" else "rows"
