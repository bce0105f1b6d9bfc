"""The way of a command, without gRPC."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from typing import Any

import pytest

from ceqs.contract import Locking
from ceqs.errors import Conflict, DuplicateCommand, Expired, Invalid, LogUnavailable, Misconfigured, Rejected
from ceqs.log import Appended, Condition, Entry, Log, NewEvent, Query, QueryItem
from ceqs.server import CommandCall, CommandExecutor, Executed
from ceqs.testing import eventually
from ceqs.v1.events_pb2 import RecordedEvent


class Bank:
    """Sends commands to an executor."""

    def __init__(self, bank: Any, context: Any, log: Any) -> None:
        self.bank, self.context, self.log = bank, context, log
        self.executor = CommandExecutor(context, log)
        self._sent = 0

    async def send(
        self, name: str, command_id: str = "", call: dict[str, Any] | None = None, /, **fields: Any
    ) -> Executed:
        self._sent += 1
        rpc = self.context.contract.commands[f"/bank.v1.BankCommandsService/{name}"]
        request = getattr(self.bank, f"{name}Request")(**fields)
        sent = CommandCall(command_id=command_id or f"{id(self)}-{self._sent}", **(call or {}))
        return await self.executor.execute(rpc, request, sent)

    async def events(self) -> list[RecordedEvent]:
        return [RecordedEvent.FromString(e.envelope) for e in (await self.log.read(limit=10_000)).events]


class Watched:
    """A log that counts and can be told to misbehave."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self.reads = 0
        self.entries: list[Entry] = []
        self.errors: list[Exception] = []
        self.lose_replies = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)

    async def read(self, **arguments: Any) -> Any:
        self.reads += 1
        await asyncio.sleep(0)
        return await self._log.read(**arguments)

    async def append(self, entry: Entry) -> Appended:
        self.entries.append(entry)
        if self.errors:
            raise self.errors.pop(0)
        appended = await self._log.append(entry)
        if self.lose_replies:
            self.lose_replies -= 1
            raise LogUnavailable
        return appended


@pytest.fixture
def watched(log: Log) -> Watched:
    return Watched(log)


@pytest.fixture
def sender(bank: Any, context: Any, watched: Watched) -> Bank:
    return Bank(bank, context, watched)


@pytest.fixture
def rival(bank: Any, log: Log) -> Bank:
    """Another server on the same log, with a cache of its own."""
    return Bank(bank, bank.make_context(), log)


async def test_a_command_is_recorded_as_its_handler_decided(sender: Bank) -> None:
    call = {"actor": "ann", "correlation_id": "c", "causation_id": "e", "depth": 2, "traceparent": "t"}
    executed = await sender.send("OpenAccount", "id-1", call, account_id="a")
    (event,) = await sender.events()
    assert sender.bank.AccountOpened.FromString(event.payload).account_id == "a"
    assert (event.type, event.position, event.command_id, event.schema_version) == (
        "bank.v1.AccountOpened",
        1,
        "id-1",
        1,
    )
    assert (event.actor, event.correlation_id, event.causation_id, event.causation_depth, event.traceparent) == (
        "ann",
        "c",
        "e",
        2,
        "t",
    )
    assert executed.response.receipt == executed.receipt  # type: ignore[attr-defined]
    assert executed.receipt.command_id == "id-1"
    assert list(executed.receipt.event_ids) == [event.id]
    assert executed.receipt.token


async def test_the_state_has_its_tag_field_before_its_first_event(sender: Bank) -> None:
    await sender.send("Deposit", account_id="a", amount=1)
    (event,) = await sender.events()
    assert sender.bank.MoneyDeposited.FromString(event.payload).account_id == "a"


async def test_a_command_answers_and_a_repeated_one_gets_the_same_answer(sender: Bank) -> None:
    await sender.send("Deposit", account_id="a", amount=1)
    first = await sender.send("Deposit", "once", account_id="a", amount=2)
    await sender.send("Deposit", account_id="a", amount=4)
    again = await sender.send("Deposit", "once", account_id="a", amount=2)
    assert again.response == first.response
    assert again.response.balance == 3  # type: ignore[attr-defined]
    assert len(await sender.events()) == 3


