"""Which log this is: the epoch of its streams, and the id that tells it from every other of its name."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

from ceqs.errors import LogReplaced
from ceqs.log._types import Head

if TYPE_CHECKING:
    from ceqs.log._ledger import C, Dialect

_BEGIN = "UPDATE meta SET epoch = :epoch, log_id = :log_id"


def new_log_id() -> str:
    """Give the id of a log that is being created, restored or renewed."""
    return uuid.uuid4().hex


def next_epoch(head: Head, after: int) -> int:
    """Give the epoch beyond that of a log and another one."""
    return max(head.epoch, after) + 1


def begin_epoch(connection: C, dialect: Dialect[C], *, after: int, renew: bool) -> Head:
    """Begin the next epoch; see Log.begin_epoch. To be called under the log's lock."""
    head, _ = dialect.head(connection)
    log_id = new_log_id() if renew else head.log_id
    dialect.run(connection, _BEGIN, {"epoch": next_epoch(head, after), "log_id": log_id})
    return dialect.head(connection)[0]


def refuse_another(name: str, log_id: str, head: Head) -> Head:
    """Give the head of the log that was opened as `log_id`. Raises LogReplaced where it is another log by now."""
    if head.log_id != log_id:
        raise LogReplaced(
            f"the log of {name} is {head.log_id} by now, no longer {log_id}: it was restored from a backup, or renewed",
            metadata={"log_id": head.log_id},
        )
    return head
