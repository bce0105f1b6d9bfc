"""Reading from a PostgreSQL that comes and goes."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg

from ceqs.errors import LogUnavailable
from ceqs.log import Entry, NewEvent, Query, QueryItem, Span, open_log


async def test_reading_goes_on_after_its_connections_were_lost(postgres: str, name: str) -> None:
    log = await open_log(postgres, name)
    await log.append(Entry(command_id="c", events=(NewEvent(id="e", type="shop.Placed", payload=b"", tags=("a:1",)),)))
    query = Query((QueryItem(types=frozenset({"shop.Placed"})),))
    reads: list[Callable[[], Awaitable[Any]]] = [
        lambda: log.read_batch(Span()),
        lambda: log.read_batch(Span(query=query)),
        lambda: log.position_before(dt.datetime.now(dt.UTC)),
        lambda: log.tagged(["a:1"], 0, 1),
    ]
    admin = await asyncpg.connect(postgres)
    for read in reads:
        before = await read()
        await admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'ceqs'")
        outcomes = [*await asyncio.gather(*(read() for _ in range(4)), return_exceptions=True)]
        assert [one for one in outcomes if not isinstance(one, LogUnavailable) and one != before] == []
        for _ in range(4):
            assert await read() == before
    await admin.close()
    await log.close()
