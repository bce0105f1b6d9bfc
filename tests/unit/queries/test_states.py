"""Loading states, and their boundaries."""

from __future__ import annotations

from typing import Any

import pytest

from ceqs.contract import TagField
from ceqs.errors import Misconfigured
from ceqs.log import QueryItem
from ceqs.model import boundary_of
from ceqs.queries import Known


def account(asking: Any, account_id: str = "a") -> Any:
    rpc = asking.rpc("GetBalance")
    return boundary_of(rpc.state, rpc.tags, asking.bank.GetBalanceRequest(account_id=account_id))


async def test_a_state_is_folded_from_more_events_than_one_read_gives(asking: Any) -> None:
    for _ in range(25):
        await asking.record(*(asking.bank.MoneyDeposited(account_id="a", amount=1) for _ in range(100)))
    known = await asking.states.load(account(asking))
    assert (known.state.balance, known.position, known.events) == (2500, 2500, 2500)


async def test_a_state_is_folded_on_from_where_it_is_kept(asking: Any) -> None:
    await asking.record(asking.bank.MoneyDeposited(account_id="a", amount=1))
    boundary = account(asking)
    first = await asking.states.load(boundary)
    await asking.record(asking.bank.MoneyDeposited(account_id="a", amount=2))
    assert await asking.states.load(boundary) is first
    later = await asking.states.load(boundary, 2)
    assert (later.state.balance, later.position) == (3, 2)
    assert first.state.balance == 1
    fold = asking.context.folders["Account"].methods["bank.v1.MoneyDeposited"].__self__
    assert fold.folded == 2


async def test_an_older_state_never_replaces_a_later_one(asking: Any) -> None:
    boundary = account(asking)
    later, older = Known(asking.bank.Account(balance=2), 2, 2), Known(asking.bank.Account(balance=1), 1, 1)
    asking.states.keep(boundary, later)
    asking.states.keep(boundary, older)
    assert await asking.states.load(boundary) is later
    asking.states.forget(boundary)
    assert (await asking.states.load(boundary)).position == 0


def test_the_boundary_of_several_values_is_one_item_per_tag(asking: Any) -> None:
    contract, bank = asking.context.contract, asking.bank
    rpc = contract.commands["/bank.v1.BankCommandsService/Transfer"]
    boundary = boundary_of(rpc.state, rpc.tags, bank.TransferRequest(**{"from": "x", "to": "y"}))
    types = frozenset({"bank.v1.MoneyDeposited", "bank.v1.MoneyWithdrawn"})
    assert boundary.tags == ("account:y", "from:x")
    assert boundary.query.items == tuple(QueryItem(types, frozenset({tag})) for tag in boundary.tags)
    assert boundary.values() == {"account": "y", "from": "x"}
    assert boundary.holds("bank.v1.MoneyDeposited", ["from:x"])
    assert boundary.holds("bank.v1.MoneyDeposited", ["account:y", "from:y"])
    assert not boundary.holds("bank.v1.MoneyDeposited", ["account:x", "from:y"])
    assert not boundary.holds("bank.v1.AccountOpened", ["account:y"])


def test_the_boundary_without_keys_is_one_item_of_types(asking: Any) -> None:
    rpc = asking.context.contract.commands["/bank.v1.BankCommandsService/ReserveName"]
    boundary = boundary_of(rpc.state, rpc.tags, asking.bank.ReserveNameRequest(name="n"))
    assert boundary.query.items == (QueryItem(frozenset({"bank.v1.NameReserved"})),)
    assert boundary.holds("bank.v1.NameReserved", [])
    assert not boundary.holds("bank.v1.MoneyDeposited", [])


def test_a_request_that_cannot_address_the_boundary_is_the_contracts_error(asking: Any) -> None:
    rpc = asking.rpc("GetBalance")
    with pytest.raises(Misconfigured, match="no field with the tag 'account'"):
        boundary_of(rpc.state, [TagField("amount", "other", False)], asking.bank.DepositRequest(amount=1))
