"""What a client must not send, over a real socket: a precise error each, and nothing half-done."""

from __future__ import annotations

from typing import Any

import grpc
import grpc.aio
import pytest

from ceqs.errors import DuplicateCommand, Invalid, NotFound, Rejected
from ceqs.server import Decoder

OPEN = "/bank.v1.BankCommandsService/OpenAccount"


@pytest.fixture(autouse=True)
async def nothing_is_recorded(served: Any) -> Any:
    yield
    assert (await served.log.head()).position == 0


def fields(error: Invalid) -> list[str]:
    return [violation.field for violation in error.violations]


@pytest.mark.parametrize("path", [OPEN, "/bank.v1.BankQueriesService/GetAccount", "/ceqs.v1.EventsService/GetHead"])
async def test_malformed_bytes_are_an_invalid_argument(served: Any, refused: Any, path: str) -> None:
    with refused(Invalid) as found:
        await served.raw(path, b"\x0a\xff")
    assert "the request is no " in found[0].message


async def test_malformed_bytes_to_a_stream_are_an_invalid_argument(served: Any, refused: Any) -> None:
    with refused(Invalid):
        await served.channel.unary_stream("/ceqs.v1.EventsService/Subscribe")(b"\x0a\xff", timeout=10).read()


async def test_text_that_is_not_utf_8_is_an_invalid_argument(served: Any, refused: Any) -> None:
    with refused(Invalid):
        await served.raw(OPEN, b"\x0a\x02\xc3\x28")


async def test_broken_rules_are_named_field_by_field(served: Any, refused: Any) -> None:
    note = served.Note(text="far too long a note")
    request = served.OpenAccountRequest(account_id="x" * 601, notes=[served.Note(), note], named={"n": note})
    with refused(Invalid) as found:
        await served.send("OpenAccount", request)
    assert fields(found[0]) == ["account_id", "notes[1].text", "named[n].text"]
    assert "600" in found[0].violations[0].description
    assert found[1].code() is grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize("amount", [0, -1, -(2**63)])
async def test_amounts_that_are_not_positive_are_refused(served: Any, refused: Any, amount: int) -> None:
    with refused(Invalid) as found:
        await served.send("Deposit", served.DepositRequest(account_id="a", amount=amount))
    assert fields(found[0]) == ["amount"]


@pytest.mark.parametrize(
    ("account_id", "why"),
    [
        ("", "must have a value"),
        ("x" * 513, "512 bytes"),
        ("é" * 257, "512 bytes"),
        ("a\x00b", "control characters"),
        ("a\nb", "control characters"),
        ("a\x7fb", "control characters"),
    ],
)
async def test_ids_that_are_empty_too_long_or_unprintable_are_refused(
    served: Any, refused: Any, account_id: str, why: str
) -> None:
    with refused(Invalid) as found:
        await served.send("OpenAccount", served.OpenAccountRequest(account_id=account_id))
    assert fields(found[0]) == ["account_id"]
    assert why in found[0].violations[0].description


@pytest.mark.parametrize(
    ("raw", "path"),
    [
        (b"\xf8\x3f\x01", "request"),  # field 1023 of the request
        (b"\x1a\x03\xf8\x3f\x01", "notes[0]"),
        (b"\x1a\x00\x1a\x03\xf8\x3f\x01", "notes[1]"),
        (b"\x22\x08\x0a\x01n\x12\x03\xf8\x3f\x01", "named[n]"),
        (b"\x0a\x01b\xf8\x3f\x01", "request"),  # not as anybody would write it: account_id comes twice
    ],
)
async def test_a_command_with_unknown_fields_is_refused(served: Any, refused: Any, raw: bytes, path: str) -> None:
    with refused(Invalid) as found:
        await served.raw(OPEN, b"\x0a\x01a" + raw)
    (violation,) = found[0].violations
    assert (violation.field, violation.description) == (path, "has an unknown field, number 1023")


def test_a_command_is_understood_in_whatever_order_its_fields_come(bank: Any) -> None:
    request = Decoder(bank.OpenAccountRequest, strict=True)(b"\x1a\x00\x0a\x01b\x0a\x01a")
    assert request == bank.OpenAccountRequest(account_id="a", notes=[bank.Note()])


async def test_a_query_with_unknown_fields_is_answered(served: Any, refused: Any) -> None:
    with refused(NotFound):
        await served.raw("/bank.v1.BankQueriesService/GetAccount", b"\x0a\x01a\xf8\x3f\x01")


async def test_a_command_with_an_unknown_enum_value_is_refused(served: Any, refused: Any) -> None:
    note = served.Note(kind=9)
    request = served.OpenAccountRequest(account_id="a", kind=7, notes=[served.Note(), note], named={"n": note})
    with refused(Invalid) as found:
        await served.send("OpenAccount", request)
    assert [(v.field, v.description) for v in found[0].violations] == [
        ("kind", "has the unknown value 7"),
        ("notes[1].kind", "has the unknown value 9"),
        ("named[n].kind", "has the unknown value 9"),
    ]


async def test_an_event_over_the_limits_of_the_log_is_refused(served: Any, refused: Any) -> None:
    with refused(Invalid):
        await served.send("ReserveName", served.ReserveNameRequest(name="x" * 600_000))


