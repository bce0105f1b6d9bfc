"""Tagging anew may be interrupted anywhere, and goes on."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.contract.retag.orders import CUSTOMER, PRODUCTS, Declared, found, retag_log

from ceqs.contract import Contract
from ceqs.log import _retag


class Interrupted(Exception):
    """As if the process had been killed between two transactions."""


def interrupting(after: int) -> Callable[[int, int], None]:
    def report(done: int, total: int) -> None:
        if done >= after:
            raise Interrupted

    return report


async def test_it_goes_on_where_it_was_interrupted(
    filled: str, name: str, declared: Declared, reader: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_retag, "BATCH", 20)
    with pytest.raises(Interrupted):
        await retag_log(filled, name, declared(CUSTOMER), report=interrupting(40))
    assert await found(reader, "customer:c1") == []
    said: list[int] = []
    await retag_log(filled, name, declared(CUSTOMER), report=lambda done, total: said.append(done))
    assert said == [60, 91]
    assert len(await found(reader, "customer:c1")) == 30


async def test_what_was_interrupted_is_given_up_for_another_contract(
    filled: str, name: str, declared: Declared, reader: Any, database: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_retag, "BATCH", 20)
    with pytest.raises(Interrupted):
        await retag_log(filled, name, declared(CUSTOMER), report=interrupting(40))
    await retag_log(filled, name, declared(PRODUCTS))
    assert await found(reader, "customer:c1") == []
    assert len(await found(reader, "product:6")) == len([i for i in range(1, 91) if 6 in (i % 5, i % 7)])
    counted = await database.run("SELECT DISTINCT generation FROM tags")
    assert [row[0] for row in counted] == [3]


async def test_what_was_interrupted_is_swept_up_where_the_contract_is_the_old_one_again(
    filled: str, name: str, contract: Contract, declared: Declared, database: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_retag, "BATCH", 20)
    with pytest.raises(Interrupted):
        await retag_log(filled, name, declared(CUSTOMER), report=interrupting(40))
    # Killed once more, before it has swept anything.
    await database.run("DELETE FROM retagging")
    assert (await retag_log(filled, name, declared(PRODUCTS))).generation == 3
    assert (await retag_log(filled, name, contract)).generation == 4
    with pytest.raises(Interrupted):
        await retag_log(filled, name, declared(CUSTOMER), report=interrupting(40))
    assert (await retag_log(filled, name, contract)).generation == 4
    assert [row[0] for row in await database.run("SELECT DISTINCT generation FROM tags")] == [4]
    assert (await retag_log(filled, name, declared(CUSTOMER))).events == 91


KILLED = """
import asyncio, os, signal, sys
from google.protobuf.descriptor_pool import DescriptorPool
from pathlib import Path
from ceqs.codegen._image import build_image
from ceqs.contract import read_contract
from ceqs.log import _retag, retag_log
from ceqs.model import EventDecoder
url, name, directory, after = sys.argv[1:]
pool = DescriptorPool()
for file in build_image(Path(directory), ["orders/v1/orders.proto"]).file:
    pool.AddSerializedFile(file.SerializeToString())
contract = read_contract(pool.FindFileByName("orders/v1/orders.proto"))
_retag.BATCH = 20
original = _retag.tags_of
count = 0
def tags_of(*arguments):
    # In the middle of a transaction.
    global count
    count += 1
    if count == int(after):
        os.kill(os.getpid(), signal.SIGKILL)
    return original(*arguments)
_retag.tags_of = tags_of
asyncio.run(retag_log(url, name, EventDecoder(contract)))
"""


@pytest.mark.parametrize("after", [1, 31, 88])
async def test_killed_at_any_point_it_is_completed_by_the_next(
    filled: str, name: str, declared: Declared, reader: Any, tmp_path: Path, after: int
) -> None:
    changed = declared(CUSTOMER)
    directory = max(tmp_path.glob("proto-*"), key=lambda path: int(path.name.removeprefix("proto-")))
    killed = await asyncio.create_subprocess_exec(
        sys.executable, "-c", KILLED, filled, name, str(directory), str(after)
    )
    assert await killed.wait() == -signal.SIGKILL
    assert len(await found(reader, "order:o5")) == 1
    assert await found(reader, "customer:c1") == []
    assert (await retag_log(filled, name, changed)).changed == ("orders.v1.Placed",)
    assert len(await found(reader, "customer:c1")) == 30
