"""A log of orders that is to be tagged anew."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.descriptor_pool import DescriptorPool
from tests.contract.retag.orders import PROTO, Declared, numbers, place

from ceqs.codegen._image import build_image
from ceqs.contract import Contract, read_contract
from ceqs.log import open_log, open_reader


@pytest.fixture
def declared(tmp_path: Path) -> Declared:
    """Give a contract: that of PROTO, with replacements. Each has classes of its own, as in a process of its own."""

    def declare(*changes: tuple[str, str]) -> Contract:
        text = PROTO
        for old, new in changes:
            assert old in text
            text = text.replace(old, new)
        directory = tmp_path / f"proto-{next(numbers)}"
        (directory / "orders/v1").mkdir(parents=True)
        (directory / "orders/v1/orders.proto").write_text(text)
        pool = DescriptorPool()
        for file in build_image(directory, ["orders/v1/orders.proto"]).file:
            pool.AddSerializedFile(file.SerializeToString())
        return read_contract(pool.FindFileByName("orders/v1/orders.proto"))

    return declare


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/log.db"
    return str(request.getfixturevalue("postgres"))


@pytest.fixture
async def contract(declared: Declared) -> Contract:
    return declared()


@pytest.fixture
async def filled(url: str, name: str, contract: Contract) -> str:
    """The url of a log with 90 orders and a cancellation, which no process has opened now."""
    log = await open_log(url, name)
    assert await log.declare(contract) == []
    await place(log, contract, 90)
    await log.close()
    return url


@pytest.fixture
async def reader(filled: str, name: str) -> AsyncIterator[Any]:
    opened = await open_reader(filled, name)
    yield opened
    await opened.close()
