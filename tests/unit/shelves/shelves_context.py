"""The shelves: keyed models, folded and asked in each way that there is."""

from __future__ import annotations

from collections.abc import Iterator

from shelves.v1.shelves_ceqs import (  # type: ignore[import-not-found]  # generated when the tests run
    BookFoldBase,
    BookProjection,
    ReaderProjection,
    ShelfCommands,
    ShelfQueries,
    ShelvesContext,
    ShelvesEvent,
)
from shelves.v1.shelves_pb2 import (  # type: ignore[import-not-found]
    Book,
    BookLent,
    BookReturned,
    BooksBurnt,
    BookStatus,
    DescribeShelfRequest,
    DescribeShelfResponse,
    LendBookRequest,
    Reader,
)

from ceqs.model import Decision, Recorded
from ceqs.queries import Rows


class Shelf(ShelfCommands):  # type: ignore[misc]
    def lend_book(self, request: LendBookRequest, book: Book, ctx: Decision) -> Iterator[ShelvesEvent]:
        yield BookLent(book_id=request.book_id, reader=request.reader, lent_at=ctx.now)


class BookFold(BookFoldBase):  # type: ignore[misc]
    def on_book_lent(self, book: Book, event: BookLent) -> None:
        book.status, book.reader = BookStatus.BOOK_STATUS_OUT, event.reader
        book.times += 1
        book.popular = book.times > 1
        book.lent_at.CopyFrom(event.lent_at)

    def on_book_returned(self, book: Book, event: BookReturned) -> None:
        book.status = BookStatus.BOOK_STATUS_UNSPECIFIED


class Books(BookProjection):  # type: ignore[misc]
    """Folds what the state folds, and forgets what was burnt. A reader called Nobody breaks it."""

    def __init__(self) -> None:
        self.folds = BookFold()

    def on_book_lent(self, book: Book, event: BookLent, meta: Recorded) -> None:
        if event.reader == "Nobody":
            raise ValueError("nobody lends books")
        self.folds.on_book_lent(book, event)

    def on_book_returned(self, book: Book, event: BookReturned, meta: Recorded) -> None:
        self.folds.on_book_returned(book, event)

    def on_books_burnt(self, book: Book, event: BooksBurnt, meta: Recorded) -> None:
        book.Clear()


class Readers(ReaderProjection):  # type: ignore[misc]
    def on_book_lent(self, reader: Reader, event: BookLent, meta: Recorded) -> None:
        reader.books += 1


class Queries(ShelfQueries):  # type: ignore[misc]
    async def describe_shelf(self, request: DescribeShelfRequest, rows: Rows[Book]) -> DescribeShelfResponse:
        out = BookStatus.BOOK_STATUS_OUT
        page = await rows.page(request, order_by="lent_at desc", status=out)
        titles = [f"{book.book_id} with {book.reader}" for book in page.rows]
        return DescribeShelfResponse(
            out=await rows.count(status=out), titles=titles, next_page_token=page.next_page_token
        )


def make_context(books: BookProjection | None = None) -> ShelvesContext:
    return ShelvesContext(
        commands=Shelf(), folds=[BookFold()], projections=[books or Books(), Readers()], queries=Queries()
    )
