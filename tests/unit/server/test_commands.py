"""The way of a command, without gRPC."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from ceqs.errors import Conflict, DuplicateCommand, Expired, LogUnavailable, Misconfigured, OutOfRange, Rejected
from ceqs.model import Decision
from ceqs.testing import eventually


async def test_a_command_is_recorded_as_its_handler_decided(sender: Any) -> None:
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
    assert executed.response.receipt == executed.receipt
    assert executed.receipt.command_id == "id-1"
    assert list(executed.receipt.event_ids) == [event.id]
    assert executed.receipt.token


async def test_a_handler_is_told_who_sends_which_command_and_when(sender: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Decision] = []

    def open_account(request: Any, account: Any, ctx: Decision) -> Iterator[Any]:
        told.append(ctx)
        yield sender.bank.AccountOpened(account_id=request.account_id)

    monkeypatch.setattr(sender.context, "method", lambda _: open_account)
    before = time.time_ns()
    await sender.send("OpenAccount", "id-1", {"actor": "ann"}, account_id="a")
    (ctx,) = told
    assert (ctx.command_id, ctx.actor) == ("id-1", "ann")
    assert before <= ctx.time_ns <= time.time_ns()


async def test_the_state_has_its_tag_field_before_its_first_event(sender: Any) -> None:
    await sender.send("Deposit", account_id="a", amount=1)
    (event,) = await sender.events()
    assert sender.bank.MoneyDeposited.FromString(event.payload).account_id == "a"


async def test_a_command_answers_and_a_repeated_one_gets_the_same_answer(sender: Any) -> None:
    await sender.send("Deposit", account_id="a", amount=1)
    first = await sender.send("Deposit", "once", account_id="a", amount=2)
    await sender.send("Deposit", account_id="a", amount=4)
    again = await sender.send("Deposit", "once", account_id="a", amount=2)
    assert again.response == first.response
    assert again.response.balance == 3
    assert len(await sender.events()) == 3


async def test_a_retry_after_a_lost_reply_gets_the_first_receipt_and_not_a_rejection(sender: Any, watched: Any) -> None:
    watched.lose_replies = 1
    with pytest.raises(LogUnavailable):
        await sender.send("OpenAccount", "once", account_id="a")
    again = await sender.send("OpenAccount", "once", account_id="a")
    assert again.receipt.position == 1
    assert len(await sender.events()) == 1
    with pytest.raises(Rejected, match="is open"):
        await sender.send("OpenAccount", "another", account_id="a")


async def test_a_retry_at_another_server_gets_the_first_receipt(sender: Any, rival: Any) -> None:
    first = await sender.send("OpenAccount", "once", account_id="a")
    again = await rival.send("OpenAccount", "once", account_id="a")
    assert again.receipt == first.receipt


async def test_a_repeated_command_is_known_before_its_boundary_is_judged(sender: Any, rival: Any, watched: Any) -> None:
    """Else it would be decided again, for as long as its boundary moves: until its caller hears of a conflict."""
    first = await sender.send("Deposit", "once", account_id="a", amount=1)
    await rival.send("Deposit", account_id="a", amount=1)
    tried = len(watched.batches)
    again = await sender.send("Deposit", "once", account_id="a", amount=1)
    assert again.receipt == first.receipt
    assert len(watched.batches) == tried + 1


async def test_a_command_id_with_other_content_is_refused_even_where_the_command_would_be_rejected(
    sender: Any,
) -> None:
    await sender.send("OpenAccount", "once", account_id="a")
    await sender.send("OpenAccount", account_id="b")
    for fields in ({"account_id": "b"}, {"account_id": "c"}):
        with pytest.raises(DuplicateCommand):
            await sender.send("OpenAccount", "once", **fields)
    with pytest.raises(DuplicateCommand):
        await sender.send("OpenAccount", "once", {"actor": "somebody else"}, account_id="a")
    assert len(await sender.events()) == 2


async def test_the_field_that_carries_the_command_id_is_not_its_content(sender: Any) -> None:
    first = await sender.send("OpenAccount", "once", account_id="a", request_id="once")
    again = await sender.send("OpenAccount", "once", account_id="a")
    assert again.receipt == first.receipt


async def test_a_rejected_command_may_be_sent_again_under_its_id(sender: Any) -> None:
    with pytest.raises(Rejected) as refused:
        await sender.send("Withdraw", "once", account_id="a", amount=5)
    assert refused.value.reason == "TOO_LITTLE"
    await sender.send("Deposit", account_id="a", amount=5)
    await sender.send("Withdraw", "once", account_id="a", amount=5)
    assert len(await sender.events()) == 2


async def test_nothing_is_appended_where_the_handler_rejects_after_a_yield(sender: Any) -> None:
    with pytest.raises(Rejected):
        await sender.send("Fail", account_id="a", how="rejected")
    assert not await sender.events()


async def test_a_command_that_changes_nothing_succeeds_and_is_remembered(sender: Any) -> None:
    await sender.send("Deposit", account_id="b", amount=1)
    first = await sender.send("CloseAccount", "once", account_id="a")
    assert not first.receipt.event_ids
    assert first.receipt.position == 1
    await sender.send("OpenAccount", account_id="a")
    again = await sender.send("CloseAccount", "once", account_id="a")
    assert again.receipt == first.receipt
    assert len(await sender.events()) == 2


async def test_a_stale_cache_never_rejects(sender: Any, rival: Any) -> None:
    await sender.send("Deposit", account_id="a", amount=1)
    await rival.send("Deposit", account_id="a", amount=9)
    # The sender's cache says 1.
    await sender.send("Withdraw", account_id="a", amount=10)
    with pytest.raises(Rejected, match="only 0"):
        await rival.send("Withdraw", account_id="a", amount=10)


async def test_a_stale_cache_never_says_that_there_is_nothing_to_do(sender: Any, rival: Any) -> None:
    await sender.send("CloseAccount", account_id="a")
    await rival.send("OpenAccount", account_id="a")
    # The sender's cache says closed.
    closed = await sender.send("CloseAccount", account_id="a")
    assert len(closed.receipt.event_ids) == 1


async def test_a_stale_cache_never_accepts(sender: Any, rival: Any) -> None:
    await sender.send("Deposit", account_id="a", amount=10)
    await rival.send("Withdraw", account_id="a", amount=10)
    with pytest.raises(Rejected, match="only 0"):
        await sender.send("Withdraw", account_id="a", amount=10)


async def test_an_answer_is_decided_on_the_present(sender: Any, rival: Any) -> None:
    await sender.send("Deposit", account_id="a", amount=1)
    await rival.send("Deposit", account_id="a", amount=2)
    deposited = await sender.send("Deposit", account_id="a", amount=4)
    assert deposited.response.balance == 7


async def test_what_a_repeated_command_would_have_changed_is_not_kept(sender: Any, rival: Any) -> None:
    """Under a derived id the first receipt wins, whatever the content."""
    await sender.send("CloseAccount", account_id="b")
    await rival.send("Deposit", "ceqs:once", {"derived": True}, account_id="a", amount=1)
    await sender.send("Deposit", "ceqs:once", {"derived": True}, account_id="b", amount=100)
    deposited = await sender.send("Deposit", account_id="b", amount=1)
    assert deposited.response.balance == 1


async def test_an_event_that_breaks_its_own_rules_is_the_handlers_error(sender: Any) -> None:
    with pytest.raises(Misconfigured, match="MoneyDeposited, which breaks its own rules: amount"):
        await sender.send("Fail", account_id="a", how="rule")
    assert not await sender.events()


async def test_a_conflict_that_does_not_end_reaches_the_caller(sender: Any, watched: Any) -> None:
    watched.errors = [Conflict()] * 100
    with pytest.raises(Conflict, match="16 times"):
        await sender.send("Deposit", account_id="a", amount=1)
    assert len(watched.entries) == 16
    watched.errors.clear()
    await sender.send("Deposit", account_id="a", amount=1)


async def test_an_unknown_outcome_discards_the_cached_state(sender: Any, watched: Any) -> None:
    await sender.send("Deposit", account_id="a", amount=1)
    watched.lose_replies = 1
    with pytest.raises(LogUnavailable):
        await sender.send("Deposit", account_id="a", amount=1)
    assert not sender.executor._states._kept
    deposited = await sender.send("Deposit", account_id="a", amount=1)
    assert deposited.response.balance == 3


async def test_a_state_of_more_than_the_log_holds_is_discarded(sender: Any) -> None:
    """So it is once a replica has taken over that had not seen the last commits."""
    await sender.send("Deposit", account_id="a", amount=1)
    kept = sender.executor._states._kept
    ((boundary, known),) = kept.items()
    kept[boundary] = replace(known, position=99)
    with pytest.raises(OutOfRange, match="the log ends at 1"):
        await sender.send("Deposit", account_id="a", amount=1)
    deposited = await sender.send("Deposit", account_id="a", amount=1)
    assert deposited.response.balance == 2


async def test_nothing_is_appended_after_the_deadline(sender: Any) -> None:
    with pytest.raises(Expired):
        await sender.send("Deposit", "", {"expires": time.monotonic() - 1}, account_id="a", amount=1)
    assert not await sender.events()


async def test_a_callers_cancellation_leaves_the_executor_sound(sender: Any) -> None:
    sent = asyncio.ensure_future(sender.send("Deposit", "once", account_id="a", amount=1))
    await asyncio.sleep(0)
    sent.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sent
    again = await sender.send("Deposit", "once", account_id="a", amount=1)
    assert again.response.balance == 1
    await eventually(sender.events)
    assert len(await sender.events()) == 1


async def test_a_gatekeeper_refuses_before_anything_is_decided(sender: Any) -> None:
    sender.context.gate.listed.add("a")
    with pytest.raises(Rejected, match="a is on the list") as refused:
        await sender.send("OpenAccount", "id-1", {"actor": "ann"}, account_id="a")
    assert refused.value.reason == "LISTED"
    assert sender.context.gate.asked == [("a", "id-1", "ann")]
    assert await sender.events() == []
    await sender.send("OpenAccount", account_id="b")
    assert len(await sender.events()) == 1


async def test_a_gatekeeper_that_refuses_now_does_not_take_back_a_receipt(sender: Any) -> None:
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


async def test_a_broken_gatekeeper_lets_nothing_pass(sender: Any) -> None:
    sender.context.gate.broken = True
    with pytest.raises(ValueError, match="secret of the gatekeeper"):
        await sender.send("OpenAccount", account_id="a")
    assert await sender.events() == []


async def test_a_command_that_nobody_guards_is_not_asked_about(sender: Any) -> None:
    await sender.send("ReserveName", name="n")
    assert sender.context.gate.asked == []
