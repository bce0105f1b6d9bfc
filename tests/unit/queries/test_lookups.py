"""Rows that are asked for at a time are looked up together, and none of them from before it was asked for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from ceqs.errors import Unavailable
from ceqs.queries._lookups import Look, Lookups
from ceqs.testing import eventually


class Gated:
    """A reader whose sessions, once they have their snapshot, wait for a gate; or fail."""

    def __init__(self, reader: Any) -> None:
        self.reader, self.gate, self.sessions = reader, asyncio.Event(), 0
        self.failing = False

    @asynccontextmanager
    async def session(self) -> AsyncIterator[Any]:
        self.sessions += 1
        if self.failing:
            raise Unavailable("the database is down")
        async with self.reader.session() as found:
            await self.gate.wait()
            yield found


async def test_who_asks_while_others_look_is_part_of_the_next_look(stacks: Any) -> None:
    model, gated = stacks.context.contract.models["Book"], Gated(stacks.readers["Book"])

    async def aged(_: Any) -> Any:
        return None

    def seen(look: Look) -> tuple[int, int]:
        return look.position, stacks.shelves.Book.FromString(look.rows["1"]).times

    lookups = Lookups(model, gated, aged)  # type: ignore[arg-type]  # nobody waits for a position here
    await stacks.record(stacks.lent("1"))
    await stacks.fill()
    first = asyncio.create_task(lookups.look("1"))
    await eventually(lambda: gated.sessions == 1)
    await stacks.record(stacks.lent("1"), stacks.lent("2"))
    await stacks.fill()
    rest = [asyncio.create_task(lookups.look(book)) for book in "12" * 30]
    await asyncio.sleep(0)
    rest[0].cancel()
    gated.gate.set()
    assert seen(await first) == (1, 1)
    assert {seen(look) for look in await asyncio.gather(*rest[1:])} == {(3, 2)}
    assert gated.sessions == 2

    gated.failing = True
    failed = await asyncio.gather(*(lookups.look("1") for _ in range(5)), return_exceptions=True)
    assert [type(one) for one in failed] == [Unavailable] * 5
    gated.failing = False
    assert seen(await lookups.look("1")) == (3, 2)


async def test_who_is_on_the_way_is_part_of_the_look_even_if_nobody_was_before(stacks: Any) -> None:
    """Where a look takes less than a turn of the loop, nobody ever asks while others look: each would look alone."""
    gated = Gated(stacks.readers["Book"])
    gated.gate.set()

    async def aged(_: Any) -> Any:
        return None

    async def come(turns: int) -> Look:
        for _ in range(turns):
            await asyncio.sleep(0)
        return await lookups.look(str(turns))

    lookups = Lookups(stacks.context.contract.models["Book"], gated, aged)  # type: ignore[arg-type]  # as above
    await stacks.record(*(stacks.lent(str(number)) for number in range(4)))
    await stacks.fill()
    looks = await asyncio.gather(*map(come, range(4)))
    assert gated.sessions == 1
    assert looks[0].rows.keys() == {"0", "1", "2", "3"}
