"""Deciding: what a handler gets, and what becomes of what it yields."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from ceqs.errors import Misconfigured, Rejected
from ceqs.model import Decided, Decision, Folder, decide

CTX = Decision(time_ns=7_000_000_005, new_id=lambda: "id-1", command_id="c1", actor="ann")


@pytest.fixture
def run(library: Any) -> Any:
    """Decide AcquireBook with a method, on the state Book."""
    rpc = library.contract.command_of(library.AcquireBookRequest())

    def decided(method: Any, state: Any = None) -> Decided:
        request = library.AcquireBookRequest(book_id="b1", title="Emma")
        return decide(library.contract, rpc, method, request, state or library.Book(book_id="b1"), CTX)

    return decided


def test_a_handler_gets_request_state_and_context(run: Any, library: Any) -> None:
    def method(request: Any, book: Any, ctx: Decision) -> Iterator[Any]:
        assert (request.title, book.book_id, ctx) == ("Emma", "b1", CTX)
        yield library.BookAcquired(book_id="b1", copy_id=ctx.new_id())

    assert run(method) == Decided((library.BookAcquired(book_id="b1", copy_id="id-1"),))


def test_every_handler_gets_a_time_of_its_own() -> None:
    CTX.now.seconds = 8
    assert CTX.now == Timestamp(seconds=7, nanos=5)


def test_a_handler_gets_a_copy_of_the_state(run: Any, library: Any) -> None:
    def method(request: Any, book: Any, ctx: Decision) -> Iterator[Any]:
        book.title = "changed"
        yield library.BookAcquired(book_id="b1", title=book.title)

    state = library.Book(book_id="b1", title="Emma")
    assert run(method, state).events[0].title == "changed"
    assert state.title == "Emma"


def test_yields_do_not_alter_the_state(run: Any, library: Any) -> None:
    def method(request: Any, book: Any, ctx: Decision) -> Iterator[Any]:
        before = book.SerializeToString()
        yield library.BookAcquired(book_id="b1", title="Emma")
        yield library.BookLent(book_id="b1")
        assert book.SerializeToString() == before

    assert len(run(method).events) == 2


def test_a_rejection_after_a_yield_decides_nothing(run: Any, library: Any) -> None:
    consumed = []

    def method(request: Any, book: Any, ctx: Decision) -> Iterator[Any]:
        yield library.BookAcquired(book_id="b1")
        consumed.append("first")
        raise Rejected("TOO_LATE")

    with pytest.raises(Rejected, match="TOO_LATE"):
        run(method)
    assert consumed == ["first"], "the iterable is consumed inside the decision"


def test_no_events_is_a_success(run: Any) -> None:
    def generator(request: Any, book: Any, ctx: Decision) -> Iterator[Any]:
        return
        yield

    assert run(generator) == Decided(())
    assert run(lambda request, book, ctx: []) == Decided(())


@pytest.mark.parametrize("collect", [list, tuple, iter])
def test_any_iterable_of_events_will_do(run: Any, library: Any, collect: Any) -> None:
    event = library.BookAcquired(book_id="b1")
    assert run(lambda request, book, ctx: collect([event])) == Decided((event,))


def test_a_message_that_is_changed_after_its_yield_stays_as_it_was(run: Any, library: Any) -> None:
    def method(request: Any, book: Any, ctx: Decision) -> Iterator[Any]:
        event = library.BookAcquired(book_id="b1")
        for title in ("one", "two"):
            event.title = title
            yield event

    assert [event.title for event in run(method).events] == ["one", "two"]


def test_a_handler_may_answer(run: Any, library: Any) -> None:
    def method(request: Any, book: Any, ctx: Decision) -> Any:
        yield library.BookAcquired(book_id="b1")
        return library.AcquireBookResponse(copy_id="k1")

    assert run(method).response == library.AcquireBookResponse(copy_id="k1")


def test_an_answer_of_another_type_is_refused(run: Any, library: Any) -> None:
    def method(request: Any, book: Any, ctx: Decision) -> Any:
        yield library.BookAcquired(book_id="b1")
        return library.LendBookResponse()

    with pytest.raises(Misconfigured, match="acquire_book returned LendBookResponse, not AcquireBookResponse"):
        run(method)


def test_an_event_of_another_context_is_refused(run: Any) -> None:
    with pytest.raises(Misconfigured, match=r"google\.protobuf\.Timestamp is not an event of the context 'library'"):
        run(lambda request, book, ctx: [Timestamp()])


def test_a_public_event_is_a_publishers_to_derive(run: Any, library: Any) -> None:
    with pytest.raises(Misconfigured, match="acquire_book yielded the public event BookOffered"):
        run(lambda request, book, ctx: [library.BookOffered()])


@pytest.mark.parametrize("wrong", ["BookAcquired", 17, None])
def test_what_is_no_message_is_refused(run: Any, wrong: object) -> None:
    with pytest.raises(Misconfigured, match="which is no event"):
        run(lambda request, book, ctx: [wrong])


@pytest.mark.parametrize("wrong", [None, 17, object()])
def test_what_is_no_iterable_is_refused(run: Any, wrong: object) -> None:
    with pytest.raises(Misconfigured, match=r"acquire_book returned .*; it must yield events"):
        run(lambda request, book, ctx: wrong)


def test_an_event_that_is_returned_instead_of_yielded_is_refused(run: Any, library: Any) -> None:
    with pytest.raises(Misconfigured, match="returned BookAcquired; it must yield events"):
        run(lambda request, book, ctx: library.BookAcquired())


def test_other_errors_of_a_handler_are_raised(run: Any) -> None:
    def method(request: Any, book: Any, ctx: Decision) -> Iterator[Any]:
        yield from ()
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run(method)


def test_a_state_starts_with_its_tags(library: Any) -> None:
    folder = Folder(library.contract.states["Loans"], {})
    assert folder.initial({"book": "b1", "shelf": "s"}) == library.Loans(book_id="b1")
    assert folder.initial({}) == library.Loans()


def test_folding_applies_the_events_that_are_listed(library: Any) -> None:
    def on_book_acquired(book: Any, event: Any) -> None:
        book.title = event.title

    folder = Folder(library.contract.states["Book"], {"library.v1.BookAcquired": on_book_acquired})
    book = folder.initial({"book": "b1"})
    folder.apply(book, library.BookAcquired(title="Emma"))
    folder.apply(book, library.LibraryClosed())
    assert book == library.Book(book_id="b1", title="Emma")
