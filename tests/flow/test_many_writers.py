"""Several server processes write one log on PostgreSQL: what they promise together is what one promises alone."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
from collections import defaultdict
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import asyncpg
import pytest

from ceqs.errors import CeqsError, Rejected
from ceqs.log import open_reader
from ceqs.testing import eventually
from ceqs.v1.answers_pb2 import Receipt
from ceqs.v1.events_pb2 import RecordedEvent

ACCOUNTS = [f"a{i}" for i in range(6)]
KILLED = 5


@dataclass
class Watch:
    """What live readers see: every position once, in order, and none before the one before it."""

    through: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    looks: int = 0

    def saw(self, reader: str, position: int) -> None:
        assert position == self.through[reader] + 1, f"{reader} saw {position} after {self.through[reader]}"
        self.through[reader] = position


@contextlib.asynccontextmanager
async def watched(url: str, client: Any) -> AsyncIterator[Watch]:
    """Read all the time: the table, the log's reader, and the server's stream."""
    watch = Watch()
    connection = await asyncpg.connect(url, server_settings={"search_path": "ceqs_bank"})
    reader = await open_reader(url, "bank")

    async def look_at_the_table() -> None:
        while True:
            missing = await connection.fetchval("SELECT coalesce(max(position), 0) - count(*) FROM events")
            assert missing == 0, "a position was missing when a later one was there"
            watch.looks += 1
            await asyncio.sleep(0.002)

    async def read() -> None:
        while True:
            part = await reader.read(after=watch.through["reader"])
            for event in part.events:
                watch.saw("reader", event.position)
            await asyncio.sleep(0.002)

    async def subscribe() -> None:
        async for event in client.events(scope="private"):
            watch.saw("subscriber", event.position)

    reading = [asyncio.create_task(work()) for work in (look_at_the_table, read, subscribe)]
    try:
        yield watch
        head = (await reader.head()).position
        caught_up = eventually(lambda: min(watch.through["reader"], watch.through["subscriber"]) == head)
        for done in asyncio.as_completed([caught_up, *reading]):
            await done  # A reader ends by failing only.
            break
        assert watch.looks > 20
    finally:
        for task in reading:
            task.cancel()
        await asyncio.gather(*reading, return_exceptions=True)
        await reader.close()
        await connection.close()


class Teller:
    """Moves money between accounts, and keeps what it was answered."""

    def __init__(self, bank: Any, client: Any, name: str) -> None:
        self.bank, self.client, self.name = bank, client, name
        self.random = random.Random(name)
        self.receipts: dict[str, bytes] = {}
        self.rejected = 0

    async def transfer(self) -> None:
        """Move some money, or hear that there is too little."""
        source, target = self.random.sample(ACCOUNTS, 2)
        command_id = f"{self.name}-{len(self.receipts) + self.rejected}"
        request = self.bank.TransferRequest(to=target, amount=self.random.randint(1, 40), **{"from": source})
        try:
            response = await self.client.transfer(request, command_id=command_id, timeout=30)
        except Rejected:
            self.rejected += 1
        else:
            self.receipts[command_id] = response.receipt.SerializeToString()

    async def work(self, stop: asyncio.Event) -> None:
        """Transfer until told to stop."""
        while not stop.is_set():
            await self.transfer()


async def open_accounts(bank: Any, client: Any) -> None:
    for account in ACCOUNTS:
        await client.deposit(bank.DepositRequest(account_id=account, amount=100))


async def is_whole(servers: Any, tellers: list[Teller]) -> int:
    """Check that each command's events are there all or none, as its receipt says, and no money is lost; count them."""
    events: list[RecordedEvent] = await servers.recorded()
    by_command = defaultdict[str, list[RecordedEvent]](list)
    for event in events:
        by_command[event.command_id].append(event)
    connection = await asyncpg.connect(servers.url, server_settings={"search_path": "ceqs_bank"})
    stored = {row[0]: row[1] for row in await connection.fetch("SELECT command_id, receipt FROM commands")}
    # The index of tags is of exactly the events that there are.
    assert await connection.fetchval("SELECT count(DISTINCT position) FROM tags") == len(events)
    await connection.close()
    assert stored.keys() == by_command.keys()
    for command_id, encoded in stored.items():
        receipt = Receipt.FromString(encoded)
        assert list(receipt.event_ids) == [event.id for event in by_command[command_id]]
        last = receipt.position
        assert [e.position for e in by_command[command_id]] == list(range(last - len(receipt.event_ids) + 1, last + 1))
    balances = dict.fromkeys(ACCOUNTS, 0)
    for event in events:
        kind = getattr(servers.bank, event.type.rpartition(".")[2])
        change = kind.FromString(event.payload)
        balances[change.account_id] += change.amount if kind is servers.bank.MoneyDeposited else -change.amount
        assert min(balances.values()) >= 0, f"overdrawn by {event.command_id}"
    assert sum(balances.values()) == 100 * len(ACCOUNTS)
    for teller in tellers:
        for command_id, encoded in teller.receipts.items():
            assert stored[command_id] == encoded
            assert len(by_command[command_id]) == 2
    return len(events)


