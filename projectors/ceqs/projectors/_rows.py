"""The table of a keyed model: a row for each key, with the message as bytes and a column for each indexed field."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import cache
from typing import Any

import sqlalchemy as sa
from google.protobuf.message import Message
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from ceqs.contract import ColumnKind, KeyedModel, snake
from ceqs.errors import Misconfigured
from ceqs.model import Key, KeyedProjection, Projection, TableProjection

MESSAGE = "ceqs_message"
"""The column of the message. Fields are not named so."""


def metadata_of(projection: Projection) -> sa.MetaData:
    """Give the tables of a projection: its own, or that of its keyed model."""
    if isinstance(projection, KeyedProjection):
        return table_of(projection.ceqs_model).metadata
    if isinstance(projection, TableProjection):
        return projection.metadata
    raise neither(projection)


def neither(projection: Projection) -> Misconfigured:
    """Say that a projection is of no kind that there is."""
    return Misconfigured(f"{type(projection).__name__} is neither a TableProjection nor a KeyedProjection")


@cache
def table_of(model: KeyedModel) -> sa.Table:
    """Give the table of a keyed model, which is named like it: `order_line` for `OrderLine`."""
    key, *indexed = [sa.Column(column.field, _TYPES[column.kind], nullable=False) for column in model.columns]
    key.primary_key, key.autoincrement = True, False
    table = sa.Table(
        snake(model.name), sa.MetaData(), key, *indexed, sa.Column(MESSAGE, sa.LargeBinary, nullable=False)
    )
    for column in indexed:
        # Pages follow the key where the column does not tell rows apart.
        sa.Index(f"{table.name}_{column.name}", column, key)
    return table


def key_of(model: KeyedModel, tag: str) -> Key:
    """Give the key that a tag stands for: `book:1`."""
    value = tag.partition(":")[2]
    return value if model.columns[0].kind is ColumnKind.TEXT else int(value)


def stored(kind: ColumnKind, value: Any) -> Any:
    """Give the value of a field as its column holds it."""
    match kind:
        case ColumnKind.NATURAL:
            return f"{value:020d}"
        case ColumnKind.TIME:
            return value.ToMicroseconds()
        case _:
            return value


async def read_rows(connection: AsyncConnection, model: KeyedModel, keys: Collection[Key]) -> Mapping[Key, bytes]:
    """Give the messages that there are of these keys, as bytes."""
    kind, wanted = model.columns[0].kind, _wanted(model, connection.dialect.name)
    by_value = {stored(kind, key): key for key in keys}
    found: dict[Key, bytes] = {}
    for some in _portions(list(by_value)):
        for value, message in await connection.execute(wanted, {"keys": some}):
            found[by_value[value]] = message
    return found


@cache
def _wanted(model: KeyedModel, dialect: str) -> sa.Select[Any, bytes]:
    """Give the statement that reads the rows of `keys`; on PostgreSQL it is one for any number of them."""
    table = table_of(model)
    key = table.c[model.key_field]
    if dialect == "postgresql":
        one_of = key == sa.any_(sa.bindparam("keys", type_=postgresql.ARRAY(key.type)))
    else:
        one_of = key.in_(sa.bindparam("keys", expanding=True))
    return sa.select(key, table.c[MESSAGE]).where(one_of)


async def write_rows(connection: AsyncConnection, model: KeyedModel, rows: Mapping[Key, Message | None]) -> None:
    """Put messages under their keys, in the place of those that are there; None deletes."""
    table, kind = table_of(model), model.columns[0].kind
    kept = [
        {c.field: stored(c.kind, getattr(message, c.field)) for c in model.columns}
        | {MESSAGE: message.SerializeToString()}
        for message in rows.values()
        if message is not None
    ]
    if kept:
        insert = (postgresql if connection.dialect.name == "postgresql" else sqlite).insert(table)
        key = table.c[model.key_field]
        others = {column.name: insert.excluded[column.name] for column in table.c if column is not key}
        await connection.execute(insert.on_conflict_do_update(index_elements=[key], set_=others), kept)
    gone = [stored(kind, key) for key, message in rows.items() if message is None]
    for some in _portions(gone):
        await connection.execute(sa.delete(table).where(table.c[model.key_field].in_(some)))


def _portions(values: Sequence[Any]) -> list[Sequence[Any]]:
    """Give values in portions that a statement takes as its parameters."""
    return [values[first : first + _MOST] for first in range(0, len(values), _MOST)]


_MOST = 500
_TYPES: Mapping[ColumnKind, Any] = {
    # The same order in every database.
    ColumnKind.TEXT: sa.String().with_variant(sa.String(collation="C"), "postgresql"),
    ColumnKind.INTEGER: sa.BigInteger(),
    ColumnKind.NATURAL: sa.String().with_variant(sa.String(collation="C"), "postgresql"),
    ColumnKind.BOOLEAN: sa.Boolean(),
    ColumnKind.TIME: sa.BigInteger(),
}
