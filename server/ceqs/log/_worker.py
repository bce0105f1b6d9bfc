"""A thread that works for an event loop, one thing after the other."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from threading import Thread
from typing import Any, TypeVar, TypeVarTuple, Unpack

_T = TypeVar("_T")
_Ts = TypeVarTuple("_Ts")


class Worker:
    """Does what takes long.

    Of an executor of the standard library, the way there and back costs several times as much.
    """

    def __init__(self, name: str) -> None:
        self._work: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._closed = False
        self._thread = Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def do(self, work: Callable[[Unpack[_Ts]], _T], *arguments: *_Ts) -> asyncio.Future[_T]:
        """Do something after all that was asked for before. It is done even if nobody waits for it any more.

        Raises RuntimeError where the thread has been told to end.
        """
        if self._closed:
            raise RuntimeError("the thread has been told to end")
        loop = asyncio.get_running_loop()
        done: asyncio.Future[_T] = loop.create_future()

        def job() -> None:
            settled: Callable[[asyncio.Future[Any], Any], None] = _succeed
            try:
                outcome: Any = work(*arguments)
            except BaseException as error:  # noqa: BLE001  # it is the asker's, who raises it
                settled, outcome = _fail, error
            # Where the loop has ended, nobody waits.
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(settled, done, outcome)

        self._work.put(job)
        return done

    def close(self) -> None:
        """End, once all is done that was asked for."""
        self._closed = True
        self._work.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (job := self._work.get()) is not None:
            job()
            del job


def _succeed(done: asyncio.Future[Any], result: Any) -> None:
    if not done.done():
        done.set_result(result)


def _fail(done: asyncio.Future[Any], error: BaseException) -> None:
    if not done.done():
        done.set_exception(error)
