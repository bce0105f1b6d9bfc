"""CommandsService over a real socket: many commands on one call, each answered by itself."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import pytest
from google.rpc import error_details_pb2
from google.rpc.code_pb2 import (
    ALREADY_EXISTS,
    FAILED_PRECONDITION,
    INTERNAL,
    INVALID_ARGUMENT,
    PERMISSION_DENIED,
    UNAUTHENTICATED,
    UNIMPLEMENTED,
)

from ceqs.errors import Invalid
from ceqs.server import _command_stream
from ceqs.server._decode import Decoder
from ceqs.v1.commands_pb2 import Command, CommandOutcome, ExecuteStreamRequest
from ceqs.v1.events_pb2 import RecordedEvent

KEY = "the key of the bank"


async def recorded(log: Any) -> list[RecordedEvent]:
    return [RecordedEvent.FromString(event.envelope) for event in (await log.read(limit=100_000)).events]


def balances(bank: Any, outcomes: Iterable[CommandOutcome]) -> list[int]:
    return [bank.DepositResponse.FromString(outcome.response).balance for outcome in outcomes]


async def test_outcomes_have_the_numbers_of_their_commands_whatever_those_are(stream: Any) -> None:
    numbers = [0, 127, 128, 2**64 - 1]
    opened = [stream.command("OpenAccount", {"account_id": f"a{number}"}, number=number) for number in numbers]
    await stream.write(*opened)
    found = await stream.read(len(numbers))
    assert {number for number, outcome in found.items() if outcome.HasField("receipt")} == set(numbers)


async def test_each_command_of_a_message_is_accepted_or_refused_by_itself(stream: Any, served: Any) -> None:
    await stream.write(
        stream.command("OpenAccount", {"account_id": "a"}, command_id="c1"),
        stream.command("Deposit", {"account_id": "a", "amount": 5}),
        stream.command("Withdraw", {"account_id": "a", "amount": 6}),
        stream.command("CloseAccount", {"account_id": "b"}),
        stream.command("Deposit", {"account_id": "a", "amount": 2}),
    )
    found = await stream.read(5)
    assert [found[n].WhichOneof("result") for n in range(1, 6)] == [
        "receipt",
        "receipt",
        "status",
        "receipt",
        "receipt",
    ]
    assert found[1].receipt.command_id == "c1"
    assert (found[3].status.code, found[3].status.message) == (FAILED_PRECONDITION, "there is only 5")
    info = error_details_pb2.ErrorInfo()
    assert found[3].status.details[0].Unpack(info)
    assert (info.reason, info.domain) == ("TOO_LITTLE", "bank")
    assert not found[4].receipt.event_ids, "nothing to close changes nothing"
    assert balances(served, (found[2], found[5])) == [5, 7], "own fields come along"
    assert not served.DepositResponse.FromString(found[2].response).HasField("receipt"), "the receipt comes once"
    assert found[1].response == b""
    assert [event.id for event in await recorded(served.log)] == [
        event_id for n in (1, 2, 5) for event_id in found[n].receipt.event_ids
    ]


async def test_outcomes_that_are_ready_together_are_more_messages_where_one_would_be_too_large(
    stream: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Clients of gRPC take 4 MiB, and responses have fields of their own."""
    monkeypatch.setattr(_command_stream, "MAX_BYTES", 1000)
    await stream.write(*(stream.command("NoSuch", b"") for _ in range(100)))
    sizes = [outcome.ByteSize() for outcome in (await stream.read(100)).values()]
    assert stream.messages > sum(sizes) / (1000 + max(sizes))


async def test_commands_of_one_boundary_are_decided_in_the_order_of_sending(stream: Any, served: Any) -> None:
    accounts = ("a", "b", "c")
    for start in range(0, 300, 30):
        await stream.write(
            *(
                stream.command("Deposit", {"account_id": accounts[i % 3], "amount": i + 1})
                for i in range(start, start + 30)
            )
        )
    found = await stream.read(300)
    for first in range(3):
        amounts = [i + 1 for i in range(first, 300, 3)]
        sums = [sum(amounts[: n + 1]) for n in range(100)]
        assert balances(served, (found[i + 1] for i in range(first, 300, 3))) == sums


