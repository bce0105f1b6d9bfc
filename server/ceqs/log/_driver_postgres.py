"""asyncpg as it is, on connections that SQLAlchemy keeps.

Of the time that a statement takes there, SQLAlchemy would spend more than the driver, the database and the way to it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, TypeAlias, cast

from sqlalchemy import AdaptedConnection, Connection

Driver: TypeAlias = AdaptedConnection
"""An asyncpg connection for code that does not await. To be used within `run_sync`."""

_NAME = re.compile(r"(?<![:\w]):(\w+)")


def driver_of(connection: Connection) -> Driver:
    """Give the driver's connection of one of SQLAlchemy's."""
    return cast("Driver", connection.connection.dbapi_connection)


def fetch(driver: Driver, statement: str, parameters: Mapping[str, object]) -> Sequence[Any]:
    """Execute a statement, with a parameter for each `:name` in it, and give its rows."""
    numbered, names = _numbered(statement)
    values = [parameters[name] for name in names]
    return cast("Sequence[Any]", driver.run_async(lambda own: own.fetch(numbered, *values)))


def change(driver: Driver, statement: str, parameters: Mapping[str, object]) -> int:
    """Execute a statement that changes rows, and give how many."""
    numbered, names = _numbered(statement)
    # `DELETE 3`, `INSERT 0 3`
    return int(execute(driver, numbered, *(parameters[name] for name in names)).rpartition(" ")[2])


def execute(driver: Driver, statement: str, *values: object) -> str:
    """Execute a statement, with a value for each `$n` in it, or several that have none; give what the last has done."""
    return cast("str", driver.run_async(lambda own: own.execute(statement, *values)))


@cache
def _numbered(statement: str) -> tuple[str, Sequence[str]]:
    """Give a statement with `$n` for each `:name`, and the names in their order."""
    names = list(dict.fromkeys(_NAME.findall(statement)))
    return _NAME.sub(lambda found: f"${names.index(found[1]) + 1}", statement), names
