"""Whose fault a failure is: only what is the event's own may park it."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
import sqlalchemy as sa

from ceqs.errors import Invalid, Misconfigured, Unavailable, Unreadable
from ceqs.projectors._blame import Blame, Full, blame


def of_postgresql(sqlstate: str) -> Exception:
    original: Any = Exception(sqlstate)
    original.sqlstate = sqlstate
    return sa.exc.DBAPIError("SELECT 1", {}, original)


def of_grpc(code: grpc.StatusCode) -> Exception:
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata())


def raised_from(cause: Exception) -> Exception:
    error = RuntimeError("the price is unknown")
    error.__cause__ = cause
    return error


def raised_while(context: Exception) -> Exception:
    error = KeyError("price")
    error.__context__ = context
    return error


@pytest.mark.parametrize(
    "error",
    [
        *map(of_postgresql, ("08006", "40001", "40P01", "53100", "53300", "55P03", "57014", "57P01", "25006", "XX000")),
        sa.exc.DBAPIError("SELECT 1", {}, Exception(), connection_invalidated=True),
        sa.exc.TimeoutError("QueuePool limit"),
        sa.exc.PendingRollbackError("reconnect", code="8s2b"),
        of_grpc(grpc.StatusCode.UNAVAILABLE),
        of_grpc(grpc.StatusCode.DEADLINE_EXCEEDED),
        ConnectionResetError(),
        TimeoutError(),
        OSError(28, "No space left on device"),
        MemoryError(),
        Unavailable("later"),
        raised_from(ConnectionRefusedError()),
        raised_while(ConnectionRefusedError()),
        raised_from(of_postgresql("40P01")),
    ],
    ids=repr,
)
def test_circumstances_pass(error: Exception) -> None:
    assert blame(error) is Blame.CIRCUMSTANCES


@pytest.mark.parametrize(
    "error",
    [
        *map(of_postgresql, ("23505", "22001", "42P01", "P0001")),
        of_grpc(grpc.StatusCode.INVALID_ARGUMENT),
        ValueError("no"),
        FileNotFoundError("picture.png"),
        Invalid("no such price"),
        raised_from(ValueError()),
    ],
    ids=repr,
)
def test_an_event_is_to_blame_for_the_rest(error: Exception) -> None:
    assert blame(error) is Blame.EVENT


@pytest.mark.parametrize("error", [Unreadable("later"), Full("no room"), Misconfigured("yields nothing")], ids=repr)
def test_the_handler_is_to_blame_for_what_no_event_would_mend(error: Exception) -> None:
    assert blame(error) is Blame.HANDLER


def test_a_sqlite_file_that_is_locked_is_a_circumstance_and_a_missing_table_is_not(tmp_path: Path) -> None:
    first = sqlite3.connect(tmp_path / "x.db", isolation_level=None)
    second = sqlite3.connect(tmp_path / "x.db", isolation_level=None, timeout=0)
    first.execute("BEGIN IMMEDIATE")
    found: list[Blame] = []
    for statement in ("BEGIN IMMEDIATE", "SELECT * FROM nowhere"):
        with pytest.raises(sqlite3.OperationalError) as raised:
            second.execute(statement)
        found.append(blame(sa.exc.OperationalError(statement, {}, raised.value)))
    first.close()
    second.close()
    assert found == [Blame.CIRCUMSTANCES, Blame.EVENT]
