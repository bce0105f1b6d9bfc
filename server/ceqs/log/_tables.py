"""The tables of a log: made, and recognised."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, insert, inspect, select

from ceqs.errors import Misconfigured
from ceqs.log._identity import new_log_id
from ceqs.log._ledger import HEAD, to_head
from ceqs.log._schema import SCHEMA_VERSION, meta, metadata
from ceqs.log._types import Head


def create(connection: Connection, name: str, guards: Sequence[str]) -> None:
    """Create the tables of a new log, and the triggers that guard them."""
    metadata.create_all(connection, checkfirst=False)
    for guard in guards:
        connection.exec_driver_sql(guard)
    values = {"one": 1, "name": name, "log_id": new_log_id(), "epoch": 1, "tag_generation": 1, "tagging": 1}
    connection.execute(insert(meta), {**values, "schema_version": SCHEMA_VERSION})


def identify(connection: Connection, name: str, place: str) -> Head | None:
    """Give the head of the log that is stored here; None where there is none.

    Raises Misconfigured where it is another log, or of a schema that this code does not know.
    """
    if not inspect(connection).has_table(meta.name):
        return None
    row = connection.execute(select(meta.c.name, meta.c.schema_version)).one()
    if row.schema_version > SCHEMA_VERSION:
        raise Misconfigured(
            f"{place} has the schema version {row.schema_version}, this ceqs knows up to {SCHEMA_VERSION}: upgrade ceqs"
        )
    if row.schema_version < SCHEMA_VERSION:
        raise Misconfigured(
            f"{place} has the schema version {row.schema_version} of an earlier ceqs, this one needs {SCHEMA_VERSION}"
        )
    if row.name != name:
        raise Misconfigured(f"{place} is the log of {row.name!r}, not of {name!r}")
    return to_head(connection.execute(HEAD).one())
