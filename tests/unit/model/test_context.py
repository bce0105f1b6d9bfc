"""A context refuses, by name, handlers that do not fit its contract."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest

from ceqs.errors import Misconfigured
from ceqs.model import (
    CommandHandler,
    Fold,
    PublicHearing,
    QueryHandler,
    Subscriber,
)


def test_handlers_that_fit_are_found_by_name(kit: Any, library: Any) -> None:
    context = kit.context()
    assert context.name == "library"
    assert list(context.projections) == ["Shelf"]
    assert list(context.publishers) == ["offers"]
    assert list(context.subscribers) == ["reminders"]
    assert set(context.folders) == {"Book", "Loans", "Library"}
    methods = {rpc.name: context.method(rpc) for rpc in [*library.contract.commands.values()]}
    assert methods["LendBook"].__name__ == "lend_book"
    queries = {rpc.name: context.method(rpc) for rpc in library.contract.queries.values()}
    assert queries["GetBook"] is None, "it needs no code"
    assert queries["CountLoans"].__name__ == "count_loans"


def test_code_for_a_query_that_needs_none_is_used(kit: Any, library: Any) -> None:
    class Own(kit.Queries):  # type: ignore[misc]
        async def get_book(self, request: Any, book: Any) -> Any: ...

    context = kit.context(queries=Own())
    rpc = next(rpc for rpc in library.contract.queries.values() if rpc.name == "GetBook")
    assert context.method(rpc).__name__ == "get_book"


def test_an_event_that_is_not_overridden_is_not_heard(kit: Any) -> None:
    assert list(kit.Shelf().ceqs_heard()) == ["library.v1.BookAcquired"]


def test_a_misspelt_method_is_refused_with_the_nearest_right_one(kit: Any) -> None:
    class Misspelt(kit.BookFold):  # type: ignore[misc]
        def on_book_aquired(self, book: Any, event: Any) -> None: ...

    with pytest.raises(
        Misconfigured,
        match=r"Misspelt\.on_book_aquired belongs to no event that it may hear; did you mean on_book_acquired\?",
    ):
        kit.context(folds=[Misspelt(), kit.LoansFold(), kit.LibraryFold()])


def test_an_event_that_the_state_does_not_list_is_refused(kit: Any) -> None:
    class Wide(kit.LoansFold):  # type: ignore[misc]
        def on_xyz(self, loans: Any, event: Any) -> None: ...

    with pytest.raises(
        Misconfigured, match=r"Wide\.on_xyz belongs to no event that it may hear; there is on_book_lent"
    ):
        kit.context(folds=[kit.BookFold(), Wide(), kit.LibraryFold()])


def test_a_projection_hears_no_public_event(kit: Any) -> None:
    class Wide(kit.Shelf):  # type: ignore[misc]
        async def on_book_offered(self, session: Any, event: Any, meta: Any) -> None: ...

    with pytest.raises(Misconfigured, match=r"Wide\.on_book_offered belongs to no event that it may hear"):
        kit.context(projections=[Wide()])


def test_a_projection_is_partitioned_by_what_all_its_events_are_partitioned_by(kit: Any) -> None:
    class Parted(kit.Shelf):  # type: ignore[misc]
        partition_by = "member"

    with pytest.raises(
        Misconfigured,
        match=r"Parted\.partition_by is 'member', but BookAcquired, which it hears, is partitioned by 'book'",
    ):
        kit.context(projections=[Parted()])


def test_a_missing_fold_is_refused(kit: Any) -> None:
    with pytest.raises(Misconfigured, match=r"the state Loans has no fold; pass a LoansFoldBase"):
        kit.context(folds=[kit.BookFold(), kit.LibraryFold()])


def test_two_folds_of_one_state_are_refused(kit: Any) -> None:
    with pytest.raises(Misconfigured, match="two folds for the state Book"):
        kit.context(folds=[kit.BookFold(), kit.BookFold(), kit.LoansFold(), kit.LibraryFold()])


def test_a_fold_that_lacks_a_listed_event_is_refused(kit: Any, library: Any) -> None:
    class Half(Fold):
        ceqs_contract, ceqs_state = library.contract, "Book"

        def on_book_lent(self, book: Any, event: Any) -> None: ...

    with pytest.raises(Misconfigured, match="Half has no method on_book_acquired; the state Book lists it"):
        kit.context(folds=[Half(), kit.LoansFold(), kit.LibraryFold()])


def test_a_missing_command_method_is_refused_with_what_may_be_misspelt(kit: Any) -> None:
    class Misspelt(CommandHandler):
        ceqs_service = "library.v1.LendingCommandsService"

        def acquire_bok(self, request: Any, book: Any, ctx: Any) -> Any:
            return ()

    with pytest.raises(
        Misconfigured,
        match=r"Misspelt has no method acquire_book for the rpc AcquireBook; is acquire_bok misspelt\?",
    ):
        kit.context(commands=Misspelt())


def test_a_missing_query_method_is_refused(kit: Any) -> None:
    class Half(QueryHandler):
        ceqs_service = "library.v1.LendingQueriesService"

        async def list_shelf(self, request: Any, session: Any) -> Any: ...

    with pytest.raises(Misconfigured, match="Half has no method count_loans for the rpc CountLoans"):
        kit.context(queries=Half())


@pytest.mark.parametrize(("argument", "service"), [("commands", "LendingCommands"), ("queries", "LendingQueries")])
def test_a_service_without_a_handler_is_refused(kit: Any, argument: str, service: str) -> None:
    with pytest.raises(Misconfigured, match=rf"library\.v1\.{service}Service has no handler; .*\({argument}=\.\.\.\)"):
        kit.context(**{argument: ()})


def test_two_handlers_of_one_service_are_refused(kit: Any) -> None:
    with pytest.raises(Misconfigured, match=r"two handlers for library\.v1\.LendingCommandsService"):
        kit.context(commands=[kit.Lending(), kit.Lending()])


def test_a_handler_of_another_service_is_refused(kit: Any) -> None:
    class Selling(CommandHandler):
        ceqs_service = "museum.v1.SellingService"

    with pytest.raises(Misconfigured, match=r"Selling serves museum\.v1\.SellingService, not a service of the context"):
        kit.context(commands=Selling())


@pytest.mark.parametrize(
    ("argument", "name"),
    [("folds", "BookFold"), ("projections", "Shelf"), ("publishers", "Offers"), ("subscribers", "Reminders")],
)
def test_a_handler_of_another_context_is_refused(kit: Any, argument: str, name: str) -> None:
    foreign = type(f"Foreign{name}", (getattr(kit, name),), {"ceqs_contract": kit.foreign})
    with pytest.raises(Misconfigured, match=f"Foreign{name} is a handler of the context 'museum', not of 'library'"):
        kit.context(**{argument: [foreign()]})


def test_public_events_of_another_context_are_heard(kit: Any) -> None:
    class Visitors(PublicHearing, Subscriber):
        ceqs_contract = kit.foreign

        def on_book_offered(self, event: Any, ctx: Any) -> Any:
            return ()

    assert list(kit.context(subscribers=[Visitors()]).subscribers) == ["visitors"]


def test_private_events_of_another_context_are_not_heard(kit: Any) -> None:
    class Spies(PublicHearing, Subscriber):
        ceqs_contract = kit.foreign

        def on_book_lent(self, event: Any, ctx: Any) -> Any:
            return ()

    with pytest.raises(Misconfigured, match=r"Spies\.on_book_lent belongs to no event that it may hear"):
        kit.context(subscribers=[Spies()])


def test_a_query_without_its_projection_is_refused(kit: Any) -> None:
    with pytest.raises(Misconfigured, match="ListShelf reads the projection 'Shelf'; pass a ShelfProjection"):
        kit.context(projections=[])


def test_a_handler_that_hears_nothing_is_refused(kit: Any) -> None:
    class Deaf(kit.ShelfBase):  # type: ignore[misc]
        pass

    with pytest.raises(Misconfigured, match="Deaf hears no event; override one of its on_ methods"):
        kit.context(projections=[Deaf()])


def test_two_handlers_of_one_name_are_refused(kit: Any) -> None:
    class Namesake(kit.Reminders):  # type: ignore[misc]
        name: ClassVar[str] = "offers"

    with pytest.raises(Misconfigured, match="Namesake and Offers are both named 'offers'"):
        kit.context(subscribers=[Namesake()])


def test_what_is_pure_is_not_async_and_what_reads_tables_is(kit: Any) -> None:
    class AsyncFold(kit.BookFold):  # type: ignore[misc]
        async def on_book_lent(self, book: Any, event: Any) -> None: ...

    class AsyncLending(kit.Lending):  # type: ignore[misc]
        async def lend_book(self, request: Any, loans: Any, ctx: Any) -> Any: ...

    class SyncShelf(kit.Shelf):  # type: ignore[misc]
        def on_book_lent(self, session: Any, event: Any, meta: Any) -> None: ...

    class SyncQueries(kit.Queries):  # type: ignore[misc]
        def count_loans(self, request: Any, loans: Any) -> Any: ...

    with pytest.raises(Misconfigured, match=r"AsyncFold\.on_book_lent must not be `async def`"):
        kit.context(folds=[AsyncFold(), kit.LoansFold(), kit.LibraryFold()])
    with pytest.raises(Misconfigured, match=r"AsyncLending\.lend_book must not be `async def`"):
        kit.context(commands=AsyncLending())
    with pytest.raises(Misconfigured, match=r"SyncShelf\.on_book_lent must be `async def`"):
        kit.context(projections=[SyncShelf()])
    with pytest.raises(Misconfigured, match=r"SyncQueries\.count_loans must be `async def`"):
        kit.context(queries=SyncQueries())
