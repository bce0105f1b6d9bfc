"""The epoch of a log's streams, and the id that tells a log from every other."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from ceqs.errors import LogReplaced
from ceqs.log import Condition, Entry, Log, NewEvent, Query, QueryItem, open_log, open_reader
from ceqs.v1.events_pb2 import RecordedEvent

EVENT = NewEvent(id="01a20683-d39b-7081-aff0-7069e5d45daf", type="T", payload=b"", tags=("a:1",))


async def test_an_epoch_begins_beyond_every_other_and_stays(url: str, name: str) -> None:
    log = await open_log(url, name)
    assert (await log.head()).epoch == 1
    assert (await log.begin_epoch()).epoch == 2
    assert (await log.begin_epoch(after=1)).epoch == 3
    assert (await log.begin_epoch(after=7)).epoch == 8
    await log.append(Entry(command_id="c", events=(EVENT,)))
    head = await log.head()
    assert (head.epoch, head.position, head.log_id) == (8, 1, log.log_id)
    await log.close()
    if url != "memory:":
        again = await open_log(url, name)
        assert (await again.head()).epoch == 8
        await again.close()


async def test_epochs_begin_while_commands_are_recorded(log: Log) -> None:
    async def record(number: int) -> None:
        await log.append(Entry(command_id=f"c{number}", events=(EVENT,)))

    recording = [asyncio.create_task(record(number)) for number in range(100)]
    begun = [await log.begin_epoch() for _ in range(5)]
    await asyncio.gather(*recording)
    assert [head.epoch for head in begun] == [2, 3, 4, 5, 6]
    head = await log.head()
    assert (head.epoch, head.position) == (6, 100)


async def test_a_renewed_log_is_another_one_to_whoever_had_opened_it(url: str, name: str) -> None:
    log = await open_log(url, name)
    await log.append(Entry(command_id="c", events=(EVENT,)))
    # On SQLite, another process would read; on PostgreSQL, write too.
    others: list[Any] = []
    if url != "memory:":
        others.append(await open_reader(url, name))
    if url.startswith("postgres"):
        others.append(await open_log(url, name))
    renewed = await log.begin_epoch(renew=True)
    assert renewed.log_id != log.log_id
    for one in (log, *others):
        with pytest.raises(LogReplaced, match=f"is {renewed.log_id} by now, no longer {log.log_id}"):
            await one.head()
    for one in (log, *others):
        if isinstance(one, type(log)):
            boundary = Condition(Query((QueryItem(frozenset({"T"}), frozenset({"a:1"})),)), 1)
            with pytest.raises(LogReplaced):
                await one.append(Entry(command_id="d", events=(EVENT,), condition=boundary))
        await one.close()
    if url != "memory:":
        again = await open_log(url, name)
        assert (await again.head()) == renewed
        assert [RecordedEvent.FromString(e.envelope).id for e in (await again.read()).events] == [EVENT.id]
        await again.close()
