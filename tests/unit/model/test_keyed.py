"""Keyed models are folded by pure methods, which the context checks by name."""

from __future__ import annotations

from typing import Any

import pytest

from ceqs.errors import Misconfigured
from ceqs.model import Context, KeyedFolder, KeyedProjection, Recorded

META = Recorded(event_id="e", type="t", position=3, public_position=0, recorded_at=None)  # type: ignore[arg-type]


def projection(shelves: Any, **methods: Any) -> Any:
    """Give a projection of the books with other methods than theirs."""
    books = shelves.make_context().projections["Book"]
    return type("Other", (type(books),), methods)()


def test_a_row_begins_with_its_key_and_is_no_more_when_it_is_cleared(shelves: Any) -> None:
    seen: list[Any] = []

    def on_book_lent(self: Any, book: Any, event: Any, meta: Any) -> None:
        seen.append((book.book_id, book.times, meta.position))
        book.times += 1

    folder = KeyedFolder(projection(shelves, on_book_lent=on_book_lent))
    lent, burnt = shelves.BookLent(book_id="1"), shelves.BooksBurnt(book_ids=["1", "2", "1"])
    row = folder.fold(None, "1", lent, META)
    row = folder.fold(row, "1", lent, META)
    assert seen == [("1", 0, 3), ("1", 1, 3)]
    assert folder.tags(burnt) == ("book:1", "book:2")
    assert folder.fold(row, "1", burnt, META) is None
    assert folder.fold(None, "1", burnt, META) is None


@pytest.mark.parametrize("other", ["2", ""])
def test_a_row_cannot_take_another_key(shelves: Any, other: str) -> None:
    def on_book_lent(self: Any, book: Any, event: Any, meta: Any) -> None:
        book.book_id, book.times = other, 1

    folder = KeyedFolder(projection(shelves, on_book_lent=on_book_lent))
    with pytest.raises(Misconfigured, match=f"Other.on_book_lent made book_id '{other}' of '1'"):
        folder.fold(None, "1", shelves.BookLent(book_id="1"), META)


def test_a_model_without_a_projection_or_a_projection_without_a_method_is_named(shelves: Any) -> None:
    context = shelves.make_context()
    handlers: dict[str, Any] = {
        "commands": [*{context._methods[path].__self__ for path in context.contract.commands}],
        "folds": [folder.methods["shelves.v1.BookLent"].__self__ for folder in context.folders.values()],
        "queries": [context._methods["/shelves.v1.ShelfQueriesService/DescribeShelf"].__self__],
    }
    plain = type("Plain", (Context,), {"ceqs_contract": context.contract})
    books, readers = context.projections["Book"], context.projections["Reader"]
    assert plain(**handlers, projections=[books, readers])
    with pytest.raises(Misconfigured, match=r"the model Reader has no projection; pass a ReaderProjection"):
        plain(**handlers, projections=[books])

    class Deaf(KeyedProjection):
        ceqs_contract, ceqs_model = context.contract, context.contract.models["Book"]

        def on_book_lent(self, book: Any, event: Any, meta: Any) -> None: ...

    with pytest.raises(Misconfigured, match="Deaf has no method on_book_returned; the model Book lists it"):
        plain(**handlers, projections=[Deaf(), readers])

    async def on_book_lent(self: Any, book: Any, event: Any, meta: Any) -> None: ...

    waiting = projection(shelves, on_book_lent=on_book_lent)
    with pytest.raises(Misconfigured, match="on_book_lent must not be `async def`: it is pure"):
        plain(**handlers, projections=[waiting, readers])