async def test_a_retry_after_a_lost_reply_gets_the_first_receipt_and_not_a_rejection(
    sender: Bank, watched: Watched
) -> None:
    watched.lose_replies = 1
    with pytest.raises(LogUnavailable):
        await sender.send("OpenAccount", "once", account_id="a")
    again = await sender.send("OpenAccount", "once", account_id="a")
    assert again.receipt.position == 1
    assert len(await sender.events()) == 1
    with pytest.raises(Rejected, match="is open"):
        await sender.send("OpenAccount", "another", account_id="a")


async def test_a_retry_at_another_server_gets_the_first_receipt(sender: Bank, rival: Bank) -> None:
    first = await sender.send("OpenAccount", "once", account_id="a")
    again = await rival.send("OpenAccount", "once", account_id="a")
    assert again.receipt == first.receipt


async def test_a_command_id_with_other_content_is_refused_even_where_the_command_would_be_rejected(
    sender: Bank,
) -> None:
    await sender.send("OpenAccount", "once", account_id="a")
    await sender.send("OpenAccount", account_id="b")
    for fields in ({"account_id": "b"}, {"account_id": "c"}):
        with pytest.raises(DuplicateCommand):
            await sender.send("OpenAccount", "once", **fields)
    with pytest.raises(DuplicateCommand):
        await sender.send("OpenAccount", "once", {"actor": "somebody else"}, account_id="a")
    assert len(await sender.events()) == 2


async def test_the_field_that_carries_the_command_id_is_not_its_content(sender: Bank) -> None:
    first = await sender.send("OpenAccount", "once", account_id="a", request_id="once")
    again = await sender.send("OpenAccount", "once", account_id="a")
    assert again.receipt == first.receipt


async def test_a_rejected_command_may_be_sent_again_under_its_id(sender: Bank) -> None:
    with pytest.raises(Rejected) as refused:
        await sender.send("Withdraw", "once", account_id="a", amount=5)
    assert refused.value.reason == "TOO_LITTLE"
    await sender.send("Deposit", account_id="a", amount=5)
    await sender.send("Withdraw", "once", account_id="a", amount=5)
    assert len(await sender.events()) == 2


async def test_nothing_is_appended_where_the_handler_rejects_after_a_yield(sender: Bank) -> None:
    with pytest.raises(Rejected):
        await sender.send("Fail", account_id="a", how="rejected")
    assert not await sender.events()


async def test_a_command_that_changes_nothing_succeeds_and_is_remembered(sender: Bank) -> None:
    await sender.send("Deposit", account_id="b", amount=1)
    first = await sender.send("CloseAccount", "once", account_id="a")
    assert not first.receipt.event_ids
    assert first.receipt.position == 1
    await sender.send("OpenAccount", account_id="a")
    again = await sender.send("CloseAccount", "once", account_id="a")
    assert again.receipt == first.receipt
    assert len(await sender.events()) == 2


async def test_a_stale_cache_never_rejects(sender: Bank, rival: Bank) -> None:
    await sender.send("Deposit", account_id="a", amount=1)
    await rival.send("Deposit", account_id="a", amount=9)
    # The sender's cache says 1.
    await sender.send("Withdraw", account_id="a", amount=10)
    with pytest.raises(Rejected, match="only 0"):
        await rival.send("Withdraw", account_id="a", amount=10)


async def test_a_stale_cache_never_says_that_there_is_nothing_to_do(sender: Bank, rival: Bank) -> None:
    await sender.send("CloseAccount", account_id="a")
    await rival.send("OpenAccount", account_id="a")
    # The sender's cache says closed.
    closed = await sender.send("CloseAccount", account_id="a")
    assert len(closed.receipt.event_ids) == 1


async def test_a_stale_cache_never_accepts(sender: Bank, rival: Bank) -> None:
    await sender.send("Deposit", account_id="a", amount=10)
    await rival.send("Withdraw", account_id="a", amount=10)
    with pytest.raises(Rejected, match="only 0"):
        await sender.send("Withdraw", account_id="a", amount=10)


async def test_a_new_boundary_after_a_new_one_is_decided_without_reading(sender: Bank, watched: Watched) -> None:
    for account in ("a", "b", "c"):
        await sender.send("OpenAccount", account_id=account)
    assert watched.reads == 1