async def test_a_gatekeeper_that_takes_its_time_changes_no_order_and_holds_up_no_other_boundary(
    stream: Any, served: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[bytes] = []
    decode, decode_all = Decoder.__call__, Decoder.all

    def noted(self: Decoder, raw: bytes) -> Any:
        decoded.append(raw)
        return decode(self, raw)

    def all_noted(self: Decoder, raws: Sequence[bytes]) -> Any:
        decoded.extend(raws)
        return decode_all(self, raws)

    monkeypatch.setattr(Decoder, "__call__", noted)
    monkeypatch.setattr(Decoder, "all", all_noted)
    served.context.gate.let_go.clear()
    await stream.write(
        stream.command("OpenAccount", {"account_id": "slow"}),
        stream.command("CloseAccount", {"account_id": "slow"}),
        stream.command("OpenAccount", {"account_id": "slow"}),
        stream.command("Deposit", {"account_id": "quick", "amount": 1}),
    )
    assert list(await stream.read(1)) == [4]
    served.context.gate.let_go.set()
    found = await stream.read(3)
    assert list(found) == [1, 2, 3]
    assert len(decoded) == 4, "each is decoded once, though it waits for its turn"
    assert [event.type.rpartition(".")[2] for event in await recorded(served.log)] == [
        *("MoneyDeposited", "AccountOpened", "AccountClosed", "AccountOpened"),
    ]


async def test_gatekeepers_are_asked(stream: Any, served: Any) -> None:
    served.context.gate.listed.add("villain")
    refused = await stream.outcome("OpenAccount", {"account_id": "villain"}, command_id="c1")
    assert (refused.status.code, refused.status.message) == (FAILED_PRECONDITION, "villain is on the list")
    assert served.context.gate.asked == [("villain", "c1", "")]
    assert not await recorded(served.log)


async def test_malformed_commands_are_refused_one_by_one_and_the_stream_goes_on(stream: Any, served: Any) -> None:
    unknown_field = served.OpenAccountRequest(account_id="a").SerializeToString() + b"\xfa\x3f\x01x"
    malformed = {
        "NoSuch": (stream.command("NoSuch", b""), UNIMPLEMENTED, "NoSuch"),
        "a query": (stream.command("", b"", rpc="/bank.v1.BankQueriesService/GetMotto"), UNIMPLEMENTED, "GetMotto"),
        "no rpc": (stream.command("", b"", rpc=""), UNIMPLEMENTED, "no command rpc"),
        "bytes": (stream.command("Deposit", b"\xff\xff"), INVALID_ARGUMENT, "is no bank.v1.DepositRequest"),
        "rule": (stream.command("Deposit", {"account_id": "a", "amount": 0}), INVALID_ARGUMENT, "amount"),
        "boundary": (stream.command("Deposit", {"amount": 1}), INVALID_ARGUMENT, "account_id"),
        "unknown field": (stream.command("OpenAccount", unknown_field), INVALID_ARGUMENT, "unknown field"),
        "id": (
            stream.command("Deposit", {"account_id": "a", "amount": 1}, command_id="a\nb"),
            INVALID_ARGUMENT,
            "command_id",
        ),
        "correlation id": (
            stream.command("Deposit", {"account_id": "a", "amount": 1}, correlation_id="a\nb"),
            INVALID_ARGUMENT,
            "correlation_id",
        ),
        "long id": (
            stream.command("Deposit", {"account_id": "a", "amount": 1}, command_id="i" * 201),
            INVALID_ARGUMENT,
            "200",
        ),
        "large": (stream.command("ReserveName", {"name": "n" * 600_000}), INVALID_ARGUMENT, "524288"),
        "handler": (stream.command("Fail", {"account_id": "a"}), INTERNAL, "error id"),
    }
    good = stream.command("Deposit", {"account_id": "a", "amount": 1})
    await stream.write(*(command for command, _, _ in malformed.values()), good)
    found = await stream.read(len(malformed) + 1)
    for name, (command, code, said) in malformed.items():
        status = found[command.number].status
        assert (name, status.code) == (name, code)
        assert said in status.message, name
        assert "secret" not in str(status), name
    assert found[good.number].HasField("receipt")
    assert len(await recorded(served.log)) == 1


@pytest.mark.parametrize(
    "garbage",
    [b"\xff\xff", ExecuteStreamRequest(commands=[Command()]).SerializeToString() + b"\xfa\x3f\x01x"],
    ids=["garbage", "an unknown field"],
)
async def test_a_malformed_message_ends_the_stream_after_the_answers_to_what_came_before(
    stream: Any, garbage: bytes, refused: Any
) -> None:
    await stream.send("Deposit", {"account_id": "a", "amount": 1})
    await stream.call.write(garbage)
    assert (await stream.read(1))[1].HasField("receipt")
    with refused(Invalid):
        await stream.call.read()


async def test_a_command_without_an_id_gets_one_and_is_told_which(stream: Any, served: Any) -> None:
    assigned = await stream.outcome("Deposit", {"account_id": "a", "amount": 1})
    in_request = await stream.outcome("OpenAccount", {"account_id": "b", "request_id": "mine"})
    assert in_request.receipt.command_id == "mine"
    ids = [event.command_id for event in await recorded(served.log)]
    assert ids == [assigned.receipt.command_id, "mine"]
    differing = await stream.outcome("OpenAccount", {"account_id": "c", "request_id": "mine"}, command_id="yours")
    assert differing.status.code == INVALID_ARGUMENT


async def test_a_command_is_done_once_however_often_it_is_sent(stream_to: Any, stream: Any, served: Any) -> None:
    twin = {"account_id": "a", "amount": 3}
    await stream.write(
        stream.command("Deposit", twin, command_id="once"),
        stream.command("Deposit", twin, command_id="once"),
        stream.command("Deposit", {"account_id": "a", "amount": 4}, command_id="once"),
    )
    found = await stream.read(3)
    again = await stream_to(served.channel).outcome("Deposit", twin, command_id="once")
    unary = await served.send("Deposit", served.DepositRequest(**twin), ceqs_command_id="once")
    assert found[1].receipt == found[2].receipt == again.receipt == unary.receipt
    assert balances(served, (found[1], found[2], again)) == [3, 3, 3]
    assert found[3].status.code == ALREADY_EXISTS
    assert len(await recorded(served.log)) == 1


CLAIMS = {
    "a derived id": {"command_id": "ceqs:bank/reserve:1:0"},
    "a causation id": {"causation_id": "e1"},
    "a causation depth": {"causation_depth": 2},
}


@pytest.mark.parametrize("claim", CLAIMS.values(), ids=CLAIMS)
async def test_what_only_the_platform_may_claim_needs_the_key(
    stream_to: Any, served: Any, claim: dict[str, Any]
) -> None:
    request = {"account_id": "a", "amount": 1}
    without, wrong = (stream_to(served.channel, **given) for given in ({}, {"ceqs_key": "wrong"}))
    assert (await without.outcome("Deposit", request, **claim)).status.code == UNAUTHENTICATED
    assert (await wrong.outcome("Deposit", request, **claim)).status.code == PERMISSION_DENIED
    assert (await without.outcome("Deposit", request)).HasField("receipt"), "the stream goes on"
    right = stream_to(served.channel, ceqs_key=KEY)
    assert (await right.outcome("Deposit", request, **claim)).HasField("receipt")
    assert len(await recorded(served.log)) == 2


async def test_a_derived_id_in_the_request_needs_the_key_too(stream: Any) -> None:
    refused = await stream.outcome("OpenAccount", {"account_id": "a", "request_id": "ceqs:bank/reserve:1:0"})
    assert refused.status.code == UNAUTHENTICATED


async def test_events_know_where_they_come_from(stream_to: Any, served: Any) -> None:
    trace = f"00-{'a' * 32}-{'b' * 16}-01"
    stream = stream_to(served.channel, ceqs_actor="ann", ceqs_key=KEY)
    request = {"account_id": "a", "amount": 1}
    await stream.outcome("Deposit", request, correlation_id="k", causation_id="e", traceparent=trace)
    await stream.outcome("Deposit", request, command_id="c", traceparent="nonsense")
    first, second = await recorded(served.log)
    assert (first.actor, first.correlation_id, first.causation_id, first.traceparent) == ("ann", "k", "e", trace)
    assert (second.actor, second.correlation_id, second.causation_id, second.traceparent) == ("ann", "c", "", "")
