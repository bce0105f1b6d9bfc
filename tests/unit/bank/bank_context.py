"""The handlers of the bank, and what its tests ask of it."""

# The bank's modules are generated when the tests run, so nothing here can be checked before.
# mypy: ignore-errors

from __future__ import annotations

import asyncio

from bank.v1.bank_ceqs import (
    AccountFoldBase,
    BankCommands,
    BankContext,
    BankGatekeeper,
    BankQueries,
    NamesFoldBase,
    PairFoldBase,
    TotalProjection,
)
from bank.v1.bank_pb2 import (
    AccountClosed,
    AccountOpened,
    DepositResponse,
    GetBalanceResponse,
    GetMottoResponse,
    GetTotalResponse,
    MoneyDeposited,
    MoneyWithdrawn,
    NameReserved,
    WatchTotalResponse,
)
from sqlalchemy import MetaData

from ceqs.errors import Rejected


class Account(AccountFoldBase):
    """Folds an account."""

    def __init__(self) -> None:
        self.folded = 0

    def on_account_opened(self, account, event) -> None:
        self.folded += 1
        if event.account_id == "unfoldable":
            raise ValueError("secret of the fold")
        account.open = True

    def on_money_deposited(self, account, event) -> None:
        self.folded += 1
        account.balance += event.amount

    def on_money_withdrawn(self, account, event) -> None:
        self.folded += 1
        account.balance -= event.amount

    def on_account_closed(self, account, event) -> None:
        self.folded += 1
        account.open = False


class Pair(PairFoldBase):
    """Folds two accounts."""

    def on_money_deposited(self, pair, event) -> None:
        pair.balances[event.account_id] += event.amount

    def on_money_withdrawn(self, pair, event) -> None:
        pair.balances[event.account_id] -= event.amount


class Names(NamesFoldBase):
    """Folds the names."""

    def on_name_reserved(self, names, event) -> None:
        names.names.append(event.name)


class Commands(BankCommands):
    """Decides, and counts how often."""

    def __init__(self) -> None:
        self.decided = 0

    def open_account(self, request, account, ctx):
        self.decided += 1
        if account.open:
            raise Rejected("ACCOUNT_EXISTS", f"the account {request.account_id} is open")
        yield AccountOpened(account_id=request.account_id)

    def deposit(self, request, account, ctx):
        self.decided += 1
        yield MoneyDeposited(account_id=account.account_id, amount=request.amount, **{"from": account.account_id})
        return DepositResponse(balance=account.balance + request.amount)

    def withdraw(self, request, account, ctx):
        self.decided += 1
        if account.balance < request.amount:
            raise Rejected("TOO_LITTLE", f"there is only {account.balance}")
        yield MoneyWithdrawn(account_id=account.account_id, amount=request.amount, **{"from": account.account_id})

    def close_account(self, request, account, ctx):
        self.decided += 1
        if request.heir_id:
            yield MoneyWithdrawn(account_id=request.account_id, amount=account.balance)
            yield MoneyDeposited(account_id=request.heir_id, amount=account.balance)
        if account.open:
            yield AccountClosed(account_id=request.account_id)

    def transfer(self, request, pair, ctx):
        self.decided += 1
        source, target = getattr(request, "from"), request.to
        if pair.balances[source] < request.amount:
            raise Rejected("TOO_LITTLE")
        yield MoneyWithdrawn(account_id=source, amount=request.amount, **{"from": source})
        yield MoneyDeposited(account_id=target, amount=request.amount, **{"from": target})

    def reserve_name(self, request, names, ctx):
        self.decided += 1
        if len(names.names) == 10:
            raise Rejected("NO_NAME_LEFT")
        yield NameReserved(name=request.name)

    def fail(self, request, account, ctx):
        self.decided += 1
        yield AccountOpened(account_id=request.account_id)
        if request.how == "rejected":
            raise Rejected("AFTER_A_YIELD")
        if request.how == "rule":
            yield MoneyDeposited(account_id=request.account_id, amount=1_000_001)
            return
        raise ValueError("secret of the handler")


class Gate(BankGatekeeper):
    """Lets nobody open an account who is `listed`; breaks, or waits until it is `let_go`, when it is told to."""

    def __init__(self) -> None:
        self.listed = set()
        self.asked = []
        self.broken = False
        self.let_go = asyncio.Event()
        self.let_go.set()

    async def open_account(self, request, ctx) -> None:
        self.asked.append((request.account_id, ctx.command_id, ctx.actor))
        await self.let_go.wait()
        if self.broken:
            raise ValueError("secret of the gatekeeper")
        if request.account_id in self.listed:
            raise Rejected("LISTED", f"{request.account_id} is on the list")


class Queries(BankQueries):
    """Answers."""

    async def get_balance(self, request, account):
        return GetBalanceResponse(balance=account.balance)

    async def get_total(self, request, session):
        return GetTotalResponse(total=session.total)

    async def watch_total(self, request, session):
        return WatchTotalResponse(total=session.total)

    async def get_motto(self, request, ctx):
        return GetMottoResponse(motto="money is time")


class Total(TotalProjection):
    """Is written by the tests themselves."""

    metadata = MetaData()

    async def on_money_deposited(self, session, event, meta) -> None:
        """Hear it."""


def make_context():
    """Give the bank as a context, with its gatekeeper as `gate`."""
    gate = Gate()
    context = BankContext(
        commands=Commands(),
        folds=[Account(), Pair(), Names()],
        gatekeepers=[gate],
        projections=[Total()],
        queries=Queries(),
    )
    context.gate = gate
    return context
