"""A command is done once, however often it is sent: over real sockets, on every log, whatever is lost on the way."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc.aio
import pytest

from ceqs.contract import decode_token
from ceqs.log import Log, open_log
from ceqs.server import Served, Server, ServerSettings
from ceqs.testing import eventually
from ceqs.v1.answers_pb2 import Receipt
from ceqs.v1.events_pb2 import RecordedEvent

COMMANDS = "/bank.v1.BankCommandsService/"


class Total:
    """No test here asks for the total."""


@dataclass
class Branch:
    """A server of the bank, with a cache of its own, and a connection to it."""

    messages: Any
    context: Any
    log: Log
    server: Server
    channel: grpc.aio.Channel

    async def send(self, rpc: str, command_id: str, *, actor: str = "", timeout: float = 20, **fields: Any) -> bytes:
        """Send a command once and give the bytes of the answer."""
        request = getattr(self.messages, f"{rpc}Request")(**fields)
        call: Any = self.channel.unary_unary(COMMANDS + rpc)
        metadata = (("ceqs-command-id", command_id), ("ceqs-actor", actor))
        answer: bytes = await call(request.SerializeToString(), metadata=metadata, timeout=timeout)
        return answer

    async def fails(self, rpc: str, command_id: str, **fields: Any) -> tuple[grpc.StatusCode, str]:
        """Send a command that is refused."""
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await self.send(rpc, command_id, **fields)
        return caught.value.code(), caught.value.details() or ""

    async def events(self) -> list[RecordedEvent]:
        """Give everything that is recorded."""
        return [RecordedEvent.FromString(stored.envelope) for stored in (await self.log.read(limit=100_000)).events]


Opening = Callable[..., Awaitable[Branch]]


@pytest.fixture
async def opening(bank: Any, url: str, name: str) -> AsyncIterator[Opening]:
    """Open branches: of one log in memory, or each with its own access to the database."""
    async with AsyncExitStack() as stack:
        memory: list[Log] = []

        async def opened(at: str = "") -> Branch:
            log = memory[0] if memory else await stack.enter_async_context(_log(at or url, name))
            memory.extend([log] if url == "memory:" else [])
            return await stack.enter_async_context(_branch(bank, log))

        yield opened


@asynccontextmanager
async def _log(url: str, name: str) -> AsyncIterator[Log]:
    log = await open_log(url, name)
    yield log
    await log.close()


@asynccontextmanager
async def _branch(bank: Any, log: Log) -> AsyncIterator[Branch]:
    context, total = bank.make_context(), Total()
    server = Server([Served(context, log, {"Total": total})], ServerSettings(grace=5))  # type: ignore[dict-item]
    await server.start()
    async with grpc.aio.insecure_channel(server.address) as channel:
        yield Branch(bank, context, log, server, channel)
    await server.stop()


@pytest.fixture
async def branch(opening: Opening) -> Branch:
    return await opening()


@pytest.fixture
async def rival(opening: Opening, branch: Branch, url: str) -> Branch:
    """Another server on the same log, with a cache of its own."""
    if url.startswith("sqlite"):
        pytest.skip("one process writes a log in SQLite")
    return await opening()


def receipt_of(bank: Any, rpc: str, answer: bytes) -> Receipt:
    response = getattr(bank, f"{rpc}Response").FromString(answer)
    receipt: Receipt = response.receipt
    return receipt


async def test_the_same_command_gets_the_same_bytes_however_the_state_is_now(branch: Branch) -> None:
    sent: dict[str, tuple[str, dict[str, Any]]] = {
        "open": ("OpenAccount", {"account_id": "a"}),
        "in": ("Deposit", {"account_id": "a", "amount": 7}),
        "out": ("Withdraw", {"account_id": "a", "amount": 7}),
        "close": ("CloseAccount", {"account_id": "a"}),
        "nothing": ("CloseAccount", {"account_id": "a"}),
        "name": ("ReserveName", {"name": "n"}),
    }
    first = {id_: await branch.send(rpc, id_, **fields) for id_, (rpc, fields) in sent.items()}
    recorded = await branch.events()
    assert len(recorded) == 5
    for id_, (rpc, fields) in reversed(sent.items()):
        assert await branch.send(rpc, id_, **fields) == first[id_]
    assert await branch.events() == recorded
    position = receipt_of(branch.messages, "Withdraw", first["out"]).position
    assert position == 3
    assert decode_token(receipt_of(branch.messages, "Withdraw", first["out"]).token) == {branch.log.log_id: position}


async def test_an_id_stands_for_one_rpc_one_request_and_one_actor(branch: Branch) -> None:
    first = await branch.send("Deposit", "id", account_id="a", amount=1)
    others: list[tuple[str, dict[str, Any]]] = [
        ("Deposit", {"account_id": "a", "amount": 2}),
        ("Deposit", {"account_id": "b", "amount": 1}),
        ("Deposit", {"account_id": "a", "amount": 1, "actor": "somebody else"}),
        ("Withdraw", {"account_id": "a", "amount": 1}),
        ("Withdraw", {"account_id": "a", "amount": 1_000}),
        ("CloseAccount", {"account_id": "a"}),
    ]
    for rpc, fields in others:
        code, _ = await branch.fails(rpc, "id", **fields)
        assert code is grpc.StatusCode.ALREADY_EXISTS
    assert await branch.send("Deposit", "id", account_id="a", amount=1) == first
    assert len(await branch.events()) == 1


async def test_twins_at_once_are_one_command(branch: Branch) -> None:
    for i in range(10):
        twins = await asyncio.gather(*(branch.send("Deposit", f"id-{i}", account_id="a", amount=1) for _ in range(20)))
        assert len(set(twins)) == 1
    assert len(await branch.events()) == 10


async def test_twins_at_once_that_differ_are_one_command_and_refusals(branch: Branch) -> None:
    twins = [branch.send("Deposit", "id", account_id=f"a{i % 2}", amount=1) for i in range(20)]
    outcomes = await asyncio.gather(*twins, return_exceptions=True)
    answers = {outcome for outcome in outcomes if isinstance(outcome, bytes)}
    codes = [outcome.code() for outcome in outcomes if isinstance(outcome, grpc.aio.AioRpcError)]
    assert len(answers) == 1
    assert codes == [grpc.StatusCode.ALREADY_EXISTS] * 10
    assert len(await branch.events()) == 1


async def test_a_repeated_command_counts_once_for_those_that_are_decided_with_it(branch: Branch) -> None:
    first = await branch.send("Deposit", "in", account_id="a", amount=7)
    for i in range(10):
        again, refused = await asyncio.gather(
            branch.send("Deposit", "in", account_id="a", amount=7),
            branch.fails("Withdraw", f"out-{i}", account_id="a", amount=14),
        )
        assert again == first
        assert refused == (grpc.StatusCode.FAILED_PRECONDITION, "there is only 7")
    assert len(await branch.events()) == 1


async def test_twins_at_two_servers_at_once_are_one_command(branch: Branch, rival: Branch) -> None:
    for i in range(30):
        both = (branch.send, rival.send) if i % 2 else (rival.send, branch.send)
        one, other = await asyncio.gather(*(send("OpenAccount", f"id-{i}", account_id=f"a{i}") for send in both))
        assert one == other
    assert len(await branch.events()) == 30


async def test_a_command_that_one_server_did_is_known_to_the_other(branch: Branch, rival: Branch) -> None:
    first = await branch.send("OpenAccount", "id", account_id="a")
    rival.context.gate.listed.add("a")
    assert await rival.send("OpenAccount", "id", account_id="a") == first
    rival.context.gate.broken = True
    assert await rival.send("OpenAccount", "id", account_id="a") == first
    assert (await rival.fails("OpenAccount", "id", account_id="b"))[0] is grpc.StatusCode.ALREADY_EXISTS


async def test_a_command_is_known_after_a_restart(bank: Any, url: str, name: str) -> None:
    if url == "memory:":
        pytest.skip("nothing outlasts the process")
    async with _log(url, name) as log, _branch(bank, log) as branch:
        first = await branch.send("OpenAccount", "id", account_id="a")
        nothing = await branch.send("CloseAccount", "nothing", account_id="b")
    async with _log(url, name) as log, _branch(bank, log) as branch:
        branch.context.gate.listed.add("a")
        assert await branch.send("OpenAccount", "id", account_id="a") == first
        assert await branch.send("CloseAccount", "nothing", account_id="b") == nothing
        assert (await branch.fails("OpenAccount", "id", account_id="b"))[0] is grpc.StatusCode.ALREADY_EXISTS
        assert len(await branch.events()) == 1


class Wire:
    """Stands between a client and its server; when told to, it lets nothing back, and cuts the connection at last."""

    def __init__(self, address: str) -> None:
        self.host, _, port = address.rpartition(":")
        self.port = int(port)
        self.deaf = False
        self.address = ""
        self._writers: list[asyncio.StreamWriter] = []
        self._tasks: list[asyncio.Task[None]] = []

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Wire]:
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        host, port = server.sockets[0].getsockname()[:2]
        self.address = f"{host}:{port}"
        async with server:
            yield self
            server.close()
            while self._tasks:
                self.cut()
                await self._tasks.pop()

    def cut(self) -> None:
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._tasks.append(asyncio.create_task(self._serve(reader, writer)))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        back, forth = await asyncio.open_connection(self.host, self.port)
        self._writers.append(forth)
        await asyncio.gather(self._copy(reader, forth), self._back(back, writer))

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                writer.write(data)
        writer.transport.abort()

    async def _back(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                if not self.deaf:
                    writer.write(data)
        writer.transport.abort()


LOST = [
    ("OpenAccount", {"account_id": "a"}),
    ("Deposit", {"account_id": "a", "amount": 7}),
    ("Withdraw", {"account_id": "full", "amount": 7}),
]


@pytest.mark.parametrize(("rpc", "fields"), LOST, ids=[rpc for rpc, _ in LOST])
async def test_a_retry_after_a_lost_reply_gets_the_reply(branch: Branch, rpc: str, fields: dict[str, Any]) -> None:
    await branch.send("Deposit", "before", account_id="full", amount=7)
    direct = branch.channel
    async with Wire(branch.server.address).running() as wire, grpc.aio.insecure_channel(wire.address) as branch.channel:
        await branch.send("Deposit", "connected", account_id="b", amount=1)
        wire.deaf = True
        lost = asyncio.create_task(branch.fails(rpc, "lost", **fields))

        async def done() -> bool:
            return await branch.log.find("lost", b"", derived=True) is not None

        await eventually(done)
        assert not lost.done()
        wire.cut()
        code, _ = await lost
        assert code is grpc.StatusCode.UNAVAILABLE
    branch.channel = direct
    # Now everything speaks against it: the state, the gatekeeper, and the other commands since.
    branch.context.gate.listed.add("a")
    await branch.send("Deposit", "since", account_id=fields["account_id"], amount=1)
    recorded = await branch.events()
    again = await branch.send(rpc, "lost", **fields)
    assert receipt_of(branch.messages, rpc, again).event_ids == [e.id for e in recorded if e.command_id == "lost"]
    assert await branch.send(rpc, "lost", **fields) == again
    assert await branch.events() == recorded


async def test_a_call_that_is_cancelled_is_done_or_not_and_its_retry_tells(branch: Branch) -> None:
    for i in range(40):
        sending = asyncio.create_task(branch.send("OpenAccount", f"id-{i}", account_id=f"a{i}"))
        await asyncio.sleep(0.0005 * (i % 10))
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
        first = await branch.send("OpenAccount", f"id-{i}", account_id=f"a{i}")
        assert await branch.send("OpenAccount", f"id-{i}", account_id=f"a{i}") == first
    events = await branch.events()
    assert [event.command_id for event in events] == [f"id-{i}" for i in range(40)]


@pytest.fixture
async def remote(bank: Any, through: str, name: str) -> AsyncIterator[Branch]:
    """A server whose connection to PostgreSQL can be cut."""
    async with _log(through, name) as log, _branch(bank, log) as branch:
        yield branch


@pytest.mark.parametrize("cut", ["cut_before", "cut_after"])
@pytest.mark.parametrize("late", [0.0, 0.3])
async def test_a_connection_cut_during_commit_is_resolved_before_the_client_is_answered(
    remote: Branch, proxy: Any, cut: str, late: float
) -> None:
    await remote.send("Deposit", "before", account_id="a", amount=10)
    setattr(proxy, cut, 1)
    proxy.delay = late
    answer = await remote.send("Withdraw", "cut", account_id="a", amount=10)
    assert proxy.cuts == 1
    receipt = receipt_of(remote.messages, "Withdraw", answer)
    deposited, withdrawn = await remote.events()
    assert (withdrawn.command_id, withdrawn.position) == ("cut", receipt.position)
    assert receipt.event_ids == [withdrawn.id]
    assert await remote.send("Withdraw", "cut", account_id="a", amount=10) == answer
    code, details = await remote.fails("Withdraw", "next", account_id="a", amount=1)
    assert (code, details) == (grpc.StatusCode.FAILED_PRECONDITION, "there is only 0"), "the cache tells the truth"
    assert await remote.events() == [deposited, withdrawn]


async def test_many_commands_in_the_batch_that_is_cut_are_each_answered_rightly(remote: Branch, proxy: Any) -> None:
    await remote.send("Deposit", "before", account_id="a", amount=20)
    proxy.cut_before, proxy.cut_after = 2, 2
    sent = [remote.send("Withdraw", f"id-{i}", account_id="a", amount=1) for i in range(30)]
    outcomes = await asyncio.gather(*sent, return_exceptions=True)
    assert proxy.cuts > 0
    answers = {f"id-{i}": outcome for i, outcome in enumerate(outcomes) if isinstance(outcome, bytes)}
    refused = [outcome for outcome in outcomes if isinstance(outcome, grpc.aio.AioRpcError)]
    assert len(answers) == 20
    assert {error.code() for error in refused} == {grpc.StatusCode.FAILED_PRECONDITION}
    events = (await remote.events())[1:]
    by_id = {event.command_id: event.id for event in events}
    assert len(events) == 20
    assert by_id == {i: receipt_of(remote.messages, "Withdraw", a).event_ids[0] for i, a in answers.items()}


async def test_while_an_outcome_is_unknown_nobody_is_answered(remote: Branch, proxy: Any) -> None:
    await remote.send("Deposit", "before", account_id="a", amount=10)
    proxy.cut_after, proxy.refuse = 1, True
    sending = asyncio.create_task(remote.send("Withdraw", "cut", account_id="a", amount=10, timeout=30))
    await eventually(lambda: proxy.cuts == 1)
    done, _ = await asyncio.wait([sending], timeout=1.5)
    assert not done
    proxy.refuse = False
    receipt = receipt_of(remote.messages, "Withdraw", await sending)
    events = await remote.events()
    assert [event.command_id for event in events] == ["before", "cut"]
    assert receipt.event_ids == [events[1].id]
