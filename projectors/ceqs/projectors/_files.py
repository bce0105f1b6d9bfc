"""Places on SQLite: files of one directory.

Sales.db -> Sales.v2.db   the serving pointer, a symbolic link that is replaced atomically
Sales.v2.json             the record of a place, likewise
Sales.v2.db               the place, which is written by one process
Sales.v2.lock             held, shared, by whoever reads it
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import secrets
import shutil
import sqlite3
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import asdict
from pathlib import Path
from urllib.parse import quote

from ceqs.errors import Unavailable
from ceqs.projectors._place import Place
from ceqs.projectors._places import Known, Places, Record

AGAIN = 0.05
"""Seconds between two tries to get a place for oneself."""


class Files(Places):
    """The places of a handler in SQLite files."""

    def __init__(self, models_url: str, first: Place) -> None:
        super().__init__(models_url, first.context, first.name)
        self._directory = file_of(first).parent
        self._link = self._directory / f"{self.name}.db"

    async def existing(self) -> Sequence[Place]:
        """Give the places that have been written to."""
        files = self._directory.glob(f"{self.name}.v*.db")
        return [place for file in files if (place := self.labelled(_label(file, self.name)))]

    async def known(self) -> Sequence[Known]:
        """Give the places on record."""
        found: list[Known] = []
        for file in self._directory.glob(f"{self.name}.v*.json"):
            place = self.labelled(_label(file, self.name))
            record = _read(file) if place else None
            if place and record:
                found.append(Known(place, record))
        return sorted(found, key=lambda known: known.record.made_at)

    async def make(self, place: Place, shape: str) -> bool:
        """Put a place on record."""
        self._directory.mkdir(parents=True, exist_ok=True)
        return self._change(place, lambda before: None if before else Record(made_at=time.time(), shape=shape))

    async def note(self, place: Place, **changes: bool) -> None:
        """Change what is on record about a place."""
        self._change(place, lambda before: before.but(**changes) if before else None)

    async def serving(self) -> Place | None:
        """Give the place that answers."""
        return self._serving()

    async def switch(self, to: Place) -> bool:
        """Let a place answer."""
        # All of it without a pause: the worker that has to wait meanwhile may be on this very loop.
        serving = self._serving()
        if serving == to:
            return True
        with self._turn(), contextlib.nullcontext(True) if serving is None else _still(serving) as still:
            if (record := _read(self._record(to))) and record.dropping:
                return False
            if not still or self._serving() != serving or (serving and not _reaches(to, serving)):
                return False
            beside = self._link.with_name(f".{self._link.name}.{secrets.token_hex(4)}")
            beside.symlink_to(file_of(to).name)
            beside.replace(self._link)
        return True

    async def remove(self, place: Place, timeout: float) -> bool:  # noqa: ASYNC109
        """Delete a place that nobody reads."""
        file, lock = file_of(place), lock_of(place)
        with lock.open("ab") as held:
            deadline = time.monotonic() + timeout
            while not _locked(held.fileno(), fcntl.LOCK_EX):
                if time.monotonic() > deadline:
                    return False
                await asyncio.sleep(AGAIN)
            for suffix in ("", "-wal", "-shm"):
                file.with_name(file.name + suffix).unlink(missing_ok=True)
            shutil.rmtree(file.with_name(file.name + ".requests"), ignore_errors=True)
            self._record(place).unlink(missing_ok=True)
            lock.unlink(missing_ok=True)
        return True

    async def close(self) -> None:
        """Nothing is open."""

    def _serving(self) -> Place | None:
        try:
            target = self._link.readlink()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise Unavailable(f"{self._link} is no link to a place: {error.strerror}") from error
        return self.labelled(_label(target, self.name))

    def _record(self, place: Place) -> Path:
        return file_of(place).with_suffix(".json")

    @contextlib.contextmanager
    def _turn(self) -> Generator[None]:
        """Change what is on record after whoever does so already, in whichever process."""
        with self._link.with_name(f".{self._link.name}.lock").open("ab") as turn:
            fcntl.flock(turn, fcntl.LOCK_EX)
            yield

    def _change(self, place: Place, change: Callable[[Record | None], Record | None]) -> bool:
        """Change a record, one process after the other; say whether there was anything to write."""
        file = self._record(place)
        with self._turn():
            after = change(_read(file))
            if after is None:
                return False
            beside = file.with_name(f".{file.name}.{secrets.token_hex(4)}")
            beside.write_text(json.dumps(asdict(after)), encoding="utf-8")
            beside.replace(file)
        return True


class FileReading:
    """A file that is being read by this process: as long as somebody does, it is not deleted."""

    def __init__(self, place: Place) -> None:
        self._lock = lock_of(place)
        self._held: int | None = None
        self._readers = 0

    def begin(self) -> bool:
        """Say that one more reads it; False where it is being deleted."""
        if self._held is None and self._lock.exists():
            self._held = os.open(self._lock, os.O_RDONLY)
        if self._held is not None and not self._readers and not _locked(self._held, fcntl.LOCK_SH):
            return False
        self._readers += 1
        return True

    def end(self) -> None:
        """Say that one has read it."""
        self._readers -= 1
        if not self._readers and self._held is not None:
            fcntl.flock(self._held, fcntl.LOCK_UN)

    def close(self) -> None:
        """Read it no more."""
        held, self._held = self._held, None
        if held is not None:
            os.close(held)


def file_of(place: Place) -> Path:
    """Give the file of a place."""
    return Path(str(place.url.database))


def lock_of(place: Place) -> Path:
    """Give the file that readers of a place hold."""
    return file_of(place).with_name(file_of(place).name + ".lock")


def _label(file: Path, name: str) -> str:
    return file.stem.removeprefix(f"{name}.")


def _read(file: Path) -> Record | None:
    try:
        return Record(**json.loads(file.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError) as error:
        raise Unavailable(f"{file} cannot be read: {error}") from error


def _locked(descriptor: int, how: int) -> bool:
    try:
        fcntl.flock(descriptor, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextlib.contextmanager
def _still(place: Place) -> Generator[bool]:
    """Keep a place from being written; give False where that is not possible at once."""
    uri = f"file:{quote(str(file_of(place)))}?mode=rw"
    try:
        connection = sqlite3.connect(uri, uri=True, timeout=0, isolation_level=None)
    except sqlite3.OperationalError:
        yield True  # there is no file: nobody writes it
        return
    with contextlib.closing(connection):
        try:
            connection.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            yield False
            return
        yield True
        connection.execute("ROLLBACK")


def _reaches(place: Place, other: Place) -> bool:
    """Whether a place includes all that another does, or follows another log."""
    mine, theirs = _stands(place), _stands(other)
    return theirs is None or (mine is not None and (mine[0] != theirs[0] or mine[1] >= theirs[1]))


def _stands(place: Place) -> tuple[str, int] | None:
    uri = f"file:{quote(str(file_of(place)))}?mode=ro"
    try:
        with contextlib.closing(sqlite3.connect(uri, uri=True, timeout=1)) as connection:
            row = connection.execute("SELECT min(log_id), min(position) FROM ceqs_checkpoint").fetchone()
    except sqlite3.Error:
        return None
    return row if row[0] is not None else None
