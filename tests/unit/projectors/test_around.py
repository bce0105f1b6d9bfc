"""Publishers and subscribers that look around: they ask queries, and do things in systems that are not ours."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from ceqs.client import ContextClient
from ceqs.errors import Misconfigured
from ceqs.model import Asker, Context, PrivateHearing, ProcessManager, PublicHearing, Publisher, Subscriber
from ceqs.projectors import _around as around
from ceqs.projectors import _worker as worker
from ceqs.projectors import place_of, read_parked
from ceqs.projectors._looking import look_around
from ceqs.testing import eventually

pytestmark = pytest.mark.usefixtures("fast")


class Bank:
    """A service of somebody else's on loopback: takes lines `KEY BOOK`, does each key once, answers `200` or not."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, str]] = []
        self.done: dict[str, str] = {}
        self.answers: Callable[[str], str] = lambda book: "200"
        self.port = 0

    async def __aenter__(self) -> Bank:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        key, _, book = (await reader.readline()).decode().strip().partition(" ")
        self.heard.append((key, book))
        answer = self.answers(book)
        if answer == "200":
            self.done.setdefault(key, book)
        writer.write(answer.encode() + b"\n")
        writer.close()


@pytest.fixture
async def bank() -> AsyncIterator[Bank]:
    async with Bank() as bank:
        yield bank


@pytest.fixture
def paying(bank: Bank, library: Any) -> Subscriber:
    """A subscriber that has each acquired book paid, and lends it at once when it is."""

    class PayBooks(PrivateHearing, Subscriber):
        ceqs_contract = library.contract

        async def on_book_acquired(self, event: Any, ctx: Any) -> AsyncIterator[Any]:
            reader, writer = await asyncio.open_connection("127.0.0.1", bank.port)
            writer.write(f"{ctx.event_id} {event.book_id}\n".encode())
            answer = (await reader.readline()).strip()
            writer.close()
            if answer != b"200":
                raise ValueError(f"the bank says {answer.decode()}")
            yield library.LendBookRequest(book_id=event.book_id, member_ids=["ann"])

    return PayBooks()


@pytest.fixture
async def paid(world: Any, library_context: Any, paying: Subscriber) -> Context:
    context: Context = library_context(world.shelf, subscribers=[paying])
    await world.start(context)
    return context


async def lent(world: Any) -> list[str]:
    return [world.library.BookLent.FromString(e.payload).book_id for e in await world.events("library", "BookLent")]


async def test_an_effect_is_done_under_the_id_of_the_event_and_its_commands_follow(
    world: Any, paid: Context, bank: Bank
) -> None:
    world.project(paid)
    await world.acquire("a", "b", "c")
    acquired = {event.id for event in await world.events("library", "BookAcquired")}
    await eventually(lambda: set(bank.done) == acquired)
    assert Counter(key for key, _ in bank.heard) == dict.fromkeys(acquired, 1)
    await eventually(lambda: all_lent(world, 3))
    assert {event.causation_id for event in await world.events("library", "BookLent")} == acquired


async def all_lent(world: Any, count: int) -> bool:
    return len(await lent(world)) == count


