"""The log is told which ids nobody can have used before: those that the server has made itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from ceqs.log import Entry

KEY = "the key of the bank"


@pytest.fixture
def assigned(served: Any, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, bool]]:
    """The ids that were appended, and whether the server has made them."""
    told: list[tuple[str, bool]] = []
    append_all = served.log.append_all

    async def listen(entries: Sequence[Entry], progress: Any) -> Any:
        told.extend((entry.command_id, entry.assigned) for entry in entries)
        return await append_all(entries, progress)

    monkeypatch.setattr(served.log, "append_all", listen)
    return told


async def test_an_id_is_the_servers_own_where_nobody_gives_one(served: Any, assigned: list[tuple[str, bool]]) -> None:
    deposit = served.DepositRequest(account_id="a", amount=1)
    sent = [
        await served.send("Deposit", deposit),
        await served.send("Deposit", deposit, ceqs_actor="somebody"),
        await served.send("OpenAccount", served.OpenAccountRequest(account_id="b")),
    ]
    assert assigned == [(response.receipt.command_id, True) for response in sent]


async def test_an_id_that_is_given_is_somebody_elses(served: Any, assigned: list[tuple[str, bool]]) -> None:
    deposit = served.DepositRequest(account_id="a", amount=1)
    await served.send("Deposit", deposit, ceqs_command_id="mine")
    await served.send("OpenAccount", served.OpenAccountRequest(account_id="b", request_id="in the request"))
    await served.send("Deposit", deposit, ceqs_command_id="ceqs:derived", ceqs_key=KEY)
    assert assigned == [("mine", False), ("in the request", False), ("ceqs:derived", False)]


async def test_so_it_is_on_a_stream(stream: Any, assigned: list[tuple[str, bool]]) -> None:
    own = await stream.outcome("Deposit", {"account_id": "a", "amount": 1})
    await stream.outcome("Deposit", {"account_id": "a", "amount": 1}, command_id="mine")
    await stream.outcome("OpenAccount", {"account_id": "b", "request_id": "in the request"})
    assert assigned == [(own.receipt.command_id, True), ("mine", False), ("in the request", False)]
