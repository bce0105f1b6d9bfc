"""The generated bases of a context, by hand."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace
from typing import Any

import pytest

from ceqs.model import (
    CommandHandler,
    Context,
    Fold,
    PrivateHearing,
    Publisher,
    QueryHandler,
    Subscriber,
    TableProjection,
    unheard,
)


@pytest.fixture
def kit(library: Any) -> Any:
    """Handlers that fit, as the generator and a user would write them, and a way to make a context of them."""
    contract = library.contract

    class BookFold(Fold):
        ceqs_contract, ceqs_state = contract, "Book"

        def on_book_acquired(self, book: Any, event: Any) -> None: ...

        def on_book_lent(self, book: Any, event: Any) -> None: ...

    class LoansFold(Fold):
        ceqs_contract, ceqs_state = contract, "Loans"

        def on_book_lent(self, loans: Any, event: Any) -> None: ...

    class LibraryFold(Fold):
        ceqs_contract, ceqs_state = contract, "Library"

        def on_book_acquired(self, library: Any, event: Any) -> None: ...

        def on_library_closed(self, library: Any, event: Any) -> None: ...

    class Lending(CommandHandler):
        ceqs_service = "library.v1.LendingCommandsService"

        def acquire_book(self, request: Any, book: Any, ctx: Any) -> Any:
            return ()

        def lend_book(self, request: Any, loans: Any, ctx: Any) -> Any:
            return ()

        def close_library(self, request: Any, library: Any, ctx: Any) -> Any:
            return ()

    class Queries(QueryHandler):
        ceqs_service = "library.v1.LendingQueriesService"

        async def count_loans(self, request: Any, loans: Any) -> Any: ...

        async def list_shelf(self, request: Any, session: Any) -> Any: ...

    class ShelfBase(TableProjection):
        ceqs_contract, ceqs_projection = contract, "Shelf"

        @unheard
        async def on_book_acquired(self, session: Any, event: Any, meta: Any) -> None: ...

        @unheard
        async def on_book_lent(self, session: Any, event: Any, meta: Any) -> None: ...

    class Shelf(ShelfBase):
        async def on_book_acquired(self, session: Any, event: Any, meta: Any) -> None: ...

    class Offers(Publisher):
        ceqs_contract = contract

        def on_book_acquired(self, event: Any, ctx: Any) -> Any:
            return ()

    class Reminders(PrivateHearing, Subscriber):
        ceqs_contract = contract

        def on_book_lent(self, event: Any, ctx: Any) -> Any:
            return ()

    class LibraryContext(Context):
        ceqs_contract = contract

    fitting: dict[str, Any] = {
        "commands": Lending(),
        "folds": [BookFold(), LoansFold(), LibraryFold()],
        "projections": [Shelf()],
        "publishers": [Offers()],
        "subscribers": [Reminders()],
        "queries": Queries(),
    }

    def context(**other: Any) -> Context:
        return LibraryContext(**{**fitting, **other})

    foreign = dataclasses.replace(contract, context="museum", package="museum.v1")
    return SimpleNamespace(
        context=context,
        foreign=foreign,
        BookFold=BookFold,
        LoansFold=LoansFold,
        LibraryFold=LibraryFold,
        Lending=Lending,
        Queries=Queries,
        ShelfBase=ShelfBase,
        Shelf=Shelf,
        Offers=Offers,
        Reminders=Reminders,
    )