async def test_positions_have_no_gap_and_readers_see_them_in_order_while_processes_write(servers: Any) -> None:
    async with servers.serving(2) as serving:
        clients = await serving.clients_of_each(12)
        tellers = [Teller(servers.bank, client, f"t{i}") for i, client in enumerate(clients)]
        await open_accounts(servers.bank, tellers[0].client)
        async with watched(servers.url, await serving.client()):
            stop = asyncio.Event()
            working = asyncio.gather(*(teller.work(stop) for teller in tellers))
            await eventually(lambda: working.done() or sum(len(t.receipts) for t in tellers) > 400, 60)
            stop.set()
            await working
        events = await is_whole(servers, tellers)
        accepted, rejected = sum(len(t.receipts) for t in tellers), sum(t.rejected for t in tellers)
        assert events == len(ACCOUNTS) + 2 * accepted
        assert rejected > 0


@pytest.mark.parametrize("seed", [7])
async def test_a_process_killed_at_any_moment_leaves_no_half_command_and_no_lock(servers: Any, seed: int) -> None:
    moments = random.Random(seed)
    async with servers.serving(3) as serving:
        clients = await serving.clients_of_each(12)
        tellers = [Teller(servers.bank, client, f"t{seed}.{i}") for i, client in enumerate(clients)]
        await open_accounts(servers.bank, tellers[0].client)
        async with watched(servers.url, await serving.client()):
            stop = asyncio.Event()
            working = asyncio.gather(*(teller.work(stop) for teller in tellers))
            for killed in range(KILLED):
                await serving.serves(2 + killed)  # Another one is there to go on.
                await asyncio.sleep(moments.uniform(0, 0.5))
                os.kill(moments.choice(sorted(serving.connected())), signal.SIGKILL)
                await all_go_on(tellers, working)
            stop.set()
            await working
            await serving.serves(3 + KILLED)
        await is_whole(servers, tellers)


async def all_go_on(tellers: list[Teller], working: asyncio.Future[Any]) -> None:
    """Wait until work goes on, which a lock that is stuck would prevent, and then for every teller."""
    before = [len(teller.receipts) + teller.rejected for teller in tellers]

    def more() -> list[int]:
        return [len(t.receipts) + t.rejected - b for t, b in zip(tellers, before, strict=True)]

    await eventually(lambda: working.done() or sum(more()) > 20)
    await eventually(lambda: working.done() or min(more()) > 0)


async def test_a_process_killed_in_the_middle_of_its_transaction_leaves_nothing_of_it(servers: Any) -> None:
    async with servers.serving(2) as serving:
        clients = await serving.clients_of_each(8)
        tellers = [Teller(servers.bank, client, f"t{i}") for i, client in enumerate(clients)]
        await open_accounts(servers.bank, tellers[0].client)
        blocker = await asyncpg.connect(servers.url, server_settings={"search_path": "ceqs_bank"})

        async def writer() -> int:
            """Give the process that has the log's lock and waits for the table."""
            port = await blocker.fetchval(
                "SELECT client_port FROM pg_stat_activity JOIN pg_locks USING (pid) "
                "WHERE locktype = 'advisory' AND granted AND wait_event = 'relation'"
            )
            owners = serving.owners(port) if port else ()
            return next(iter(owners), 0)

        async with watched(servers.url, await serving.client()):
            stop = asyncio.Event()
            working = asyncio.gather(*(teller.work(stop) for teller in tellers))
            for killed, table in enumerate(["events", "tags", "commands"], 1):
                transaction = blocker.transaction()
                await transaction.start()
                await blocker.execute(f"LOCK TABLE {table} IN SHARE MODE")
                os.kill(await eventually(writer), signal.SIGKILL)
                await transaction.rollback()
                await all_go_on(tellers, working)
                await serving.serves(2 + killed)
            stop.set()
            await working
        await blocker.close()
        await is_whole(servers, tellers)


