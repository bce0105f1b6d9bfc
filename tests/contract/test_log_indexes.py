"""Reading walks along indexes: no statement looks at events that it does not give or must not look at."""

from __future__ import annotations

import itertools
import json
import re
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from ceqs.log import Entry, NewEvent, _histories, _select_postgres, _select_sqlite, open_log
from ceqs.log._connect_postgres import SETTINGS, schema
from ceqs.log._ledger import POSTGRES, SQLITE
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
                # From one position that is in question to the next, along each of the tags.
                onwards = f"position{'<' if order == 'DESC' else '>'}?"
                plan = [f"SEARCH {each} USING PRIMARY KEY (generation=? AND tag=? AND {onwards})" for each in "tu"]
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


OFTEN, SELDOM = "aaa:often", "zzz:seldom"
"""Every event carries one of them, three in all carry the other."""
PAIRS = [(OFTEN, SELDOM), (SELDOM, OFTEN)]


async def events_with_a_rare_tag(url: str, name: str, count: int) -> None:
    log = await open_log(url, name)
    for begin in range(0, count, 1000):
        events = (
            NewEvent(
                id=f"{begin + i}",
                type="shop.Type0",
                payload=b"",
                tags=(OFTEN, SELDOM) if begin + i in (5, 1500, count - 5) else (OFTEN,),
            )
            for i in range(1000)
        )
        await log.append(Entry(command_id=str(begin), events=tuple(events)))
    await log.close()


@pytest.mark.parametrize(("tag", "other"), PAIRS)
async def test_of_two_tags_together_sqlite_walks_along_the_rarer(tmp_path: Path, tag: str, other: str) -> None:
    await events_with_a_rare_tag(f"sqlite:///{tmp_path}/log.db", "orders", 4_000)
    chosen: dict[str, object] = {"tag": tag, "others": json.dumps([other]), "types": '["shop.Type0"]'}
    bounds: dict[str, object] = {"after": 10, "until": 4_000}
    asked = {"items": json.dumps([{"key": 1, "after": 10, "tag": tag, "others": [other]}]), "generation": 1}
    with closing(sqlite3.connect(tmp_path / "log.db")) as database:
        steps = 0

        def step() -> None:
            nonlocal steps
            steps += 1

        database.set_progress_handler(step, 1)
        for order in ORDERS:
            statement = _select_sqlite.by_tag(SLICE.columns, "position", order, types=True, others=True, public=False)
            found = [row[0] for row in database.execute(statement, bounds | chosen)]
            assert found == sorted([1501, 3996], reverse=order == "DESC")
        assert database.execute(SQLITE.moved, asked).fetchall() == [(1,)]
        asked["items"] = json.dumps([{"key": 1, "after": 3996, "tag": tag, "others": [other]}])
        assert database.execute(SQLITE.moved, asked).fetchall() == []
    # One event that is looked at costs some ten steps, and there are four thousand.
    assert steps < 3_000


@pytest.mark.parametrize(("tag", "other"), PAIRS)
async def test_of_two_tags_together_postgres_walks_along_the_rarer(
    postgres: str, name: str, tag: str, other: str
) -> None:
    await events_with_a_rare_tag(postgres, name, 4_000)
    item = {"tag": tag, "others": [other], "types": ["shop.Type0"]}
    database = await asyncpg.connect(postgres, server_settings={**SETTINGS, "search_path": schema(name)})
    statements: list[tuple[str, list[object]]] = [
        (_select_postgres.filtered(SLICE.columns, number, order, public=False), [10, 4_000, 100, json.dumps([item])])
        for number, order in itertools.product(["position"], ORDERS)
    ]
    for statement, arguments in statements:
        assert {row[0] for row in await database.fetch(statement, *arguments)} == {1501, 3996}
    for after, moved in ((10, [1]), (3996, [])):
        statement = POSTGRES.moved.replace(":items", "$1").replace(":generation", "$2")
        arguments = [json.dumps([{"key": 1, "after": after, **item}]), 1]
        assert [row[0] for row in await database.fetch(statement, *arguments)] == moved
        statements.append((statement, arguments))
    for statement, arguments in statements:
        await visits_few(database, statement, arguments)
    await database.close()


async def visits_few(database: asyncpg.Connection[Any], statement: str, arguments: Sequence[object]) -> None:
    """See that few rows of events and tags are looked at."""
    rows = await database.fetch(f"EXPLAIN (ANALYZE, TIMING OFF, COSTS OFF) {statement}", *arguments)
    plan = "\n".join(row[0] for row in rows)
    visited = re.findall(r" on (?:events|tags) .*rows=([\d.]+) loops=(\d+)", plan)
    assert visited, plan
    assert sum(float(rows) * int(loops) for rows, loops in visited) < 100, plan


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
async def test_postgres_reads_a_history_at_the_same_cost_however_long_the_log_is(
    postgres: str, name: str, planned: str
) -> None:
    """Even before it has gathered statistics."""
    await events_with_a_rare_tag(postgres, name, 4_000)
    settings = {**SETTINGS, "search_path": schema(name), "plan_cache_mode": planned}
    database = await asyncpg.connect(postgres, server_settings=settings)
    items = json.dumps([{"key": 7, "after": 10, "tag": SELDOM, "types": ["shop.Type0"]}])
    found, events = _histories._STATEMENTS["postgresql"]
    statements: list[tuple[str, list[object]]] = [
        (found.replace(":items", "$1").replace(":head", "$2").replace(":limit", "$3"), [items, 4_000, 100]),
        (events.replace(":positions", "$1"), ["[1501, 3996]"]),
    ]
    for statement, arguments in statements:
        assert len(await database.fetch(statement, *arguments)) == 2
        await visits_few(database, statement, arguments)
    await database.close()


@pytest.mark.parametrize("planned", ["force_custom_plan", "force_generic_plan"])
async def test_postgres_walks_along_indexes(postgres: str, name: str, planned: str) -> None:
    log = await open_log(postgres, name)
    await log.append(some_events())
    settings = {**SETTINGS, "search_path": schema(name), "plan_cache_mode": planned}
    database = await asyncpg.connect(postgres, server_settings=settings)
    for statement, arguments in postgres_statements():
        rows = await database.fetch(f"EXPLAIN {statement}", *arguments)
        plan = "\n".join(row[0] for row in rows)
        scans = re.findall(r"(.*?) on (events|tags) .*\n\s+(.*)", plan)
        assert scans, plan
        for scan, table, condition in scans:
            assert re.search(r"Index (Only )?Scan( Backward)? using", scan), (statement, plan)
            assert condition.startswith("Index Cond") or "search(low" in statement, (statement, plan)
            assert table == "events" or all(f"{c} " in condition for c in ("generation", "tag", '"position"')), plan
    await database.close()
    await log.close()
