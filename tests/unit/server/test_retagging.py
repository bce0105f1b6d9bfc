"""A server whose contract annotates other tags than those that its log is indexed by."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from ceqs.errors import Unavailable
from ceqs.log import open_log, retag_log
from ceqs.server import Served, Server, ServerSettings

KEY = "the key of the bank"


class Bank:
    """A bank on a log in a file, and a channel to it while it is served."""

    def __init__(self, messages: Any, file: Path) -> None:
        self.messages, self.file = messages, file
        self.url = f"sqlite:///{file}"
        self.channel: Any = None

    @asynccontextmanager
    async def served(self) -> AsyncIterator[None]:
        context = self.messages.make_context()
        log = await open_log(self.url, "bank")
        server = Server([Served(context, log, {"Total": self})], ServerSettings(key=KEY, grace=5))  # type: ignore[dict-item]
        await server.start()
        async with grpc.aio.insecure_channel(server.address) as self.channel:
            yield
        await server.stop()
        await log.close()

    async def send(self, rpc: str, **fields: Any) -> Any:
        service = "Queries" if rpc.startswith("Get") else "Commands"
        call: Any = self.channel.unary_unary(f"/bank.v1.Bank{service}Service/{rpc}")
        request = getattr(self.messages, f"{rpc}Request")(**fields)
        raw = await call(request.SerializeToString(), timeout=10)
        return getattr(self.messages, f"{rpc}Response").FromString(raw)

    def annotate_otherwise(self) -> None:
        """Leave the log as an earlier contract would, by which no deposit carried a tag."""
        with closing(sqlite3.connect(self.file, isolation_level=None)) as connection:
            connection.execute("DELETE FROM tags WHERE type = 'bank.v1.MoneyDeposited'")
            connection.execute("UPDATE taggings SET rule = '' WHERE type = 'bank.v1.MoneyDeposited'")


async def test_it_refuses_commands_and_questions_until_the_log_is_retagged(
    bank: Any, tmp_path: Path, refused: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    branch = Bank(bank, tmp_path / "log.db")
    async with branch.served():
        await branch.send("OpenAccount", account_id="a")
        assert (await branch.send("Deposit", account_id="a", amount=5)).balance == 5
    branch.annotate_otherwise()
    assert "ceqs log retag" not in capsys.readouterr().out

    async with branch.served():
        said = capsys.readouterr().out
        assert "commands are refused until the log is retagged: ceqs log retag bank" in said
        assert "bank.v1.MoneyDeposited" in said
        for rpc, fields in (("Deposit", {"account_id": "a", "amount": 5}), ("GetAccount", {"account_id": "a"})):
            with refused(Unavailable) as found:
                await branch.send(rpc, **fields)
            assert "Run: ceqs log retag bank" in found[0].message
    await retag_log(branch.url, "bank", bank.make_context().decoder)

    async with branch.served():
        assert (await branch.send("Deposit", account_id="a", amount=5)).balance == 10
        assert (await branch.send("GetAccount", account_id="a")).account.balance == 10
