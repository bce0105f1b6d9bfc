"""Waiting for a position that only grows."""

from __future__ import annotations

import asyncio

import pytest

from ceqs.log import Reached


async def test_those_who_wait_are_woken_when_it_is_beyond_what_they_wait_for() -> None:
    reached = Reached(1)
    assert await reached.beyond(0)
    near, far = (asyncio.ensure_future(reached.beyond(after, 10)) for after in (1, 5))
    await asyncio.sleep(0)
    assert reached.awaited
    reached.advance(5)
    assert await near
    assert not far.done()
    reached.advance(6)
    assert await far
    assert not reached.awaited


async def test_it_never_goes_back_and_a_wait_has_a_bound() -> None:
    reached = Reached(3)
    reached.advance(2)
    assert reached.position == 3
    assert not await reached.beyond(3, 0.0)
    assert not reached.awaited


async def test_an_error_is_for_those_who_wait_when_it_happens() -> None:
    reached = Reached()
    waiting = asyncio.ensure_future(reached.beyond(0))
    await asyncio.sleep(0)
    reached.fail(OSError("the disk is gone"))
    with pytest.raises(OSError, match="the disk is gone"):
        await waiting
    assert not await reached.beyond(0, 0.0)