@pytest.mark.parametrize(
    ("command_id", "why"), [("", "empty"), ("x" * 201, "200 bytes"), ("ceqs-other", ""), ("* > .", "")]
)
async def test_command_ids_are_checked(served: Any, refused: Any, command_id: str, why: str) -> None:
    request = served.WithdrawRequest(account_id="a", amount=1)
    with refused(Invalid if why else Rejected) as found:
        await served.send("Withdraw", request, ceqs_command_id=command_id)
    if why:
        assert fields(found[0]) == ["ceqs-command-id"]
        assert why in found[0].violations[0].description


@pytest.mark.parametrize("request_id", ["x" * 201, "a\x00b"])
async def test_command_ids_in_the_request_are_checked(served: Any, refused: Any, request_id: str) -> None:
    with refused(Invalid) as found:
        await served.send("OpenAccount", served.OpenAccountRequest(account_id="a", request_id=request_id))
    assert fields(found[0]) == ["request_id"]


async def test_two_different_command_ids_are_refused(served: Any, refused: Any) -> None:
    request = served.OpenAccountRequest(account_id="a", request_id="one")
    with refused(Invalid) as found:
        await served.send("OpenAccount", request, ceqs_command_id="two")
    assert fields(found[0]) == ["ceqs-command-id"]


@pytest.mark.parametrize("name", ["ceqs_actor", "ceqs_correlation_id"])
async def test_metadata_is_checked(served: Any, refused: Any, name: str) -> None:
    with refused(Invalid) as found:
        await served.send("OpenAccount", served.OpenAccountRequest(account_id="a"), **{name: "x" * 201})
    assert fields(found[0]) == [name.replace("_", "-")]


@pytest.mark.parametrize("token", ["no token", "!", "AAAA", "ChQKEg"])
async def test_a_malformed_token_is_refused(served: Any, refused: Any, token: str) -> None:
    with refused(Invalid) as found:
        await served.ask("GetAccount", served.GetAccountRequest(account_id="a"), ceqs_at_least=token)
    assert fields(found[0]) == ["ceqs-at-least"]


@pytest.mark.parametrize("moment", ["no moment", "2011-12-09", "2011-12-09T00:00:00", "2011-13-09T00:00:00Z", "7"])
async def test_a_malformed_moment_is_refused(served: Any, refused: Any, moment: str) -> None:
    with refused(Invalid) as found:
        await served.ask("GetAccount", served.GetAccountRequest(account_id="a"), ceqs_as_of=moment)
    assert fields(found[0]) == ["ceqs-as-of"]


async def test_an_rpc_that_is_not_there_is_unimplemented(served: Any) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await served.raw("/bank.v1.BankCommandsService/RobBank", b"")
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_many_violations_still_reach_the_client(served: Any, refused: Any) -> None:
    """Clients drop trailers beyond 8 KiB."""
    request = served.OpenAccountRequest(account_id="a", notes=[served.Note(text="far too long")] * 5_000)
    with refused(Invalid) as found:
        await served.send("OpenAccount", request)
    assert 1 <= len(found[0].violations) <= 8
    assert len(found[0].message) <= 1024


async def test_a_refusal_in_many_words_still_reaches_the_client(served: Any, refused: Any) -> None:
    with refused(Invalid) as found:
        await served.raw("/ceqs.v1.EventsService/GetHead", b"\x0a\xff")
    assert found[0].message
    with refused(NotFound) as found:
        await served.raw("/ceqs.v1.EventsService/GetHead", b"\x0a\xe8\x07" + "\N{SNOWMAN}".encode() * 333 + b"x")
    assert len(found[0].message.encode()) <= 1024


class TestReusedIds:
    """Outside the check that nothing is recorded."""

    @pytest.fixture(autouse=True)
    def nothing_is_recorded(self) -> None:
        """Replaces the module's."""

    async def test_a_command_id_that_is_used_again_with_other_content_is_refused(
        self, served: Any, refused: Any
    ) -> None:
        await served.send("OpenAccount", served.OpenAccountRequest(account_id="a"), ceqs_command_id="once")
        with refused(DuplicateCommand) as found:
            await served.send("OpenAccount", served.OpenAccountRequest(account_id="b"), ceqs_command_id="once")
        assert found[0].metadata == {"command_id": "once"}
        assert found[1].code() is grpc.StatusCode.ALREADY_EXISTS
        assert (await served.log.head()).position == 1

    @pytest.mark.parametrize("account_id", ["*", ">", "a.b", "a b", "* > .", "é", "a:b", "x" * 512])
    async def test_ids_with_wildcards_and_spaces_are_ids_like_any_other(self, served: Any, account_id: str) -> None:
        await served.send("OpenAccount", served.OpenAccountRequest(account_id=account_id))
        answer, _ = await served.ask("GetAccount", served.GetAccountRequest(account_id=account_id))
        assert answer.account.account_id == account_id
        assert answer.account.open

    async def test_a_command_id_of_the_request_is_taken(self, served: Any) -> None:
        request = served.OpenAccountRequest(account_id="a", request_id="* > .")
        first = await served.send("OpenAccount", request)
        assert first.receipt.command_id == "* > ."
        assert await served.send("OpenAccount", request, ceqs_command_id="* > .") == first
