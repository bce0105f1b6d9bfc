"""Backing up and restoring a log on PostgreSQL: copies of its rows, by the database's own COPY where it takes them."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from sqlalchemy import Boolean, Table, func, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from ceqs.errors import LogUnavailable
from ceqs.log._backup import (
    Copied,
    Report,
    appearing,
    file_of_its_own,
    guard,
    lay,
    read_backup,
    read_only,
    refuse_to_replace,
    renewed,
)
from ceqs.log._connect_postgres import locked, schema, snapshot
from ceqs.log._ledger import SQLITE, Rows
from ceqs.log._postgres import BESIDE_TABLES
from ceqs.log._schema import meta, metadata
from ceqs.log._tables import identify

ROWS = 1_000
"""How many rows are copied between two reports."""


async def backup_postgres_log(url: str, name: str, file: Path, report: Report) -> Copied:
    """Back up the log in a database; see backup_log."""
    with appearing(file) as part:
        with file_of_its_own(part) as target:
            async with snapshot(url, name) as connection:
                if await connection.run_sync(identify, name, schema(name)) is None:
                    raise LogUnavailable(f"there is no log of {name!r} in the database yet: start its server")
                lay(target)
                target.execute("BEGIN")
                total, done = await _count(connection), 0
                for table in metadata.sorted_tables:
                    async for rows in _rows(connection, table):
                        SQLITE.insert(target, table, rows)
                        done += len(rows)
                        report(done, total)
                guard(target)
                target.execute("COMMIT")
        return Copied(read_backup(part, name), part.stat().st_size)


async def restore_postgres_log(url: str, name: str, file: Path, report: Report, *, replace: bool) -> Copied:
    """Restore the log in a database; see restore_log."""
    backup = read_backup(file, name)
    async with locked(url, name) as connection:
        present = await connection.run_sync(identify, name, schema(name))
        refuse_to_replace(name, present, replace=replace)
        head = renewed(backup, present)
        await connection.exec_driver_sql(f"DROP SCHEMA IF EXISTS {schema(name)} CASCADE")
        await connection.exec_driver_sql(f"CREATE SCHEMA {schema(name)}")
        await connection.run_sync(metadata.create_all, checkfirst=False)
        driver: Any = (await connection.get_raw_connection()).driver_connection
        with closing(read_only(file)) as source:
            done, total = 0, sum(_stored(source, table) for table in metadata.sorted_tables)
            for table in metadata.sorted_tables:
                columns = [column.name for column in table.columns]
                for rows in _portions(source, table):
                    await driver.copy_records_to_table(table.name, records=rows, columns=columns)
                    done += len(rows)
                    report(done, total)
        await connection.execute(update(meta).values(log_id=head.log_id, epoch=head.epoch))
        for statement in BESIDE_TABLES:
            await connection.exec_driver_sql(statement)
    return Copied(head, file.stat().st_size)  # noqa: ASYNC240  # nothing else runs meanwhile


async def _count(connection: AsyncConnection) -> int:
    counts = [await connection.scalar(select(func.count()).select_from(table)) for table in metadata.sorted_tables]
    return sum(count or 0 for count in counts)


async def _rows(connection: AsyncConnection, table: Table) -> AsyncGenerator[Rows]:
    async with connection.stream(select(table)) as result:
        async for rows in result.partitions(ROWS):
            yield [tuple(row) for row in rows]


def _stored(source: sqlite3.Connection, table: Table) -> int:
    ((count,),) = source.execute(f"SELECT count(*) FROM {table.name}").fetchall()  # noqa: S608  # ours
    return int(count)


def _portions(source: sqlite3.Connection, table: Table) -> Iterator[Sequence[Sequence[Any]]]:
    columns = ", ".join(column.name for column in table.columns)
    cursor = source.execute(f"SELECT {columns} FROM {table.name}")  # noqa: S608  # ours
    # SQLite has numbers for them.
    truths = [i for i, column in enumerate(table.columns) if isinstance(column.type, Boolean)]
    while rows := cursor.fetchmany(ROWS):
        yield [_with_truths(row, truths) for row in rows] if truths else rows


def _with_truths(row: Sequence[Any], truths: Sequence[int]) -> Sequence[Any]:
    values = list(row)
    for i in truths:
        values[i] = bool(values[i])
    return values
