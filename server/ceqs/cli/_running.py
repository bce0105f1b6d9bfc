"""What a running `ceqs dev` leaves in the data directory, for the other commands to find it by."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Generator, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from ceqs.cli._contexts import RoleName, addresses_of
from ceqs.cli._settings import Settings

FILE = "dev.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A running `ceqs dev`."""

    pid: int
    addresses: dict[str, str]
    """`host:port` by context."""
    nats_url: str
    key: str
    """The contexts' key."""


def find_running(settings: Settings) -> Running | None:
    """Give the `ceqs dev` that runs in the settings' data directory, if one does."""
    try:
        found = Running(**json.loads((settings.path(settings.data) / FILE).read_text(encoding="utf-8")))
        os.kill(found.pid, 0)
    except (OSError, ValueError, TypeError):  # No file, nobody of that id, or a file of another version.
        return None
    return found


def whereabouts(settings: Settings, contexts: Iterable[str], role: RoleName) -> tuple[dict[str, str], str]:
    """Give where a role of all the project's contexts is served, `host:port` by context, and their key.

    The `ceqs dev` that runs knows; where none does, the settings say it.
    """
    running = find_running(settings)
    addresses = running.addresses if running else addresses_of(settings, list(contexts), role)
    return addresses, settings.key or (running.key if running else "")


@contextlib.contextmanager
def announced(directory: Path, running: Running) -> Generator[None]:
    """Leave the description in the data directory, readable by its owner alone, until the block ends."""
    file = directory / FILE
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as opened:
        json.dump(asdict(running), opened)
    try:
        yield
    finally:
        file.unlink(missing_ok=True)
