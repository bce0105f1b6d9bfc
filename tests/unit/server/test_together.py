"""Commands of a batch are read, and their events validated, at one look: what is wrong with one is its own."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from google.rpc.code_pb2 import FAILED_PRECONDITION, INTERNAL, INVALID_ARGUMENT
from tests.unit.server.conftest import Sender, Watched

from ceqs.errors import Invalid, Misconfigured
from ceqs.server import _decider
from ceqs.server._batch import LONGEST_TURN, TOGETHER
from ceqs.server._decode import Decoder, keep_rules
from ceqs.server._intake import TOGETHER_BYTES
from ceqs.v1.commands_pb2 import CommandOutcome

OTHER_ORDER = b"\x10\x01\x0a\x01a"
"""A deposit of 1 to "a", with its second field first."""
OK = 0


def results(found: dict[int, CommandOutcome]) -> list[int]:
    """Give the status codes in the order of the commands."""
    return [found[number].status.code for number in sorted(found)]


def balances(served: Any, found: dict[int, CommandOutcome]) -> list[int]:
    """Give the balances after the accepted deposits, in the order of the commands."""
    accepted = [found[number] for number in sorted(found) if found[number].HasField("receipt")]
    return [served.DepositResponse.FromString(outcome.response).balance for outcome in accepted]


async def answers(stream: Any, *commands: tuple[str, Any]) -> dict[int, CommandOutcome]:
    """Send commands in one message, so that they are one batch."""
    await stream.write(*(stream.command(rpc, request) for rpc, request in commands))
    return await stream.read(len(commands))  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("request_of", "said"),
    [
        (lambda bank: b"\xff\xff", "is no bank.v1.OpenAccountRequest"),
        (lambda bank: bank.OpenAccountRequest(account_id="a").SerializeToString() + b"\xfa\x3f\x01x", "unknown field"),
        (lambda bank: bank.OpenAccountRequest(notes=[bank.Note(kind=7)]).SerializeToString(), "unknown value 7"),
        (lambda bank: bank.OpenAccountRequest(account_id="a" * 601).SerializeToString(), "at most 600"),
    ],
    ids=["bytes", "unknown field", "unknown enum", "rule"],
)
def test_a_malformed_request_among_others_is_malformed_alone(bank: Any, request_of: Any, said: str) -> None:
    good = [bank.OpenAccountRequest(account_id=str(i)) for i in range(4)]
    raws = [one.SerializeToString() for one in good]
    raws.insert(2, request_of(bank))
    found = Decoder(bank.OpenAccountRequest, strict=True).all(raws)
    error = found[2]
    assert isinstance(error, Invalid)
    assert said in str(error)
    assert [one for one in found if one is not error] == list(zip(good, raws[:2] + raws[3:], strict=True))


async def test_a_malformed_request_of_a_stream_is_refused_alone(stream: Any, served: Any) -> None:
    good = "Deposit", {"account_id": "a", "amount": 1}
    found = await answers(stream, good, good, ("Deposit", {"account_id": "a", "amount": 0}), good)
    assert results(found) == [OK, OK, INVALID_ARGUMENT, OK]
    assert balances(served, found) == [1, 2, 3]


async def test_a_request_whose_rule_cannot_be_evaluated_fails_alone(stream: Any) -> None:
    ways = ["rejected", "unknowable", "rejected", "rejected"]
    found = await answers(stream, *(("Fail", {"account_id": "a", "how": how}) for how in ways))
    assert results(found) == [FAILED_PRECONDITION, INTERNAL, FAILED_PRECONDITION, FAILED_PRECONDITION]


async def test_what_is_written_in_another_order_is_the_same_content(stream: Any, served: Any) -> None:
    plain = served.DepositRequest(account_id="a", amount=1).SerializeToString()
    assert plain != OTHER_ORDER
    first = [stream.command("Deposit", raw, command_id=f"c{i}") for i, raw in enumerate([plain, OTHER_ORDER, plain])]
    again = [stream.command("Deposit", raw, command_id=f"c{i}") for i, raw in enumerate([OTHER_ORDER, plain, plain])]
    await stream.write(*first)
    found = await stream.read(3)
    await stream.write(*again)
    repeated = await stream.read(3)
    assert balances(served, found) == [1, 2, 3]
    assert [repeated[c.number].receipt for c in again] == [found[c.number].receipt for c in first]


async def test_nothing_is_decided_upon_an_event_that_breaks_its_rules(stream: Any, served: Any) -> None:
    deposit = "Deposit", {"account_id": "a", "amount": 1}
    found = await answers(
        stream,
        *(deposit, deposit, ("Fail", {"account_id": "a", "how": "rule"})),
        *(deposit, ("Withdraw", {"account_id": "a", "amount": 100}), deposit),
    )
    assert results(found) == [OK, OK, INTERNAL, OK, FAILED_PRECONDITION, OK]
    assert found[5].status.message == "there is only 3"
    assert balances(served, found) == [1, 2, 3, 4]
    assert (await served.log.head()).position == 4


async def test_an_event_whose_rule_cannot_be_evaluated_fails_its_command_alone(stream: Any, served: Any) -> None:
    deposit = "Deposit", {"account_id": "a", "amount": 1000}
    withdrawals = (("Withdraw", {"account_id": "a", "amount": amount}) for amount in (1313, 1000))
    found = await answers(stream, deposit, deposit, *withdrawals, deposit)
    assert results(found) == [OK, OK, INTERNAL, OK, OK]
    assert balances(served, found)[-1] == 2000


@pytest.mark.parametrize("account", ["a", "unfoldable"])
async def test_whose_event_it_is_that_breaks_its_rules_is_told(sender: Sender, account: str) -> None:
    """Even where it fails for another reason as well."""
    sent = [sender.submit("Deposit", account_id="a", amount=1) for _ in range(5)]
    sent.insert(2, sender.submit("Fail", account_id=account, how="rule"))
    found = await asyncio.gather(*sent, return_exceptions=True)
    assert [isinstance(one, Misconfigured) for one in found] == [False, False, True, False, False, False]
    assert "MoneyDeposited, which breaks its own rules: amount" in str(found[2])


async def test_slow_rules_make_batches_small(sender: Sender, watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(_decider, "time", SimpleNamespace(monotonic=lambda: clock[0]))

    def slowly(written: Any) -> bool:
        clock[0] += LONGEST_TURN + 0.001
        return keep_rules(written)

    monkeypatch.setattr(_decider, "keep_rules", slowly)
    await asyncio.gather(*(sender.submit("Deposit", account_id="a", amount=1) for _ in range(2 * TOGETHER)))
    assert [len(batch) for batch in watched.batches] == [TOGETHER] * 2


async def test_large_requests_are_read_few_at_a_time(sender: Sender, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is read at one look is in memory twice."""
    looks: list[int] = []
    decode_all = Decoder.all

    def noted(self: Decoder, raws: Sequence[bytes]) -> Any:
        looks.append(len(raws))
        return decode_all(self, raws)

    monkeypatch.setattr(Decoder, "all", noted)
    name = "n" * (TOGETHER_BYTES // 2)
    await asyncio.gather(*(sender.submit("ReserveName", name=f"{i}{name}") for i in range(6)))
    assert looks == [2, 2, 2]
