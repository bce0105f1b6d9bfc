"""Commands that arrive together: decided in sequence on the pending state, appended at once."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from tests.unit.server.conftest import turns_of

from ceqs.contract import Locking
from ceqs.errors import DuplicateCommand, Invalid, Overloaded, Rejected
from ceqs.log import Condition, Entry, Log, NewEvent, Query, QueryItem
from ceqs.server import CommandCall, CommandExecutor, Executed
from ceqs.server._decider import Decider
from ceqs.server._intake import Intake
from ceqs.server._lane import LONGEST_WAIT
from ceqs.testing import eventually


@pytest.fixture(autouse=True)
def leisure(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches are as large as the tests say, however busy the machine is."""
    turns_of(60.0, monkeypatch)


def balances(executed: list[Any]) -> list[int]:
    return [one.response.balance for one in executed]


async def test_commands_of_one_boundary_are_decided_in_sequence_and_appended_at_once(sender: Any, watched: Any) -> None:
    executed = await asyncio.gather(*(sender.send("Deposit", account_id="a", amount=1) for _ in range(64)))
    assert balances(executed) == list(range(1, 65))
    assert [one.receipt.position for one in executed] == list(range(1, 65))
    assert sender.decided() == 64
    assert len(watched.batches) == 1


async def test_commands_of_several_boundaries_share_a_transaction(sender: Any, watched: Any) -> None:
    await asyncio.gather(*(sender.send("Deposit", account_id=f"a{i}", amount=1) for i in range(64)))
    assert [len(batch) for batch in watched.batches] == [64]
    assert watched.reads == 1
    assert len(await sender.events()) == 64


async def test_a_batch_is_bounded_and_the_rest_goes_on_in_order(sender: Any, watched: Any) -> None:
    executed = await asyncio.gather(*(sender.send("Deposit", account_id="a", amount=1) for _ in range(600)))
    assert balances(executed) == list(range(1, 601))
    assert [len(batch) for batch in watched.batches] == [256, 256, 88]


@pytest.mark.parametrize(("room", "step"), [(Intake, "_is_read"), (Decider, "_propose")])
async def test_slow_reading_or_deciding_makes_batches_small_and_keeps_the_order(
    sender: Any, watched: Any, monkeypatch: pytest.MonkeyPatch, room: type, step: str
) -> None:
    turns_of(0.02, monkeypatch)
    quick = getattr(room, step)

    def slowly(*arguments: Any, **named: Any) -> Any:
        time.sleep(0.03)
        return quick(*arguments, **named)

    monkeypatch.setattr(room, step, slowly)
    executed = await asyncio.gather(*(sender.submit("Deposit", account_id="a", amount=1) for _ in range(5)))
    assert balances(executed) == [1, 2, 3, 4, 5]
    assert [len(batch) for batch in watched.batches] == [1] * 5


async def test_nothing_is_answered_before_the_commit(sender: Any, watched: Any) -> None:
    watched.open.clear()
    sent = [asyncio.ensure_future(sender.send("Withdraw", account_id="a", amount=1))]
    sent += [asyncio.ensure_future(sender.send("Deposit", account_id="a", amount=1)) for _ in range(3)]
    await eventually(lambda: watched.batches)
    await asyncio.sleep(0.02)
    assert not any(one.done() for one in sent)
    watched.open.set()
    await asyncio.wait(sent)
    assert isinstance(sent[0].exception(), Rejected)


async def test_what_arrives_during_a_commit_is_decided_on_what_it_left(sender: Any, watched: Any) -> None:
    watched.open.clear()
    first = asyncio.ensure_future(sender.send("Deposit", account_id="a", amount=5))
    await eventually(lambda: watched.batches)
    second = asyncio.ensure_future(sender.send("Withdraw", account_id="a", amount=5))
    await asyncio.sleep(0.01)
    assert len(watched.batches) == 1
    watched.open.set()
    await asyncio.gather(first, second)
    assert sender.decided() == 2


async def test_boundaries_that_overlap_see_each_others_events(sender: Any, watched: Any) -> None:
    """A transfer depends on two accounts, a deposit on one of them."""
    await asyncio.gather(
        sender.send("Deposit", account_id="a", amount=10),
        sender.send("Transfer", **{"from": "a", "to": "b", "amount": 7}),
        sender.send("Withdraw", account_id="b", amount=7),
        sender.send("Transfer", **{"from": "a", "to": "c", "amount": 3}),
    )
    assert len(watched.batches) == 1
    with pytest.raises(Rejected):
        await sender.send("Transfer", **{"from": "a", "to": "b", "amount": 1})


async def test_what_built_on_a_refused_command_is_decided_again(sender: Any, watched: Any) -> None:
    await sender.send("Deposit", "used", account_id="z", amount=1)
    outcomes = await asyncio.gather(
        sender.send("Deposit", account_id="a", amount=1),
        # Its id was used with other content, which only the log knows.
        sender.send("Deposit", "used", account_id="a", amount=100),
        sender.send("Deposit", account_id="a", amount=1),
        sender.send("Withdraw", account_id="a", amount=50),
        return_exceptions=True,
    )
    assert [type(outcome) for outcome in outcomes] == [Executed, DuplicateCommand, Executed, Rejected]
    assert outcomes[2].response.balance == 2  # type: ignore[union-attr]
    assert "only 2" in str(outcomes[3])
    # The first of them was not asked again.
    assert [len(batch) for batch in watched.batches] == [1, 4, 2]


