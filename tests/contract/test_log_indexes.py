"""Reading walks along indexes: no statement looks at events that it does not give or must not look at."""

from __future__ import annotations

import itertools
import json
import re
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

import asyncpg
import pytest

from ceqs.log import Entry, NewEvent, _select_postgres, _select_sqlite, open_log
from ceqs.log._postgres import _SETTINGS, schema
from ceqs.log._select import BATCH, SLICE, position_before

FORMS = (SLICE.columns, BATCH.columns)
NUMBERS = ("position", "public_position")
ORDERS = ("ASC", "DESC")
BOOLS = (True, False)


def some_events(count: int = 300) -> Entry:
    events = (
        NewEvent(
            id=f"00000000-0000-7000-8000-{i:012}",
            type=f"shop.Type{i % 3}",
            payload=b"",
            tags=(f"order:{i % 4}", f"product:{i % 5}"),
            public=i % 2 == 0,
        )
        for i in range(count)
    )
    return Entry(command_id="c", events=tuple(events))


def sqlite_statements() -> Iterator[tuple[str, Sequence[str]]]:
    """Give each statement, and what its plan shall say."""
    tagged = "SEARCH t USING PRIMARY KEY (generation=? AND tag=? AND position>? AND position<?)"
    for columns, number, order in itertools.product(FORMS, NUMBERS, ORDERS):
        public = number == "public_position"
        key = "INDEX events_public (public_position" if public else "INTEGER PRIMARY KEY (rowid"
        last = "public_position" if public else "rowid"
        yield _select_sqlite.plain(columns, number, order), [f"SEARCH e USING {key}>? AND {last}<?)"]
        yield (
            _select_sqlite.by_type(columns, number, order, public=public),
            ["SEARCH e USING INDEX events_by_type (type=? AND position>? AND position<?)"],
        )
        for types, others in itertools.product(BOOLS, BOOLS):
            plan = [tagged, "SEARCH e USING INTEGER PRIMARY KEY (rowid=?)"]
            if others:
                plan.append("SEARCH u USING PRIMARY KEY (generation=? AND tag=? AND position=?)")
            yield _select_sqlite.by_tag(columns, number, order, types=types, others=others, public=public), plan
    yield position_before("position", ":micros"), ["SEARCH e USING INTEGER PRIMARY KEY (rowid=?)"]
    yield position_before("public_position", ":micros"), ["SEARCH e USING INDEX events_public (public_position=?)"]
    yield _select_sqlite.TAGGED, [tagged]


async def test_sqlite_walks_along_indexes(tmp_path: Path) -> None:
    log = await open_log(f"sqlite:///{tmp_path}/log.db", "orders")
    await log.append(some_events())
    await log.close()
    with closing(sqlite3.connect(tmp_path / "log.db")) as database:
        for statement, expected in sqlite_statements():
            named = dict.fromkeys(re.findall(r":(\w+)", statement), 1) | {"types": "[]", "others": "[]", "tags": "[]"}
            rows = database.execute(f"EXPLAIN QUERY PLAN {statement}", named).fetchall()
            plan = "\n".join(row[3] for row in rows)
            assert all(part in plan for part in expected), (statement, plan)
            # Rows come in the order of the index, so that reading stops where a read is full.
            assert "TEMP B-TREE" not in plan, (statement, plan)
            # The last event is found by a scan that ends with the first row.
            assert "RECURSIVE" in statement or not re.search(r"SCAN (e|t|u|events|tags)\b", plan), (statement, plan)


async def test_sqlite_looks_at_no_more_than_it_gives(tmp_path: Path) -> None:
    """What a read costs does not grow with the log."""
    costs = []
    for count in (2_000, 20_000):
        path = tmp_path / f"{count}.db"
        log = await open_log(f"sqlite:///{path}", "orders")
        for begin in range(0, count, 1000):
            entry = some_events(1000)
            await log.append(Entry(command_id=str(begin), events=entry.events))
        await log.close()
        with closing(sqlite3.connect(path)) as database:
            steps = 0

            def step() -> None:
                nonlocal steps
                steps += 1

            database.set_progress_handler(step, 1)
            for statement, _ in sqlite_statements():
                given = {"after": 100, "until": 1 << 60, "type": "shop.Type0", "tag": "order:0", "micros": 0}
                lists = {"types": '["shop.Type0"]', "others": '["product:0"]', "tags": '["order:0"]'}
                if ":tags" in statement:
                    given["until"] = 200
                database.execute(statement, given | lists).fetchmany(10)
            costs.append(steps)
    assert costs[1] < costs[0] * 1.2


def postgres_statements() -> Iterator[tuple[str, list[object]]]:
    items = json.dumps(
        [
            {"type": "shop.Type0"},
            {"tag": "order:0", "types": ["shop.Type0"], "others": ["product:0"]},
            {"tag": "order:3", "types": None, "others": []},
        ]
    )
    for columns, number, order in itertools.product(FORMS, NUMBERS, ORDERS):
        yield _select_postgres.plain(columns, number, order), [5, 250, 10]
        public = number == "public_position"
        yield _select_postgres.filtered(columns, number, order, public=public), [5, 250, 10, items]
    for number in NUMBERS:
        yield position_before(number, "$1::bigint"), [0]
    yield _select_postgres.TAGGED, [["order:0", "order:3"], 5, 50]


@pytest.mark.parametrize("planned", ["force_custom_plan", "force_generic_plan"])
async def test_postgres_walks_along_indexes(postgres: str, name: str, planned: str) -> None:
    log = await open_log(postgres, name)
    await log.append(some_events())
    settings = {**_SETTINGS, "search_path": schema(name), "plan_cache_mode": planned}
    database = await asyncpg.connect(postgres, server_settings=settings)
    for statement, arguments in postgres_statements():
        rows = await database.fetch(f"EXPLAIN {statement}", *arguments)
        plan = "\n".join(row[0] for row in rows)
        scans = re.findall(r"(.*?) on (events|tags) .*\n\s+(.*)", plan)
        assert scans, plan
        for scan, table, condition in scans:
            assert re.search(r"Index (Only )?Scan( Backward)? using", scan), (statement, plan)
            assert condition.startswith("Index Cond") or "RECURSIVE" in statement, (statement, plan)
            assert table == "events" or all(f"{c} " in condition for c in ("generation", "tag", '"position"')), plan
    await database.close()
    await log.close()
