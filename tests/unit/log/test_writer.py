"""Group commit: what shares a transaction, and what an error of it costs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest

from ceqs.errors import Conflict, LogUnavailable
from ceqs.log import MAX_BATCH_ENTRIES, Appended, Entry, Progress
from ceqs.log._judge import Outcome
from ceqs.log._prepare import Prepared
from ceqs.log._writer import Judged, Writer
from ceqs.testing import eventually
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


class Ahead:
    """Commits when it is let; each batch is judged at once. Of the first, the outcomes may become others untold."""

    def __init__(self) -> None:
        self.begun: list[tuple[list[str], bool]] = []
        self.turns = asyncio.Semaphore(0)
        self.judges_again = False
        self.refuses = False
        """Whether it refuses what goes ahead, once that is judged, and judges others only when it is let."""

    async def __call__(self, batch: Sequence[Prepared], judged: Judged, *, ahead: bool) -> Sequence[Outcome] | None:
        ids = [entry.command_id for group in batch for entry in group.entries]
        self.begun.append((ids, ahead))
        first = len(self.begun) == 1
        if self.refuses and not ahead and not first:
            await self.turns.acquire()
        outcomes: list[Outcome] = [Appended.of(Receipt(command_id=one).SerializeToString()) for one in ids]
        judged(outcomes)
        if ahead and self.refuses:
            return None
        await self.turns.acquire()
        return list(outcomes) if first and self.judges_again else outcomes


def appending(
    writer: Writer, command_id: str, upon: Progress | None = None
) -> tuple[Progress, asyncio.Task[Sequence[Outcome]]]:
    progress = Progress(upon)
    return progress, asyncio.create_task(writer.append_all([Entry(command_id=command_id)], progress))


@pytest.fixture
def ahead() -> Ahead:
    return Ahead()


@pytest.fixture
async def writer(ahead: Ahead) -> AsyncIterator[Writer]:
    made = Writer(ahead, ahead=True)
    yield made
    for _ in range(10):
        ahead.turns.release()
    await made.close()


async def test_one_at_most_goes_ahead(ahead: Ahead, writer: Writer) -> None:
    first, one = appending(writer, "c1")
    await first.judged.wait()
    _, two = appending(writer, "c2", first)
    _, three = appending(writer, "c3", first)
    await eventually(lambda: len(ahead.begun) == 2)
    ahead.turns.release()
    await one
    assert ahead.begun == [(["c1"], False), (["c2"], True)]
    ahead.turns.release()
    await two
    ahead.turns.release()
    await three
    assert ahead.begun[2:] == [(["c3"], False)]


async def test_nothing_goes_ahead_of_others_that_wait(ahead: Ahead, writer: Writer) -> None:
    """Or those would wait for as long as one comes upon the other."""
    first, one = appending(writer, "c1")
    await first.judged.wait()
    _, other = appending(writer, "other")
    await asyncio.sleep(0)
    _, two = appending(writer, "c2", first)
    ahead.turns.release()
    await one
    ahead.turns.release()
    await asyncio.gather(other, two)
    assert ahead.begun == [(["c1"], False), (["other", "c2"], False)]


async def test_what_has_just_ended_otherwise_than_it_told_has_nothing_ahead_of_it(ahead: Ahead, writer: Writer) -> None:
    ahead.judges_again = True
    first, one = appending(writer, "c1")
    await first.judged.wait()
    _, two = appending(writer, "c2", first)
    ahead.turns.release()  # it ends between the moment when the other one is given and the one when that is begun
    (void,) = await two
    assert isinstance(void, Conflict)
    assert one.done()
    assert ahead.begun == [(["c1"], False)]


async def test_nothing_goes_ahead_of_what_could_not_go_ahead_itself(ahead: Ahead, writer: Writer) -> None:
    ahead.refuses = True
    first, one = appending(writer, "c1")
    await first.judged.wait()
    second, two = appending(writer, "c2", first)
    await second.judged.wait()
    ahead.turns.release()
    await one
    await eventually(lambda: len(ahead.begun) == 3)
    # It is being stored, but to be judged once more: who was told the first outcomes must wait.
    writing = asyncio.create_task(writer.append_all([Entry(command_id="c3")], Progress(second)))
    await asyncio.sleep(0.01)
    assert ahead.begun == [(["c1"], False), (["c2"], True), (["c2"], False)]
    ahead.turns.release()
    ahead.turns.release()
    await two
    (void,) = await writing
    assert isinstance(void, Conflict)


async def test_a_writer_that_died_takes_nothing_more() -> None:
    async def die(batch: Sequence[Prepared], judged: Judged, *, ahead: bool) -> Sequence[Outcome]:
        raise asyncio.CancelledError

    writer = Writer(die)
    dying = asyncio.create_task(writer.append(Entry(command_id="c1")))
    await asyncio.wait([writer._task])
    with pytest.raises(LogUnavailable):
        await writer.append(Entry(command_id="c2"))
    dying.cancel()


async def test_a_writer_is_closed_once_what_goes_ahead_is_stored(ahead: Ahead, writer: Writer) -> None:
    first, one = appending(writer, "c1")
    await first.judged.wait()
    _, two = appending(writer, "c2", first)
    await eventually(lambda: len(ahead.begun) == 2)
    closing = asyncio.create_task(writer.close())
    ahead.turns.release()
    await one
    await asyncio.sleep(0.01)
    assert not closing.done()
    ahead.turns.release()
    await closing
    assert two.done()
