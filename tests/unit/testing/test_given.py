"""Given/when/then decides as the server does, and says clearly what differs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from ceqs.errors import Misconfigured, Rejected
from ceqs.model import CommandHandler, Context, Decision, Fold, QueryHandler, TableProjection
from ceqs.testing import NOW, fixed_ids, given

FIRST_ID = "00000000-0000-7000-8000-000000000001"


@pytest.fixture
def lending(library: Any) -> Context:
    contract = library.contract

    class BookFold(Fold):
        ceqs_contract, ceqs_state = contract, "Book"

        def on_book_acquired(self, book: Any, event: Any) -> None:
            book.title = event.title

        def on_book_lent(self, book: Any, event: Any) -> None:
            book.times_lent += 1

    class LoansFold(Fold):
        ceqs_contract, ceqs_state = contract, "Loans"

        def on_book_lent(self, loans: Any, event: Any) -> None:
            loans.count += 1

    class LibraryFold(Fold):
        ceqs_contract, ceqs_state = contract, "Library"

        def on_book_acquired(self, library: Any, event: Any) -> None:
            library.books += 1

        def on_library_closed(self, library: Any, event: Any) -> None:
            library.closed = True

    class Lending(CommandHandler):
        ceqs_service = "library.v1.LendingCommandsService"

        def acquire_book(self, request: Any, book: Any, ctx: Decision) -> Any:
            if book.title:
                raise Rejected("BOOK_EXISTS", f"there is a book {book.book_id}")
            copy_id = ctx.new_id()
            yield library.BookAcquired(
                book_id=book.book_id, title=f"{request.title} {ctx.now.seconds}", copy_id=copy_id
            )
            return library.AcquireBookResponse(copy_id=copy_id)

        def lend_book(self, request: Any, loans: Any, ctx: Decision) -> Iterator[Any]:
            if loans.count >= 2:
                raise Rejected("TOO_MANY", f"{loans.book_id} {loans.member_id} {loans.count}")
            for member_id in request.member_ids:
                yield library.BookLent(book_id=loans.book_id, member_id=f"{member_id}{ctx.actor}")

        def close_library(self, request: Any, everything: Any, ctx: Decision) -> Iterator[Any]:
            if not everything.closed:
                yield library.LibraryClosed(branch_numbers=[everything.books])

    class Shelf(TableProjection):
        ceqs_contract, ceqs_projection = contract, "Shelf"

        async def on_book_acquired(self, session: Any, event: Any, meta: Any) -> None: ...

    class Queries(QueryHandler):
        ceqs_service = "library.v1.LendingQueriesService"

        async def count_loans(self, request: Any, loans: Any) -> Any: ...

        async def list_shelf(self, request: Any, session: Any) -> Any: ...

    class LibraryContext(Context):
        ceqs_contract = contract

    return LibraryContext(
        commands=Lending(),
        folds=[BookFold(), LoansFold(), LibraryFold()],
        projections=[Shelf()],
        queries=Queries(),
    )


def test_a_command_yields_events_at_a_fixed_time_with_fixed_ids(lending: Context, library: Any) -> None:
    assert NOW.ToJsonString() == "2010-12-01T08:26:00Z"
    given(lending).when(library.AcquireBookRequest(book_id="b1", title="Emma")).yields(
        library.BookAcquired(book_id="b1", title="Emma 1291191960", copy_id=FIRST_ID)
    ).answers(library.AcquireBookResponse(copy_id=FIRST_ID))


def test_time_ids_and_actor_can_be_given(lending: Context, library: Any) -> None:
    given(lending, now=Timestamp(seconds=5), ids=["one"]).when(
        library.AcquireBookRequest(book_id="b1", title="Emma")
    ).yields(library.BookAcquired(book_id="b1", title="Emma 5", copy_id="one"))
    given(lending).when(library.LendBookRequest(book_id="b1", member_ids=["m"]), actor="!").yields(
        library.BookLent(book_id="b1", member_id="m!")
    )


def test_events_of_other_entities_are_not_folded(lending: Context, library: Any) -> None:
    other, same = library.BookAcquired(book_id="b2", title="x"), library.BookAcquired(book_id="b1", title="x")
    acquire = library.AcquireBookRequest(book_id="b1")
    assert given(lending, other).when(acquire).events
    given(lending, other, same).when(acquire).rejects("BOOK_EXISTS")


def test_several_keys_select_what_carries_any_of_the_tags(lending: Context, library: Any) -> None:
    lent = [library.BookLent(book_id="b1", member_id="m2"), library.BookLent(book_id="b2", member_id="m1")]
    stranger = library.BookLent(book_id="b2", member_id="m2")
    lend = library.LendBookRequest(book_id="b1", member_ids=["m1"])
    given(lending, lent[0], stranger, stranger).when(lend).yields(library.BookLent(book_id="b1", member_id="m1"))
    outcome = given(lending, *lent).when(lend).rejects("TOO_MANY")
    assert isinstance(outcome.result, Rejected)
    assert outcome.result.message == "b1 m1 2", "the tag fields are prefilled"
    assert outcome.events == ()


def test_a_state_without_boundary_folds_every_listed_event(lending: Context, library: Any) -> None:
    books = [library.BookAcquired(book_id=book) for book in "abc"]
    given(lending, *books, library.BookLent(book_id="a")).when(library.CloseLibraryRequest()).yields(
        library.LibraryClosed(branch_numbers=[3])
    )


def test_a_command_may_change_nothing(lending: Context, library: Any) -> None:
    close = library.CloseLibraryRequest()
    given(lending, library.LibraryClosed()).when(close).changes_nothing().yields()
    with pytest.raises(AssertionError, match="LibraryClosed"):
        given(lending).when(close).changes_nothing()


def test_a_missing_tag_and_a_broken_rule_are_invalid(lending: Context, library: Any) -> None:
    given(lending).when(library.LendBookRequest(book_id="b1")).is_invalid("member_ids")
    given(lending).when(library.AcquireBookRequest(book_id="b" * 21)).is_invalid("book_id")
    unnamed = library.AcquireBookRequest(book_id="b1", notes=[library.Note(text="ok"), library.Note()])
    given(lending).when(unnamed).is_invalid("notes[1].text")
    with pytest.raises(AssertionError, match="expected it to be invalid in title, but it was invalid: book_id"):
        given(lending).when(library.AcquireBookRequest(book_id="b" * 21)).is_invalid("title")


def test_commands_can_follow_each_other(lending: Context, library: Any) -> None:
    acquire = library.AcquireBookRequest(book_id="b1", title="Emma")
    second = given(lending).when(acquire).when(acquire).rejects("BOOK_EXISTS")
    other = second.when(library.AcquireBookRequest(book_id="b2"))
    assert other.events[0].copy_id == FIRST_ID.replace("1", "2"), "ids go on"  # type: ignore[attr-defined]


def test_other_events_are_shown_as_a_diff(lending: Context, library: Any) -> None:
    outcome = given(lending).when(library.LendBookRequest(book_id="b1", member_ids=["m1"]))
    with pytest.raises(AssertionError) as failed:
        outcome.yields(library.BookLent(book_id="b1", member_id="m2"))
    assert str(failed.value).splitlines() == [
        "other events than expected:",
        "--- expected events",
        "+++ events",
        "@@ -1,4 +1,4 @@",
        " BookLent {",
        '   book_id: "b1"',
        '-  member_id: "m2"',
        '+  member_id: "m1"',
        " }",
    ]


def test_order_and_number_of_events_count(lending: Context, library: Any) -> None:
    one, two = (library.BookLent(book_id="b1", member_id=member) for member in ("m1", "m2"))
    outcome = given(lending).when(library.LendBookRequest(book_id="b1", member_ids=["m1", "m2"])).yields(one, two)
    for wrong in ([two, one], [one], [one, two, two], []):
        with pytest.raises(AssertionError):
            outcome.yields(*wrong)


def test_events_of_another_type_with_the_same_fields_differ(lending: Context, library: Any) -> None:
    outcome = given(lending, library.LibraryClosed()).when(library.CloseLibraryRequest())
    with pytest.raises(AssertionError, match="BookLent"):
        outcome.yields(library.BookLent())


def test_checks_tell_what_happened_instead(lending: Context, library: Any) -> None:
    acquire = library.AcquireBookRequest(book_id="b1", title="Emma")
    rejected = given(lending, library.BookAcquired(book_id="b1", title="x")).when(acquire)
    told = "but it was rejected with BOOK_EXISTS: there is a book b1"
    checks: list[tuple[Any, ...]] = [
        (rejected.yields,),
        (rejected.changes_nothing,),
        (rejected.answers, library.AcquireBookResponse()),
        (rejected.rejects, "OTHER"),
        (rejected.is_invalid, "book_id"),
    ]
    for check, *arguments in checks:
        with pytest.raises(AssertionError, match=told):
            check(*arguments)
    with pytest.raises(AssertionError, match="be rejected with NO, but it was accepted:\nBookAcquired"):
        given(lending).when(acquire).rejects("NO")
    with pytest.raises(AssertionError, match="but it was accepted without events"):
        given(lending, library.LibraryClosed()).when(library.CloseLibraryRequest()).rejects("NO")


def test_another_answer_is_shown_as_a_diff(lending: Context, library: Any) -> None:
    outcome = given(lending).when(library.CloseLibraryRequest()).answers(library.CloseLibraryResponse())
    with pytest.raises(AssertionError, match="other response than expected"):
        outcome.answers(library.AcquireBookResponse(copy_id="k"))


def test_what_is_no_event_or_command_of_the_context_is_refused(lending: Context, library: Any) -> None:
    with pytest.raises(Misconfigured, match=r"library\.v1\.Book is not an event"):
        given(lending, library.Book())
    with pytest.raises(Misconfigured, match=r"library\.v1\.GetBookRequest is no command"):
        given(lending).when(library.GetBookRequest())


def test_fixed_ids_are_uuids_of_version_seven() -> None:
    import uuid

    ids = fixed_ids()
    assert next(ids) == FIRST_ID
    assert uuid.UUID(next(ids)).version == 7


def test_a_keyed_model_keeps_what_was_folded_into_it(shelves: Any) -> None:
    lent, burnt = shelves.BookLent, shelves.BooksBurnt
    context, two = shelves.make_context(), [lent(book_id=book, reader="Ada", reader_no=7) for book in "21"]
    book = shelves.Book(status=1, reader="Ada", times=1, lent_at=lent().lent_at)
    first, second = (type(book)(book_id=key) for key in "12")
    for one in (first, second):
        one.MergeFrom(book)
    given(context, *two).keeps(shelves.Book, first, second).keeps(shelves.Reader, shelves.Reader(reader_no=7, books=2))
    given(context, *two, burnt(book_ids=["1", "3"])).keeps(shelves.Book, second)
    given(context).keeps(shelves.Book)
    with pytest.raises(AssertionError, match="other rows than expected"):
        given(context, *two).keeps(shelves.Book, second, first)
    with pytest.raises(Misconfigured, match="BookLent is no keyed model of the context 'shelves'"):
        given(context).keeps(lent)
