"""The right to write a place: one worker has it for a while, renews it, and loses it to another if it does not.

It is kept in the checkpoint's row, with a token that grows whenever the lease changes hands. Every transaction of a
worker begins by asking for its token: one that was suspended for longer than its lease writes nothing any more when it
wakes up (M. Kleppmann, How to do distributed locking, 2016, calls it fencing).
"""

from __future__ import annotations

import functools
import hashlib
import os
import socket
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from ceqs.errors import CeqsError
from ceqs.projectors._place import Place
from ceqs.projectors._tables import CHECKPOINT

LEASE = 10.0
"""Seconds that a worker has the place to itself without renewing that."""


class Superseded(CeqsError):
    """Another process writes the place now."""


def now(place: Place) -> sa.ColumnElement[float]:
    """Give the time by the one clock that all who want the place go by, in seconds since 1970."""
    if place.schema:
        return sa.cast(sa.extract("epoch", sa.func.clock_timestamp()), sa.Double)
    # The processes of one machine; asked where a statement runs, not where it is made.
    return (sa.func.julianday("now") - 2_440_587.5) * 86_400.0


async def take(
    connection: AsyncConnection, place: Place, mine: sa.ColumnElement[bool], seconds: float
) -> tuple[int, str]:
    """Try to get the lease, in a transaction. Give its token, or 0 and who has it."""
    if place.schema:
        # No database that crashes gives the same token twice.
        await connection.execute(sa.text("SET LOCAL synchronous_commit TO on"))
    row = (await connection.execute(sa.select(CHECKPOINT.c.token, CHECKPOINT.c.holder).where(mine))).one()
    free = CHECKPOINT.c.expires_at <= now(place)
    if not row.holder or is_gone(row.holder):
        free = CHECKPOINT.c.holder == row.holder
    elif not (await connection.execute(sa.select(free).where(mine))).scalar_one():
        return 0, row.holder  # without asking for the right to write: that would wait for the holder's transaction
    taken = {"token": row.token + 1, "holder": myself(), "expires_at": now(place) + seconds}
    won = await connection.execute(
        sa.update(CHECKPOINT).where(mine, CHECKPOINT.c.token == row.token, free).values(taken)
    )
    return (row.token + 1, "") if won.rowcount == 1 else (0, row.holder)


@functools.cache
def myself() -> str:
    """Give what tells this process from all others, and tells people where it is: `host/pid/...`."""
    return f"{socket.gethostname()}/{os.getpid()}/{_machine()}/{_born(os.getpid())}"


def is_gone(holder: str) -> bool:
    """Whether a process has ended, as far as that can be seen from here: it was one of this machine."""
    _, pid, machine, born = [*holder.rsplit("/", 3), "", "", ""][:4]
    return machine == _machine() and pid.isdecimal() and _born(int(pid)) != born


def named(holder: str) -> str:
    """Give a holder for people: `process 4711 on host`."""
    host, pid, *_ = [*holder.rsplit("/", 3), "", ""]
    return f"process {pid} on {host}" if pid else ""


@functools.cache
def _machine() -> str:
    """Tell machines, and containers that do not see each other's processes, apart."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        namespace = str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return socket.gethostname()
    return hashlib.sha256(f"{boot} {namespace}".encode()).hexdigest()[:12]


def _born(pid: int) -> str:
    """Give when a process began: ids are used again. Empty where it has ended."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
    except OSError:
        return "" if Path("/proc/self/stat").exists() else _answers(pid)
    return "" if stat[0] in "ZX" else stat[19]


def _answers(pid: int) -> str:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return ""
    except PermissionError:
        return "alive"
    return "alive"
