"""Following the head: one look at a time, none while nobody waits."""

from __future__ import annotations

import asyncio

import pytest

from ceqs.errors import LogUnavailable
from ceqs.log import Head
from ceqs.log._follower import Follower
from ceqs.testing import eventually

EMPTY = Head("log")


class Moving:
    """A head that somebody else moves."""

    def __init__(self) -> None:
        self.position = self.public_position = 0
        self.looks = 0
        self.error: Exception | None = None

    async def poll(self) -> Head:
        self.looks += 1
        if self.error:
            raise self.error
        await asyncio.sleep(0)
        return Head("log", self.position, self.public_position)


async def test_a_thousand_who_wait_cost_one_look_at_a_time() -> None:
    head = Moving()
    follower = Follower(EMPTY, head.poll)
    waiting = [asyncio.create_task(follower.wait(0, 30)) for _ in range(1000)]
    await eventually(lambda: head.looks > 5)
    assert head.looks < 50
    head.position = 7
    assert await asyncio.gather(*waiting) == [7] * 1000
    await follower.close()


async def test_nobody_looks_while_nobody_waits() -> None:
    head = Moving()
    follower = Follower(EMPTY, head.poll)
    assert head.looks == 0
    assert await follower.wait(0, 0.02) == 0
    assert head.looks > 0
    await asyncio.sleep(0.05)
    looks = head.looks
    await asyncio.sleep(0.1)
    assert head.looks == looks
    head.position = 1
    assert await follower.wait(0, 30) == 1
    await follower.close()


async def test_an_error_of_the_look_is_theirs_who_wait_and_the_next_one_looks_again() -> None:
    head = Moving()
    follower = Follower(EMPTY, head.poll)
    head.error = LogUnavailable("gone")
    outcomes = await asyncio.gather(*(follower.wait(0, 30) for _ in range(3)), return_exceptions=True)
    assert [str(o) for o in outcomes] == ["gone"] * 3
    head.error, head.position = None, 1
    assert await follower.wait(0, 30) == 1
    await follower.close()


async def test_who_follows_the_public_events_is_not_woken_by_the_others() -> None:
    head = Moving()
    follower = Follower(EMPTY, head.poll)
    public = asyncio.create_task(follower.wait(0, 30, public=True))
    for position in range(1, 4):
        head.position = position
        assert await follower.wait(position - 1, 30) == position
    assert not public.done()
    head.position, head.public_position = 4, 1
    assert await public == 1
    await follower.close()


@pytest.mark.parametrize("public", [False, True])
async def test_closing_wakes_those_who_wait(public: bool) -> None:
    follower = Follower(EMPTY)
    waiting = asyncio.create_task(follower.wait(0, 30, public=public))
    await asyncio.sleep(0)
    await follower.close()
    with pytest.raises(LogUnavailable, match="closed"):
        await waiting


async def test_the_head_never_goes_back() -> None:
    follower = Follower(Head("log", 5, 2))
    follower.advance(3, 1)
    assert await follower.wait(4, 30) == 5
    assert await follower.wait(1, 30, public=True) == 2
    await follower.close()