async def test_an_effect_is_done_at_least_once_and_under_one_key_however_often_it_is_begun(
    world: Any, paid: Context, bank: Bank, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where the process dies between an effect and the checkpoint: whoever comes next says the same once more."""

    async def dies(*arguments: Any) -> Any:
        await look_around(*arguments)
        done.set()
        await asyncio.Event().wait()

    done = asyncio.Event()
    await world.acquire("a")
    with monkeypatch.context() as patched:
        patched.setattr("ceqs.projectors._worker.look_around", dies)
        world.project(paid)
        await asyncio.wait_for(done.wait(), 30)
        await world.halt()
    assert await lent(world) == []
    world.project(paid)
    await eventually(lambda: all_lent(world, 1))
    assert len(bank.heard) == 2
    assert len(bank.done) == 1


async def test_an_effect_that_fails_is_parked_with_those_behind_it_and_nothing_else_is_done_twice(
    world: Any, paid: Context, bank: Bank
) -> None:
    bank.answers = lambda book: "400" if book == "bad" else "200"
    await world.acquire("a", "bad", "b", "bad", "c")
    projector = world.project(paid)
    await eventually(lambda: projector.status()[1].parked == 2)
    await eventually(lambda: all_lent(world, 3))
    place = place_of(world.models_url, "library", "pay-books")
    first, behind = await read_parked(place)
    assert "the bank says 400" in first.error
    assert behind.error == ""
    heard = Counter(book for _, book in bank.heard)
    # Once among the others, and then alone.
    assert heard == {"a": 1, "b": 1, "c": 1, "bad": 1 + worker.TRIES}
    await world.acquire("d")
    await eventually(lambda: all_lent(world, 4))


async def test_a_system_that_is_down_is_waited_for_and_nothing_is_skipped(
    world: Any, paid: Context, bank: Bank
) -> None:
    await bank.__aexit__()
    await world.acquire("a", "b")
    projector = world.project(paid)
    await eventually(lambda: projector.status()[1].state == "paused")
    assert "Connect" in projector.status()[1].reason
    assert (projector.status()[1].parked, projector.status()[1].position) == (0, 0)
    async with bank:
        await eventually(lambda: all_lent(world, 2))
        await eventually(lambda: projector.status()[1].state == "live")


async def test_who_waits_for_ever_is_told_so(
    world: Any, library: Any, library_context: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ceqs.projectors import _handlers as handlers

    monkeypatch.setattr(handlers, "LONGEST", 0.05)

    class Waits(PrivateHearing, Subscriber):
        ceqs_contract = library.contract

        async def on_book_acquired(self, event: Any, ctx: Any) -> None:
            await asyncio.Event().wait()

    context = library_context(world.shelf, subscribers=[Waits()])
    await world.start(context)
    await world.acquire("a")
    projector = world.project(context)
    await eventually(lambda: "waits waited for others for too long" in projector.status()[1].reason)
    assert projector.status()[1].parked == 0


async def test_no_transaction_is_open_while_a_handler_looks_around_and_others_do_not_wait(
    world: Any, library: Any, library_context: Any
) -> None:
    """The handler's own outbox goes on being emptied, and events of other keys are looked around for meanwhile."""
    began: list[str] = []
    gate = asyncio.Event()

    class Slow(PrivateHearing, Subscriber):
        ceqs_contract = library.contract

        async def on_book_acquired(self, event: Any, ctx: Any) -> AsyncIterator[Any]:
            began.append(event.book_id)
            if event.book_id != "first":
                await gate.wait()
            yield library.LendBookRequest(book_id=event.book_id, member_ids=["ann"])

    context = library_context(world.shelf, subscribers=[Slow()])
    await world.start(context)
    await world.acquire("first")
    await world.stop("library")
    projector = world.project(context)
    await asyncio.sleep(0)
    await world.start(context)
    await eventually(lambda: began == ["first"])
    await world.acquire("a", "b", "a")
    await eventually(lambda: sorted(began) == ["a", "b", "first"])
    await eventually(lambda: projector.status()[1].unsent == 0)
    gate.set()
    await eventually(lambda: all_lent(world, 4))
    assert began == ["first", "a", "b", "a"]


@pytest.fixture
def asking(library: Any) -> Publisher:
    """A publisher that offers a book unless it is lent, as far as its own context and another one know."""

    class LibraryClient(ContextClient):
        ceqs_context = "library"

        async def count_loans(self, request: Any) -> Any:
            return await self._query(COUNT, request, library.CountLoansResponse)

    class OfferWhatIsIn(Publisher):
        ceqs_contract = library.contract

        async def on_book_acquired(self, event: Any, ctx: Any) -> AsyncIterator[Any]:
            request = library.CountLoansRequest(book_id=event.book_id, member_id="ann")
            asked = await ctx.ask.count_loans(request)
            other = await ctx.service(LibraryClient).count_loans(request)
            assert asked.age.token
            assert asked.message == other.message
            if asked.message.count == 0:
                yield library.BookOffered(book_id=event.book_id)

    return OfferWhatIsIn()


COUNT = "/library.v1.LendingQueriesService/CountLoans"


class LibraryAsker(Asker):
    """As the generator writes it."""

    types: Any

    async def count_loans(self, request: Any) -> Any:
        return await self._ask(COUNT, request, self.types.CountLoansResponse)


async def test_a_publisher_asks_queries_and_waits_for_whoever_answers_them(
    world: Any, library: Any, library_context: Any, asking: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(around, "PATIENCE", 0.2)
    context = library_context(world.shelf, publishers=[asking])
    LibraryAsker.types = library
    type(context).ceqs_asker = LibraryAsker
    await world.start(context)
    await world.acquire("a", "b")
    nowhere = {"library": "127.0.0.1:1"}
    projector = world.project(context, query_addresses=nowhere)
    await eventually(lambda: "BookAcquired at position 1: " in projector.status()[1].reason)
    assert (projector.status()[1].position, projector.status()[1].parked) == (0, 0)
    assert await world.events("library", "BookOffered") == []
    await world.halt()
    world.project(context)
    await eventually(lambda: offered(world, 2))


async def offered(world: Any, count: int) -> bool:
    return len(await world.events("library", "BookOffered")) == count


def test_a_process_manager_waits_for_nobody(library: Any, library_context: Any, world: Any) -> None:
    class Manager(PublicHearing, ProcessManager):
        ceqs_contract = library.contract

        @classmethod
        def ceqs_hearable(cls) -> Any:
            return PublicHearing.ceqs_hearable.__func__(cls)  # type: ignore[attr-defined]

        async def on_book_offered(self, event: Any, state: Any, ctx: Any) -> AsyncIterator[Any]:
            yield event

    with pytest.raises(Misconfigured, match="on_book_offered must not be `async def`"):
        library_context(world.shelf, subscribers=[Manager()])