async def test_a_boundary_that_was_only_guessed_to_be_new_is_loaded(sender: Bank, rival: Bank) -> None:
    await rival.send("Deposit", account_id="b", amount=5)
    await rival.send("OpenAccount", account_id="c")
    # So far every account was new to the sender.
    await sender.send("Deposit", account_id="a", amount=1)
    deposited = await sender.send("Deposit", account_id="b", amount=1)
    assert deposited.response.balance == 6  # type: ignore[attr-defined]
    await sender.send("OpenAccount", account_id="d")
    with pytest.raises(Rejected, match="account c is open"):
        await sender.send("OpenAccount", account_id="c")


async def test_a_refusal_on_a_guess_does_not_count(sender: Bank, rival: Bank) -> None:
    await rival.send("Deposit", account_id="b", amount=5)
    with pytest.raises(Rejected):
        await sender.send("Withdraw", account_id="a", amount=1)
    await sender.send("Withdraw", account_id="b", amount=5)


async def test_a_handler_that_fails_on_a_guess_is_asked_again(
    sender: Bank, rival: Bank, monkeypatch: pytest.MonkeyPatch
) -> None:
    await rival.send("Deposit", account_id="b", amount=5)
    await sender.send("CloseAccount", account_id="a")

    def close(request: Any, account: Any, ctx: Any) -> Any:
        raise Rejected("SPENT", f"{10 // account.balance}")

    method = sender.context.method
    monkeypatch.setattr(
        type(sender.context), "method", lambda self, rpc: close if rpc.name == "CloseAccount" else method(rpc)
    )
    with pytest.raises(Rejected, match="2"):
        await sender.send("CloseAccount", account_id="b")


async def test_an_answer_is_decided_on_the_present(sender: Bank, rival: Bank) -> None:
    await sender.send("Deposit", account_id="a", amount=1)
    await rival.send("Deposit", account_id="a", amount=2)
    deposited = await sender.send("Deposit", account_id="a", amount=4)
    assert deposited.response.balance == 7  # type: ignore[attr-defined]


async def test_64_commands_at_once_on_one_boundary_are_all_decided_rightly(sender: Bank) -> None:
    executed = await asyncio.gather(*(sender.send("Deposit", account_id="a", amount=1) for _ in range(64)))
    assert sorted(one.response.balance for one in executed) == list(range(1, 65))  # type: ignore[attr-defined]
    assert [one.receipt.position for one in executed if one.receipt.position == 64]
    # They take turns once they have met, so none of them is decided again and again.
    rpc = sender.context.contract.commands["/bank.v1.BankCommandsService/Deposit"]
    assert sender.context.method(rpc).__self__.decided <= 64 * 2


async def test_pessimistic_locking_decides_each_command_once(sender: Bank) -> None:
    rpc = sender.context.contract.commands["/bank.v1.BankCommandsService/Deposit"]
    rpc = replace(rpc, state=replace(rpc.state, locking=Locking.PESSIMISTIC))
    request = sender.bank.DepositRequest(account_id="a", amount=1)
    calls = [sender.executor.execute(rpc, request, CommandCall(command_id=str(i))) for i in range(64)]
    executed = await asyncio.gather(*calls)
    assert sorted(one.response.balance for one in executed) == list(range(1, 65))  # type: ignore[attr-defined]
    assert sender.context.method(rpc).__self__.decided == 64


async def test_64_commands_at_once_at_two_servers_are_all_decided_rightly(sender: Bank, rival: Bank) -> None:
    await sender.send("Deposit", account_id="a", amount=32)
    sent = [who.send("Withdraw", account_id="a", amount=1) for _ in range(32) for who in (sender, rival)]
    outcomes = await asyncio.gather(*sent, return_exceptions=True)
    assert sum(isinstance(outcome, Executed) for outcome in outcomes) == 32
    assert {outcome.reason for outcome in outcomes if isinstance(outcome, Rejected)} == {"TOO_LITTLE"}
    assert len(await sender.events()) == 33


async def test_many_commands_that_first_touch_a_state_load_it_once(sender: Bank, watched: Watched, rival: Bank) -> None:
    for _ in range(3):
        await rival.send("Deposit", account_id="a", amount=1)
    await asyncio.gather(
        *(sender.send("Fail", account_id="a", how="rejected") for _ in range(50)), return_exceptions=True
    )
    assert watched.reads <= 2
    fold = sender.context.folders["Account"].methods["bank.v1.MoneyDeposited"].__self__
    assert fold.folded == 3