@dataclass
class Model:
    """An account as it is, whoever changed it."""

    open: bool = False
    balance: int = 0


async def test_a_process_never_answers_from_what_it_knew_before_another_one_wrote(servers: Any) -> None:
    """One command after the other, each at either process: the answer is that of one process with no cache at all."""
    bank, chance = servers.bank, random.Random(3)
    async with servers.serving() as one, servers.serving() as another:
        clients = [await one.client(), await another.client()]
        models = {account: Model() for account in ACCOUNTS[:3]}
        answers = defaultdict[str, int](int)
        for step in range(400):
            client, account = chance.choice(clients), chance.choice(list(models))
            name = chance.choice(["Deposit", "Withdraw", "Withdraw", "CloseAccount", "OpenAccount"])
            expected, arguments = expectation(models[account], name, chance.randint(1, 10))
            request = getattr(bank, f"{name}Request")(account_id=account, **arguments)
            call = {"Deposit": "deposit", "Withdraw": "withdraw", "CloseAccount": "close_account"}.get(
                name, "open_account"
            )
            try:
                response = await getattr(client, call)(request, command_id=f"s{step}")
                found = f"{name}: {len(response.receipt.event_ids)}"
            except Rejected as error:
                found = f"{name}: {error.reason}"
            assert found == expected, f"step {step}"
            answers[found] += 1
        assert min(answers.values()) > 10
        assert len(answers) == 7, answers


def expectation(model: Model, name: str, amount: int) -> tuple[str, dict[str, int]]:
    """Give the right answer to a command and its arguments, and note what it does."""
    if name == "Deposit":
        model.balance += amount
        return "Deposit: 1", {"amount": amount}
    if name == "Withdraw":
        if model.balance < amount:
            return "Withdraw: TOO_LITTLE", {"amount": amount}
        model.balance -= amount
        return "Withdraw: 1", {"amount": amount}
    was_open, model.open = model.open, name == "OpenAccount"
    if name == "OpenAccount":
        return f"OpenAccount: {'ACCOUNT_EXISTS' if was_open else 1}", {}
    return f"CloseAccount: {int(was_open)}", {}


async def test_what_there_is_once_is_given_once_by_two_processes(servers: Any) -> None:
    bank = servers.bank
    async with servers.serving(2) as serving:
        clients = await serving.clients_of_each(10)
        await clients[0].deposit(bank.DepositRequest(account_id="a", amount=100))

        async def withdraw(client: Any) -> int:
            try:
                await client.withdraw(bank.WithdrawRequest(account_id="a", amount=5), timeout=30)
            except Rejected:
                return 0
            return 1

        taken = await asyncio.gather(*(withdraw(client) for client in clients for _ in range(4)))
        assert sum(taken) == 20
        names = [
            client.reserve_name(bank.ReserveNameRequest(name=f"n{i}"), timeout=30)
            for i, client in enumerate((clients * 2)[:20])
        ]
        reserved = await asyncio.gather(*names, return_exceptions=True)
        assert sum(isinstance(one, Rejected) for one in reserved) == 10
        assert not [one for one in reserved if isinstance(one, CeqsError) and not isinstance(one, Rejected)]
        for i in range(50):
            opening = bank.OpenAccountRequest(account_id=f"b{i}")
            twins = await asyncio.gather(*(client.open_account(opening, command_id=f"id-{i}") for client in clients))
            assert all(twin == twins[0] for twin in twins)
        opened = [event.command_id for event in await servers.recorded() if event.type == "bank.v1.AccountOpened"]
        assert opened == [f"id-{i}" for i in range(50)]
