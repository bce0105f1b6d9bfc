"""PostgreSQL: servers write while the log is retagged."""

from __future__ import annotations

import asyncio
import itertools
from contextlib import suppress
from typing import Any

import pytest
from tests.contract.retag.orders import CUSTOMER, Declared, event, found, numbers, place, retag_log

from ceqs.contract import Contract
from ceqs.errors import Unavailable
from ceqs.log import Entry, _retag, open_log, open_reader


@pytest.fixture
def url(postgres: str) -> str:
    return postgres


async def test_what_an_earlier_server_appends_meanwhile_is_tagged_too_and_then_it_refuses(
    filled: str, name: str, contract: Contract, declared: Declared, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_retag, "BATCH", 50)
    old, new = await open_log(filled, name), await open_log(filled, name)
    changed = declared(CUSTOMER)
    assert await old.declare(contract) == []
    assert await new.declare(changed) == ["orders.v1.Placed"]
    await place(old, contract, 2000, 1000)

    async def go_on() -> int:
        for number in itertools.count(10_000):
            try:
                await old.append(
                    Entry(
                        command_id=f"c{next(numbers)}",
                        events=(event(contract, "Placed", order_id=f"o{number}", customer_id="late"),),
                    )
                )
            except Unavailable:
                return number - 10_000
        raise AssertionError

    async def look() -> None:
        """Whoever reads by a tag that has not changed never misses an event."""
        while True:
            assert len(await found(watching, "order:o5")) == 1
            await asyncio.sleep(0)

    watching = await open_reader(filled, name)
    writing, looking = asyncio.create_task(go_on()), asyncio.create_task(look())
    await retag_log(filled, name, changed)
    late = await writing
    assert not looking.done()
    looking.cancel()
    with suppress(asyncio.CancelledError):
        await looking
    assert late > 0
    assert len(await found(new, "customer:late")) == late
    with pytest.raises(Unavailable):
        await found(old, "order:o5")
    await place(new, changed, 3, 90_000)
    assert len(await found(new, "order:o90001")) == 1
    # Whoever goes back to the earlier contract retags again, and its servers go on without a restart.
    await retag_log(filled, name, contract)
    await place(old, contract, 1, 95_000)
    assert len(await found(old, "order:o95000")) == 2
    with pytest.raises(Unavailable):
        await place(new, changed, 1, 96_000)
    for log in (old, new, watching):
        await log.close()


async def test_two_that_retag_by_the_same_contract_share_the_work(
    filled: str, name: str, declared: Declared, reader: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_retag, "BATCH", 5)
    done = await asyncio.gather(*(retag_log(filled, name, declared(CUSTOMER)) for _ in range(3)))
    assert [one.generation for one in done] == [2, 2, 2]
    assert len(await found(reader, "customer:c1")) == 30


async def test_an_eventless_type_is_tagged_by_the_contract_that_was_declared_last(
    url: str, name: str, declared: Declared
) -> None:
    first, second = await open_log(url, name), await open_log(url, name)
    one, other = declared(), declared(CUSTOMER)
    assert await first.declare(one) == []
    assert await second.declare(other) == []
    with pytest.raises(Unavailable):
        await place(first, one, 1)
    await place(second, other, 1)
    await first.close()
    await second.close()