async def test_commands_of_several_accounts_share_a_transaction(sender: Bank, watched: Watched) -> None:
    await asyncio.gather(*(sender.send("Deposit", account_id=f"a{i}", amount=1) for i in range(64)))
    assert len(watched.entries) == 64
    assert len(await sender.events()) == 64


async def test_a_boundary_of_several_keys_holds_what_carries_any_of_the_tags(sender: Bank, watched: Watched) -> None:
    await sender.send("Deposit", account_id="a", amount=10)
    await sender.send("Transfer", **{"from": "a", "to": "b", "amount": 4})
    condition = watched.entries[-1].condition
    assert condition is not None
    types = frozenset({"bank.v1.MoneyDeposited", "bank.v1.MoneyWithdrawn"})
    assert condition == Condition(
        Query((QueryItem(types, frozenset({"account:b"})), QueryItem(types, frozenset({"from:a"})))), 1
    )
    await sender.send("Transfer", **{"from": "b", "to": "a", "amount": 4})
    with pytest.raises(Rejected):
        await sender.send("Transfer", **{"from": "b", "to": "a", "amount": 1})


async def test_events_of_another_boundary_are_not_folded(sender: Bank) -> None:
    """Closing an account yields an event that the state lists, but of another account."""
    await sender.send("Deposit", account_id="a", amount=10)
    await sender.send("CloseAccount", account_id="a", heir_id="b")
    fresh = CommandExecutor(sender.context, sender.log)
    for executor in (sender.executor, fresh):
        sender.executor = executor
        with pytest.raises(Rejected, match="only 0"):
            await sender.send("Withdraw", account_id="a", amount=1)
        with pytest.raises(Rejected, match="only 10"):
            await sender.send("Withdraw", account_id="b", amount=11)


async def test_what_a_repeated_command_would_have_changed_is_not_kept(sender: Bank, rival: Bank) -> None:
    """Under a derived id the first receipt wins, whatever the content."""
    await sender.send("CloseAccount", account_id="b")
    await rival.send("Deposit", "ceqs:once", {"derived": True}, account_id="a", amount=1)
    await sender.send("Deposit", "ceqs:once", {"derived": True}, account_id="b", amount=100)
    deposited = await sender.send("Deposit", account_id="b", amount=1)
    assert deposited.response.balance == 1  # type: ignore[attr-defined]


async def test_a_boundary_without_keys_holds_every_event_of_its_types(sender: Bank, rival: Bank) -> None:
    outcomes = await asyncio.gather(
        *(who.send("ReserveName", name=f"n{i}") for i in range(8) for who in (sender, rival)), return_exceptions=True
    )
    assert sum(isinstance(outcome, Executed) for outcome in outcomes) == 10
    assert {o.reason for o in outcomes if isinstance(o, Rejected)} == {"NO_NAME_LEFT"}


@pytest.mark.parametrize(
    ("name", "fields", "field"),
    [
        ("OpenAccount", {}, "account_id"),
        ("Transfer", {"from": "a"}, "to"),
        ("Transfer", {"to": "a"}, "from"),
    ],
)
async def test_a_request_without_a_value_for_a_key_is_refused_by_the_name_of_the_field(
    sender: Bank, watched: Watched, name: str, fields: dict[str, str], field: str
) -> None:
    with pytest.raises(Invalid) as refused:
        await sender.send(name, **fields)
    assert [violation.field for violation in refused.value.violations] == [field]
    assert not watched.entries


async def test_an_event_that_breaks_its_own_rules_is_the_handlers_error(sender: Bank) -> None:
    with pytest.raises(Misconfigured, match="MoneyDeposited, which breaks its own rules: amount"):
        await sender.send("Fail", account_id="a", how="rule")
    assert not await sender.events()


async def test_what_the_fold_cannot_take_is_not_recorded(sender: Bank) -> None:
    with pytest.raises(ValueError, match="secret of the fold"):
        await sender.send("OpenAccount", account_id="unfoldable")
    assert not await sender.events()


