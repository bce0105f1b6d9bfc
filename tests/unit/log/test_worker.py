"""A thread that works for the loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from functools import partial

import pytest

from ceqs.log._worker import Worker
from ceqs.testing import eventually


@pytest.fixture
def worker() -> Iterator[Worker]:
    worker = Worker("ours")
    yield worker
    worker.close()


async def test_things_are_done_in_order_elsewhere_and_answered_here(worker: Worker) -> None:
    done: list[int] = []

    def work(number: int) -> tuple[int, str]:
        done.append(number)
        return number, threading.current_thread().name

    assert await asyncio.gather(*(worker.do(work, number) for number in range(5))) == [(n, "ours") for n in range(5)]
    assert done == [0, 1, 2, 3, 4]


async def test_an_error_is_the_askers_and_the_next_is_done_all_the_same(worker: Worker) -> None:
    for error in (ValueError("a bug"), SystemExit()):

        def fail(error: BaseException = error) -> None:
            raise error

        (raised,) = await asyncio.gather(worker.do(fail), return_exceptions=True)
        assert raised is error
    assert await worker.do(int, "7") == 7


async def test_what_nobody_waits_for_any_more_is_done(worker: Worker) -> None:
    begin, done = threading.Event(), list[str]()
    held = worker.do(begin.wait, 30)
    worker.do(done.append, "left").cancel()
    worker.do(partial(int, "no number")).cancel()
    begin.set()
    assert await held
    await eventually(lambda: done == ["left"])
    assert await worker.do(int, "7") == 7


def test_it_outlives_a_loop(worker: Worker) -> None:
    begin = threading.Event()

    async def ask() -> None:
        worker.do(begin.wait, 30)

    asyncio.run(ask())
    begin.set()

    async def ask_again() -> int:
        return await worker.do(int, "7")

    assert asyncio.run(ask_again()) == 7


async def test_closing_waits_for_what_was_asked_for() -> None:
    worker, done = Worker("ours"), list[int]()
    for number in range(100):
        worker.do(done.append, number)
    worker.close()
    assert done == list(range(100))
    with pytest.raises(RuntimeError, match="told to end"):
        worker.do(int)
