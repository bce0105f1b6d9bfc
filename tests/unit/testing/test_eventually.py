"""Waiting for a condition."""

from __future__ import annotations

import asyncio

import pytest

from ceqs.testing import eventually


async def test_it_gives_what_the_condition_gave() -> None:
    values = iter([0, None, "", "found"])
    assert await eventually(lambda: next(values)) == "found"


async def test_a_condition_may_be_async() -> None:
    values = iter([[], [1]])

    async def found() -> list[int]:
        await asyncio.sleep(0)
        return next(values)

    assert await eventually(found) == [1]


async def test_it_names_the_condition_that_did_not_come() -> None:
    def the_stream_is_complete() -> int:
        return 0

    with pytest.raises(AssertionError, match=r"not within 0\.05 s: .*the_stream_is_complete; it gave 0 at last"):
        await eventually(the_stream_is_complete, within=0.05)


async def test_it_shows_a_lambda_by_its_source() -> None:
    count = 3
    with pytest.raises(AssertionError, match=r"count == 4"):
        await eventually(lambda: count == 4, within=0.02)


async def test_a_condition_that_hangs_is_given_up() -> None:
    async def hangs() -> bool:
        await asyncio.sleep(60)
        return True

    with pytest.raises(AssertionError, match="hangs"):
        await eventually(hangs, within=0.05)


@pytest.mark.parametrize("error", [ValueError, TimeoutError])
async def test_an_error_of_the_condition_is_raised_at_once(error: type[Exception]) -> None:
    def broken() -> bool:
        raise error("broken")

    with pytest.raises(error, match="broken"):
        await eventually(broken)
