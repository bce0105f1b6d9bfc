"""Whose fault it is that an event could not be applied: the event's own, the handler's, or that of circumstances.

Only an event that is to blame itself is ever parked. For a build that can do better, and for circumstances to pass, the
handler waits: neither may set events aside that are as good as any other.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from urllib.error import HTTPError

import grpc
import grpc.aio
from sqlalchemy.exc import DBAPIError, PendingRollbackError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from ceqs.errors import CeqsError, Expired, Misconfigured, Overloaded, Unavailable, Unreadable


class Blame(enum.Enum):
    """Whose fault a failure is."""

    EVENT = "event"
    """Another event may go: after some tries this one is parked."""
    HANDLER = "handler"
    """No other event would fare better before another build is deployed, or parked events are seen to."""
    CIRCUMSTANCES = "circumstances"
    """A database or a service that is down, a lost connection, a deadlock: it passes."""


class Full(CeqsError):
    """As many events are parked as may be. Retry or skip them: ceqs parked list."""


def blame(error: BaseException) -> Blame:
    """Say whose fault a failure is."""
    if isinstance(error, (Unreadable, Full, Misconfigured)):
        return Blame.HANDLER
    return Blame.CIRCUMSTANCES if any(map(_passes, _causes(error))) else Blame.EVENT


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """Give an error and what it stands for, or was raised in the face of."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        if isinstance(error, DBAPIError):
            error = error.orig
        else:
            error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def _passes(error: BaseException) -> bool:
    match error:
        case grpc.aio.AioRpcError():
            passes = error.code() in _CODES
        case PendingRollbackError():
            passes = error.code == "8s2b"  # SQLAlchemy's code for a connection that was lost in the transaction
        case DBAPIError():
            passes = error.connection_invalidated
        case HTTPError():
            passes = error.code >= 500 or error.code in _HTTP
        case OSError():
            passes = not isinstance(error, _FILES)
        case Unavailable() | Overloaded() | Expired() | PoolTimeout() | MemoryError():
            passes = True
        case _:
            sqlstate, sqlite = getattr(error, "sqlstate", None), getattr(error, "sqlite_errorcode", None)
            passes = (isinstance(sqlstate, str) and sqlstate.startswith(_POSTGRESQL)) or (
                isinstance(sqlite, int) and sqlite & 0xFF in _SQLITE
            )
    return passes


_CODES = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.UNAUTHENTICATED,
        grpc.StatusCode.PERMISSION_DENIED,
    }
)
_HTTP = frozenset({408, 425, 429})
"""What a service on the web may say where trying again later makes sense, besides that it has failed itself."""
_FILES = (FileExistsError, FileNotFoundError, IsADirectoryError, NotADirectoryError)
"""What opening a file that an event names may raise: the rest of OSError is the network's, or the machine's."""
_POSTGRESQL = ("08", "25006", "28", "3D", "40", "53", "55006", "55P03", "57", "58", "F0", "XX")
"""Connections, read-only servers, logins, databases, deadlocks, resources, locks, shutdowns, the system's own errors
(https://www.postgresql.org/docs/current/errcodes-appendix.html)."""
_SQLITE = frozenset({5, 6, 7, 8, 9, 10, 11, 13, 14, 15, 26})
"""BUSY, LOCKED, NOMEM, READONLY, INTERRUPT, IOERR, CORRUPT, FULL, CANTOPEN, PROTOCOL, NOTADB
(https://www.sqlite.org/rescode.html)."""