async def test_what_built_on_a_repeated_command_is_decided_again(sender: Any) -> None:
    await sender.send("Deposit", "once", account_id="a", amount=10)
    outcomes = await asyncio.gather(
        sender.send("Deposit", "once", account_id="a", amount=10),
        sender.send("Withdraw", account_id="a", amount=15),
        return_exceptions=True,
    )
    assert outcomes[0].receipt.position == 1  # type: ignore[union-attr]
    assert "only 10" in str(outcomes[1])


async def test_twins_in_one_batch_are_one_event(sender: Any) -> None:
    twins = await asyncio.gather(*(sender.send("Deposit", "once", account_id="a", amount=10) for _ in range(5)))
    assert {one.receipt.SerializeToString() for one in twins} == {twins[0].receipt.SerializeToString()}
    assert balances(twins) == [10] * 5
    assert len(await sender.events()) == 1


async def test_what_built_on_an_event_beyond_the_limits_is_decided_again(
    sender: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    method = sender.context.method(sender.rpc("Deposit"))
    bank = sender.bank

    def deposit(request: Any, account: Any, ctx: Any) -> Any:
        if request.amount == 100:
            yield bank.MoneyDeposited(account_id=request.account_id, amount=100)
            yield bank.AccountOpened(account_id="b" * 500)
            return None
        return (yield from method(request, account, ctx))

    monkeypatch.setattr(type(sender.context), "method", lambda self, rpc: deposit)
    monkeypatch.setattr("ceqs.log._prepare.MAX_EVENT_BYTES", 100)
    outcomes = await asyncio.gather(
        sender.send("Deposit", account_id="a", amount=100),
        sender.send("Deposit", account_id="a", amount=1),
        return_exceptions=True,
    )
    assert isinstance(outcomes[0], Invalid)
    assert outcomes[1].response.balance == 1  # type: ignore[union-attr]
    assert len(await sender.events()) == 1


async def test_a_handler_that_breaks_fails_its_own_command_alone(sender: Any) -> None:
    outcomes = await asyncio.gather(
        sender.send("Deposit", account_id="a", amount=1),
        sender.send("Fail", account_id="a", how="bug"),
        sender.send("Deposit", account_id="a", amount=1),
        return_exceptions=True,
    )
    assert [isinstance(outcome, Executed) for outcome in outcomes] == [True, False, True]
    assert outcomes[2].response.balance == 2  # type: ignore[union-attr]


async def test_a_state_that_cannot_be_loaded_fails_its_own_commands_alone(sender: Any, log: Log) -> None:
    alien = NewEvent(id="1", type="bank.v1.MoneyDeposited", payload=b"\xff", tags=("account:a",))
    await log.append(Entry(command_id="alien", events=(alien,)))
    outcomes = await asyncio.gather(
        sender.send("Deposit", account_id="a", amount=1),
        sender.send("Deposit", account_id="b", amount=1),
        return_exceptions=True,
    )
    assert [isinstance(outcome, Executed) for outcome in outcomes] == [False, True]


async def test_the_order_of_one_boundary_is_kept_over_conflicts(sender: Any, rival: Any, watched: Any) -> None:
    await sender.send("Deposit", account_id="a", amount=1)
    await rival.send("Deposit", account_id="a", amount=1)
    # The sender's cache is stale, so all of these are decided twice.
    executed = await asyncio.gather(*(sender.send("Deposit", account_id="a", amount=1) for _ in range(20)))
    assert balances(executed) == list(range(3, 23))
    assert [len(batch) for batch in watched.batches] == [1, 20, 20]


async def test_a_pessimistic_boundary_is_held_from_before_it_is_loaded_until_it_is_appended(
    sender: Any, watched: Any
) -> None:
    rpc = sender.rpc("Deposit")
    rpc = replace(rpc, state=replace(rpc.state, locking=Locking.PESSIMISTIC))
    request = sender.bank.DepositRequest(account_id="a", amount=1)
    calls = [sender.executor.execute(rpc, request, CommandCall(command_id=str(i))) for i in range(64)]
    watched.open.clear()
    sent = asyncio.gather(*calls)
    await eventually(lambda: watched.batches)
    assert watched.held == [["Account\naccount:a"]]
    watched.open.set()
    assert balances(await sent) == list(range(1, 65))
    assert watched.held[1:] == [[]]
    assert sender.decided() == 64


async def test_an_optimistic_boundary_is_held_only_once_it_has_met_another_process(
    sender: Any, rival: Any, watched: Any
) -> None:
    await sender.send("Deposit", account_id="a", amount=1)
    assert not watched.held
    await rival.send("Deposit", account_id="a", amount=1)
    await sender.send("Deposit", account_id="a", amount=1)
    assert len(watched.held) == 2


async def test_who_waits_for_a_held_boundary_does_not_hold_up_others(sender: Any, watched: Any) -> None:
    watched.open.clear()
    rpc = sender.rpc("Deposit")
    hot = replace(rpc, state=replace(rpc.state, locking=Locking.PESSIMISTIC))
    request = sender.bank.DepositRequest(account_id="a", amount=1)
    sent = sender.executor.submit(hot, request.SerializeToString(), lambda _: CommandCall(command_id="hot"))
    await eventually(lambda: watched.batches)
    other = asyncio.ensure_future(sender.send("Deposit", account_id="b", amount=1))
    await eventually(lambda: len(watched.batches) == 2)
    watched.open.set()
    await asyncio.gather(sent, other)


async def test_one_more_than_may_wait_is_refused_and_nothing_of_it_is_kept(sender: Any, watched: Any) -> None:
    sender.executor = CommandExecutor(sender.context, watched, max_waiting=3)
    outcomes = await asyncio.gather(
        *(sender.send("Deposit", account_id="a", amount=1) for _ in range(5)), return_exceptions=True
    )
    assert [type(outcome) for outcome in outcomes] == [Executed] * 3 + [Overloaded] * 2
    assert len(await sender.events()) == 3
    assert balances([await sender.send("Deposit", account_id="a", amount=1)]) == [4]


async def test_where_others_wait_for_too_long_one_more_is_refused_though_few_wait_and_only_there(
    sender: Any, watched: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched.open.clear()
    sent = [asyncio.ensure_future(sender.send("Deposit", account_id="a", amount=1))]
    await eventually(lambda: watched.batches)
    # The next batch is decided meanwhile; one more than a batch waits behind it.
    sent += [asyncio.ensure_future(sender.send("Deposit", account_id="a", amount=1)) for _ in range(513)]
    rpc = sender.rpc("Deposit")
    hot = replace(rpc, state=replace(rpc.state, locking=Locking.PESSIMISTIC))
    await eventually(lambda: len(sender.executor._optimistic.waiting) > 256)
    assert not sender.executor.is_full(rpc)
    late = time.monotonic() + LONGEST_WAIT + 0.1
    monkeypatch.setattr("ceqs.server._lane.time", SimpleNamespace(monotonic=lambda: late))
    with pytest.raises(Overloaded):
        await sender.send("Deposit", account_id="a", amount=1)
    with pytest.raises(Overloaded):
        await sender.submit("Deposit", account_id="a", amount=1)
    assert not sender.executor.is_full(hot)
    watched.open.set()
    executed = await asyncio.gather(*sent)
    assert balances(executed) == list(range(1, 515))
    assert not sender.executor.is_full(rpc)


async def test_64_commands_at_once_at_two_servers_are_all_decided_rightly(sender: Any, rival: Any) -> None:
    await sender.send("Deposit", account_id="a", amount=32)
    sent = [who.send("Withdraw", account_id="a", amount=1) for _ in range(32) for who in (sender, rival)]
    outcomes = await asyncio.gather(*sent, return_exceptions=True)
    assert sum(isinstance(outcome, Executed) for outcome in outcomes) == 32
    assert {outcome.reason for outcome in outcomes if isinstance(outcome, Rejected)} == {"TOO_LITTLE"}
    assert len(await sender.events()) == 33


async def test_many_commands_that_first_touch_a_state_load_it_once(sender: Any, watched: Any, rival: Any) -> None:
    for _ in range(3):
        await rival.send("Deposit", account_id="a", amount=1)
    await asyncio.gather(
        *(sender.send("Fail", account_id="a", how="rejected") for _ in range(50)), return_exceptions=True
    )
    assert watched.reads <= 2
    fold = sender.context.folders["Account"].methods["bank.v1.MoneyDeposited"].__self__
    assert fold.folded == 3


async def test_a_boundary_of_several_keys_holds_what_carries_any_of_the_tags(sender: Any, watched: Any) -> None:
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


async def test_events_of_another_boundary_are_not_folded(sender: Any) -> None:
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


async def test_a_boundary_without_keys_holds_every_event_of_its_types(sender: Any, rival: Any) -> None:
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
    sender: Any, watched: Any, name: str, fields: dict[str, str], field: str
) -> None:
    with pytest.raises(Invalid) as refused:
        await sender.send(name, **fields)
    assert [violation.field for violation in refused.value.violations] == [field]
    assert not watched.entries


async def test_what_the_fold_cannot_take_is_not_recorded(sender: Any) -> None:
    with pytest.raises(ValueError, match="secret of the fold"):
        await sender.send("OpenAccount", account_id="unfoldable")
    assert not await sender.events()


async def test_a_failing_fold_discards_the_cached_state(sender: Any, log: Log) -> None:
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


async def test_the_cache_is_bounded(bank: Any, context: Any, log: Log, sender: Any) -> None:
    from ceqs.queries import States

    states = States(context, log, capacity=3)
    sender.executor = CommandExecutor(context, log, states)
    for i in range(10):
        await sender.send("Deposit", account_id=f"a{i}", amount=1)
    assert len(states._kept) == 3
    deposited = await sender.send("Deposit", account_id="a0", amount=1)
    assert deposited.response.balance == 2
