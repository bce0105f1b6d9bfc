"""What handlers make of an event can be said in a test: sent, published, scheduled, cancelled, or nothing."""

from __future__ import annotations

import datetime as dt
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from ceqs.client import ContextClient
from ceqs.errors import Misconfigured
from ceqs.model import Asker, Context, PrivateHearing, Publisher, Reaction, Subscriber
from ceqs.testing import NOW, given

DAY = dt.timedelta(days=1)


@pytest.fixture
def remind(library: Any) -> type[Subscriber]:
    class Remind(PrivateHearing, Subscriber):
        ceqs_contract = library.contract

        def on_book_acquired(self, event: Any, ctx: Reaction) -> Iterator[Any]:
            request = library.CloseLibraryRequest()
            yield request
            ctx.schedule(library.LendBookRequest(book_id=event.book_id), key=event.book_id, after=DAY)
            ctx.schedule(library.CloseLibraryRequest(), key="closing", at=dt.datetime(2010, 12, 2, tzinfo=dt.UTC))

        def on_book_lent(self, event: Any, ctx: Reaction) -> Iterator[Any]:
            ctx.cancel(event.book_id)
            yield from ()

        async def on_library_closed(self, event: Any, ctx: Reaction) -> AsyncIterator[Any]:
            import asyncio

            await asyncio.sleep(0)
            yield library.CloseLibraryRequest()

    return Remind


@pytest.fixture
def context(library: Any, remind: Any) -> Context:
    class Offer(Publisher):
        ceqs_contract = library.contract

        def on_book_acquired(self, event: Any, ctx: Reaction) -> Iterator[Any]:
            yield library.BookOffered(book_id=event.book_id)

    class LibraryContext(Context):
        ceqs_contract = library.contract

        def __init__(self) -> None:  # without commands: nothing here decides
            self.publishers = {"offer": Offer()}
            self.subscribers = {"remind": remind()}

    return LibraryContext()


def test_commands_public_events_and_timers_are_told_apart(context: Context, library: Any, remind: Any) -> None:
    heard = given(context).hears(library.BookAcquired(book_id="b"))
    heard.sends(library.CloseLibraryRequest()).publishes(library.BookOffered(book_id="b"))
    lend = library.LendBookRequest(book_id="b")
    heard.schedules(lend, key="b", after=DAY).schedules(lend, key="b", at=NOW.ToDatetime(dt.UTC) + DAY).cancels()
    given(context).hears(library.BookAcquired(book_id="b"), by=remind).publishes()
    given(context).hears(library.BookLent(book_id="b")).cancels("b").sends()


def test_what_differs_is_shown(context: Context, library: Any) -> None:
    heard = given(context).hears(library.BookAcquired(book_id="b"))
    lend = library.LendBookRequest(book_id="b")
    with pytest.raises(AssertionError, match="other commands"):
        heard.sends()
    with pytest.raises(AssertionError, match="other public events"):
        heard.publishes()
    with pytest.raises(AssertionError, match=r"-b at 2010-12-03T08:26:00\+00:00\n\+b at 2010-12-02T08:26:00\+00:00"):
        heard.schedules(lend, key="b", after=2 * DAY)
    with pytest.raises(AssertionError, match="-c at"):
        heard.schedules(lend, key="c", after=DAY)
    with pytest.raises(AssertionError, match="LendBookRequest"):
        heard.does_nothing()
    with pytest.raises(AssertionError, match="-b"):
        heard.cancels("b")


def test_an_event_that_nobody_hears_is_a_mistake_of_the_test(context: Context, library: Any, remind: Any) -> None:
    with pytest.raises(Misconfigured, match=r"the context 'library' has no .* that hears library\.v1\.BookOffered"):
        given(context).hears(library.BookOffered())


def test_who_waits_for_the_world_is_told_where_to_test_it(context: Context, library: Any) -> None:
    with pytest.raises(AssertionError, match="waits for something outside"):
        given(context).hears(library.LibraryClosed())


def test_who_asks_is_answered_by_the_test(library: Any) -> None:
    class OtherClient(ContextClient):
        ceqs_context = "other"

        async def list_shelf(self, request: Any) -> Any:
            return await self._query("/library.v1.LendingQueriesService/ListShelf", request, library.ListShelfResponse)

    class Asking(Asker):
        async def count_loans(self, request: Any) -> Any:
            path = "/library.v1.LendingQueriesService/CountLoans"
            return await self._ask(path, request, library.CountLoansResponse)

    class Offer(Publisher):
        ceqs_contract = library.contract

        async def on_book_acquired(self, event: Any, ctx: Reaction[Any]) -> AsyncIterator[Any]:
            await ctx.service(OtherClient).list_shelf(library.ListShelfRequest())
            asked = await ctx.ask.count_loans(library.CountLoansRequest(book_id=event.book_id))
            if not asked.message.count:
                yield library.BookOffered(book_id=event.book_id)

    class LibraryContext(Context):
        ceqs_contract = library.contract
        ceqs_asker = Asking

        def __init__(self) -> None:
            self.publishers, self.subscribers = {"offer": Offer()}, {}

    acquired = library.BookAcquired(book_id="1")
    shelf = (library.ListShelfRequest(), library.ListShelfResponse())
    for count, offered in ((0, [library.BookOffered(book_id="1")]), (1, [])):
        loans = (library.CountLoansRequest(book_id="1"), library.CountLoansResponse(count=count))
        given(LibraryContext()).hears(acquired, answers=[shelf, loans]).publishes(*offered)
    with pytest.raises(
        AssertionError, match=r'asks CountLoans with CountLoansRequest\(book_id: "1"\), and the test has'
    ):
        given(LibraryContext()).hears(acquired, answers=[shelf])


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"key": "k"}, "one of `after` and `at`"),
        ({"key": "k", "after": DAY, "at": NOW}, "one of `after` and `at`"),
        ({"key": "k", "at": dt.datetime(2010, 1, 1)}, "no time zone"),
        ({"key": "", "after": DAY}, "1 to 200 characters"),
        ({"key": "k" * 201, "after": DAY}, "1 to 200 characters"),
    ],
)
def test_a_timer_without_a_clear_time_or_key_is_refused(library: Any, options: Any, problem: str) -> None:
    ctx = Reaction(event_id="e", position=1, recorded_at=NOW)
    with pytest.raises(Misconfigured, match=problem):
        ctx.schedule(library.CloseLibraryRequest(), **options)
