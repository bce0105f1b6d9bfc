"""`ceqs gen`: the generator, run with the project's settings."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from ceqs.cli._settings import Settings
from ceqs.codegen import generate


def generate_project(settings: Settings) -> list[Path]:
    """Generate the project's code; give the files that changed. Raises BadContract with `file:line` messages."""
    proto, out = settings.path(settings.proto), settings.path(settings.generated)
    with _alone(settings.project):
        # Relative where possible: the messages shall name files as the reader does.
        return generate(_shown(proto), _shown(out))


@contextmanager
def _alone(project: Path) -> Generator[None]:
    """Wait until nobody else generates: `ceqs gen` and `ceqs dev` would undo what the other has read later."""
    directory = os.open(project, os.O_RDONLY)
    try:
        fcntl.flock(directory, fcntl.LOCK_EX)
        yield
    finally:
        os.close(directory)


def _shown(path: Path) -> Path:
    return Path(os.path.relpath(path)) if path.is_relative_to(Path.cwd()) else path
