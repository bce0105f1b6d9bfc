"""`ceqs tail` says where to begin: after a position, at a time, or with the last events."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import pytest

from ceqs.cli import _running, _tail
from ceqs.cli._output import Output
from ceqs.cli._settings import Settings
from ceqs.errors import Misconfigured
from ceqs.log import Entry, Log, NewEvent, open_log
from ceqs.server import Served, Server, ServerSettings
from ceqs.testing import eventually

BEGIN = dt.datetime(2010, 12, 1, 8, 26, tzinfo=dt.UTC)


class Clock:
    now = BEGIN


async def append(log: Log, number: int, *, public: bool = False) -> None:
    kind = "AccountAnnounced" if public else "AccountOpened"
    event = NewEvent(id=f"e{number}", type=f"bank.v1.{kind}", payload=b"", public=public)
    await log.append(Entry(command_id=str(number), events=(event,)))


@pytest.fixture
async def log() -> AsyncIterator[Log]:
    log = await open_log("memory:", "bank", clock=lambda: Clock.now)
    for number in range(1, 7):
        Clock.now = BEGIN + dt.timedelta(hours=8 * number)
        await append(log, number, public=number % 2 == 0)
    yield log
    await log.close()


Tailing = Callable[..., Coroutine[Any, Any, None]]


@pytest.fixture
async def tail(bank: Any, log: Log, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Tailing]:
    class Model:
        async def wait(self, position: int, timeout: float) -> bool:
            return True

    context = bank.make_context()
    server = Server([Served(context, log, {"Total": Model()})], ServerSettings(key="k", grace=5))  # type: ignore[dict-item]
    await server.start()
    monkeypatch.setattr(_tail, "load_contexts", lambda _: {"bank": context})
    monkeypatch.setattr(_running, "find_running", lambda _: None)
    monkeypatch.setattr(_running, "addresses_of", lambda *_: {"bank": server.address})
    given: dict[str, Any] = dict.fromkeys(("after", "since", "last", "private", "limit"))
    given |= {"types": (), "tags": (), "follow": False, "output": Output.JSON}

    async def run(**options: Any) -> None:
        await _tail.tail(Settings(key="k"), ["bank"], **(given | options))

    yield run
    await server.stop()


def positions(capsys: pytest.CaptureFixture[str]) -> list[int]:
    return [json.loads(line)["position"] for line in capsys.readouterr().out.splitlines()]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [1, 2, 3, 4, 5, 6]),
        ({"after": 4}, [5, 6]),
        ({"since": "2010-12-02"}, [2, 3, 4, 5, 6]),
        ({"since": "2010-12-02T16:26"}, [4, 5, 6]),
        ({"since": "2010-12-02T16:26:00.000001"}, [5, 6]),
        ({"since": "2010-12-02T16:26:00+08:00"}, [3, 4, 5, 6]),
        ({"since": "15m"}, []),
        ({"since": "2010-12-02", "limit": 2}, [2, 3]),
        ({"last": 2}, [5, 6]),
        ({"last": 100}, [1, 2, 3, 4, 5, 6]),
        ({"last": 2, "types": ["AccountOpened"]}, [3, 5]),
        ({"last": 2, "private": False}, [4, 6]),
    ],
)
async def test_it_begins_where_it_is_told(
    tail: Tailing, capsys: pytest.CaptureFixture[str], options: dict[str, Any], expected: list[int]
) -> None:
    await asyncio.wait_for(tail(**options), 30)
    assert positions(capsys) == expected


@pytest.mark.parametrize("options", [{}, {"last": 2}, {"since": "2010-12-03"}])
async def test_it_goes_on_with_what_is_recorded_later(
    log: Log,
    tail: Tailing,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    options: dict[str, Any],
) -> None:
    shown: list[int] = []
    show = _tail._show

    def note(contract: Any, event: Any, output: Output) -> None:
        shown.append(event.position)
        show(contract, event, output)

    monkeypatch.setattr(_tail, "_show", note)
    running = asyncio.create_task(tail(follow=True, **options))
    begin = [5, 6] if options else []
    await eventually(lambda: shown == begin)
    number = 7
    while shown == begin:
        # Until it listens: without a place to begin, it begins with what is recorded from then on.
        await append(log, number)
        number += 1
        await asyncio.sleep(0.05)
    assert shown[len(begin)] >= 7
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    capsys.readouterr()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"since": "yesterday"}, "--since yesterday: no such time; write 2010-12-02"),
        ({"since": "2010-12-02", "last": 3}, "give one of them"),
        ({"after": 0, "last": 3}, "give one of them"),
    ],
)
async def test_what_it_cannot_read_is_refused(tail: Tailing, options: dict[str, Any], says: str) -> None:
    with pytest.raises(Misconfigured, match=says):
        await tail(**options)
