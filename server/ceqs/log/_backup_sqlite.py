"""Backing up and restoring a log on SQLite: copies of its pages."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from contextlib import closing
from pathlib import Path

from ceqs.errors import LogUnavailable, Misconfigured
from ceqs.log._backup import (
    Copied,
    Report,
    appearing,
    copy_pages,
    file_of_its_own,
    peek,
    read_backup,
    refuse_to_replace,
    renewed,
)
from ceqs.log._sqlite import configure, take_lock
from ceqs.log._types import Head


def backup_sqlite_log(path: Path, name: str, file: Path, report: Report) -> Copied:
    """Back up the log in a file; see backup_log."""
    if not path.exists():
        raise LogUnavailable(f"there is no log at {path} yet: start the server of {name!r}")
    with appearing(file) as part:
        with file_of_its_own(part) as target:
            copy_pages(path, target, report)
        return Copied(read_backup(part, name), part.stat().st_size)


def restore_sqlite_log(path: Path, name: str, file: Path, report: Report, *, replace: bool) -> Copied:
    """Restore the log in a file; see restore_log."""
    backup = read_backup(file, name)
    copy = path.with_name(f"{path.name}.restoring")
    lock = take_lock(path)
    try:
        present = _present(path, name, replace=replace)
        copy.unlink(missing_ok=True)
        with file_of_its_own(copy) as target:
            copy_pages(file, target, lambda done, total: report(done, 2 * total))
            head = renewed(backup, present)
            target.execute("UPDATE meta SET log_id = ?, epoch = ?", (head.log_id, head.epoch))
        # In its place and in one transaction: whoever reads the log sees the one or the other, and a crash leaves one.
        with closing(sqlite3.connect(path, isolation_level=None)) as log:
            configure(log)
            copy_pages(copy, log, lambda done, total: report(total + done, 2 * total))
        return Copied(head, path.stat().st_size)
    finally:
        copy.unlink(missing_ok=True)
        os.close(lock)


def _present(path: Path, name: str, *, replace: bool) -> Head | None:
    """Give the head of the log that is to be replaced. What cannot be read is put aside, if it may be replaced."""
    if not path.exists():
        return None
    try:
        present = peek(path, name)
    except Misconfigured as error:
        if not replace:
            raise Misconfigured(f"{error.message}; to put the backup in its place, restore with --replace") from error
        for suffix in ("", "-wal", "-shm"):
            with contextlib.suppress(FileNotFoundError):
                os.replace(f"{path}{suffix}", f"{path}{suffix}.broken")
        return None
    refuse_to_replace(name, present, replace=replace)
    return present