async def test_a_failing_fold_discards_the_cached_state(sender: Bank, log: Log) -> None:
    await sender.send("Deposit", account_id="unfoldable", amount=1)
    poison = NewEvent(
        id="00000000-0000-7000-8000-000000000000",
        type="bank.v1.AccountOpened",
        payload=sender.bank.AccountOpened(account_id="unfoldable").SerializeToString(),
        tags=("account:unfoldable",),
    )
    await log.append(Entry(command_id="poison", events=(poison,)))
    for _ in range(2):
        with pytest.raises(ValueError, match="secret of the fold"):
            await sender.send("Deposit", account_id="unfoldable", amount=1)
    assert not sender.executor._states._kept


async def test_the_cache_is_bounded(bank: Any, context: Any, log: Log, sender: Bank) -> None:
    from ceqs.queries import States

    states = States(context, log, capacity=3)
    sender.executor = CommandExecutor(context, log, states)
    for i in range(10):
        await sender.send("Deposit", account_id=f"a{i}", amount=1)
    assert len(states._kept) == 3
    deposited = await sender.send("Deposit", account_id="a0", amount=1)
    assert deposited.response.balance == 2  # type: ignore[attr-defined]


async def test_a_conflict_that_does_not_end_reaches_the_caller(sender: Bank, watched: Watched) -> None:
    watched.errors = [Conflict()] * 100
    with pytest.raises(Conflict, match="16 times"):
        await sender.send("Deposit", account_id="a", amount=1)
    assert len(watched.entries) == 16
    watched.errors.clear()
    await sender.send("Deposit", account_id="a", amount=1)


async def test_an_unknown_outcome_discards_the_cached_state(sender: Bank, watched: Watched) -> None:
    await sender.send("Deposit", account_id="a", amount=1)
    watched.lose_replies = 1
    with pytest.raises(LogUnavailable):
        await sender.send("Deposit", account_id="a", amount=1)
    assert not sender.executor._states._kept
    deposited = await sender.send("Deposit", account_id="a", amount=1)
    assert deposited.response.balance == 3  # type: ignore[attr-defined]


async def test_nothing_is_appended_after_the_deadline(sender: Bank) -> None:
    with pytest.raises(Expired):
        await sender.send("Deposit", "", {"expires": time.monotonic() - 1}, account_id="a", amount=1)
    assert not await sender.events()


async def test_a_callers_cancellation_leaves_the_executor_sound(sender: Bank) -> None:
    sent = asyncio.ensure_future(sender.send("Deposit", "once", account_id="a", amount=1))
    await asyncio.sleep(0)
    sent.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sent
    again = await sender.send("Deposit", "once", account_id="a", amount=1)
    assert again.response.balance == 1  # type: ignore[attr-defined]
    await eventually(sender.events)
    assert len(await sender.events()) == 1


async def test_a_gatekeeper_refuses_before_anything_is_decided(sender: Bank) -> None:
    sender.context.gate.listed.add("a")
    with pytest.raises(Rejected, match="a is on the list") as refused:
        await sender.send("OpenAccount", "id-1", {"actor": "ann"}, account_id="a")
    assert refused.value.reason == "LISTED"
    assert sender.context.gate.asked == [("a", "id-1", "ann")]
    assert await sender.events() == []
    await sender.send("OpenAccount", account_id="b")
    assert len(await sender.events()) == 1


async def test_a_gatekeeper_that_refuses_now_does_not_take_back_a_receipt(sender: Bank) -> None:
    first = await sender.send("OpenAccount", "id-1", account_id="a")
    sender.context.gate.listed.add("a")
    again = await sender.send("OpenAccount", "id-1", account_id="a")
    assert again.receipt == first.receipt
    sender.context.gate.broken = True
    again = await sender.send("OpenAccount", "id-1", account_id="a")
    assert again.receipt == first.receipt
    with pytest.raises(DuplicateCommand):
        await sender.send("OpenAccount", "id-1", account_id="b")
    assert len(await sender.events()) == 1


async def test_a_broken_gatekeeper_lets_nothing_pass(sender: Bank) -> None:
    sender.context.gate.broken = True
    with pytest.raises(ValueError, match="secret of the gatekeeper"):
        await sender.send("OpenAccount", account_id="a")
    assert await sender.events() == []


async def test_a_command_that_nobody_guards_is_not_asked_about(sender: Bank) -> None:
    await sender.send("ReserveName", name="n")
    assert sender.context.gate.asked == []
