"""Group commit: what shares a transaction, and what an error of it costs."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from ceqs.log import MAX_BATCH_ENTRIES, Appended, Entry
from ceqs.log._judge import Outcome
from ceqs.log._prepare import Prepared
from ceqs.log._writer import Judged, Writer
from ceqs.v1.answers_pb2 import Receipt


class Commits:
    """Accepts everything; keeps the sizes of the batches, and raises what it is told to."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.error: Exception | None = None
        self.open = asyncio.Event()
        self.open.set()

    async def __call__(self, batch: Sequence[Prepared], judged: Judged, *, ahead: bool) -> Sequence[Outcome]:
        entries = [entry for group in batch for entry in group.entries]
        self.sizes.append(len(entries))
        await self.open.wait()
        if self.error:
            error, self.error = self.error, None
            raise error
        return [Appended.of(Receipt(command_id=one.command_id).SerializeToString()) for one in entries]


async def test_what_arrives_during_a_commit_shares_the_next_one() -> None:
    commits = Commits()
    commits.open.clear()
    writer = Writer(commits)
    tasks = [asyncio.create_task(writer.append(Entry(command_id="first")))]
    await asyncio.sleep(0.01)
    tasks += [asyncio.create_task(writer.append(Entry(command_id=f"c{i}"))) for i in range(MAX_BATCH_ENTRIES + 10)]
    await asyncio.sleep(0.01)
    commits.open.set()
    answers = await asyncio.gather(*tasks)
    assert commits.sizes == [1, MAX_BATCH_ENTRIES, 10]
    assert [a.receipt.command_id for a in answers] == ["first", *(f"c{i}" for i in range(MAX_BATCH_ENTRIES + 10))]
    await writer.close()


async def test_an_error_of_the_commit_reaches_everyone_in_the_batch_and_the_writer_goes_on() -> None:
    commits = Commits()
    writer = Writer(commits)
    commits.error = RuntimeError("a bug")
    outcomes = await asyncio.gather(
        *(writer.append(Entry(command_id=f"c{i}")) for i in range(3)), return_exceptions=True
    )
    assert [str(o) for o in outcomes] == ["a bug"] * 3
    assert (await writer.append(Entry(command_id="next"))).receipt.command_id == "next"
    await writer.close()


async def test_the_error_of_a_cancelled_callers_entry_is_nobodys() -> None:
    commits = Commits()
    commits.error = RuntimeError("a bug")
    writer = Writer(commits)
    leaving = asyncio.create_task(writer.append(Entry(command_id="c1")))
    await asyncio.sleep(0)
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    await writer.close()
    assert commits.sizes == [1]
