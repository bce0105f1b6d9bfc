"""Answers from keyed models: without code, as from a state; in pages; with code; as of any moment; live."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from ceqs.contract import decode_token
from ceqs.errors import Invalid, NotFound
from ceqs.queries import QueryCall


async def test_a_row_is_answered_as_a_state_is(stacks: Any) -> None:
    dice = random.Random(3)
    # What burns is gone from the model and known to the state; all else is the same.
    await stacks.record(*[one for one in stacks.some_events(dice, 60) if "Burnt" not in type(one).__name__])
    await stacks.fill()
    for book in (f"book {n}" for n in range(12)):
        row, state = await stacks.ask("GetBook", book_id=book), await stacks.ask("FetchBook", book_id=book)
        assert row.response.SerializeToString() == state.response.SerializeToString()
        assert (row.age, row.trailers) == (state.age, state.trailers)
    for unknown in ({"book_id": "none"}, {}):
        with pytest.raises((NotFound, Invalid)) as of_row:
            await stacks.ask("GetBook", **unknown)
        with pytest.raises((NotFound, Invalid)) as of_state:
            await stacks.ask("FetchBook", **unknown)
        assert repr(of_row.value) == repr(of_state.value)
        assert of_row.value.message == of_state.value.message


async def test_a_number_is_a_key_however_large_it_is(stacks: Any) -> None:
    largest = 2**64 - 1
    await stacks.record(*[stacks.lent("1", number=number) for number in (3, largest, 20, largest)])
    await stacks.fill()
    assert (await stacks.ask("GetReader", reader_no=largest)).response.reader.books == 2
    found = (await stacks.ask("ListReaders")).response.readers
    assert [reader.reader_no for reader in found] == [3, 20, largest]
    found = (await stacks.ask("ListReaders", books=2)).response.readers
    assert [reader.reader_no for reader in found] == [largest]


async def test_what_is_deleted_is_found_no_more_until_it_begins_anew(stacks: Any) -> None:
    await stacks.record(stacks.lent("1"), stacks.lent("1"), stacks.shelves.BooksBurnt(book_ids=["1"]))
    await stacks.fill()
    with pytest.raises(NotFound, match="nothing is recorded of book:1"):
        await stacks.ask("GetBook", book_id="1")
    await stacks.record(stacks.lent("1"))
    await stacks.fill()
    assert (await stacks.ask("GetBook", book_id="1")).response.book.times == 1


async def test_a_list_is_found_and_ordered_by_what_is_indexed(stacks: Any) -> None:
    dice = random.Random(4)
    await stacks.record(*stacks.some_events(dice, 150))
    await stacks.fill()
    books: list[Any] = sorted(stacks.folded("Book").values(), key=lambda book: book.book_id)
    out = stacks.shelves.BookStatus.BOOK_STATUS_OUT

    async def listed(**asked: Any) -> list[Any]:
        return list((await stacks.ask("ListBooks", **asked)).response.books)

    assert await listed() == books
    assert await listed(status=out) == [book for book in books if book.status == out]
    # Unset is anywhere; the zero value, said, is what it says.
    assert await listed(status=0) == [book for book in books if book.status == 0]
    assert await listed(popular=True) == [book for book in books if book.popular]
    assert await listed(reader=["Ada", "Eve"]) == [book for book in books if book.reader in ("Ada", "Eve")]
    then = Timestamp(seconds=3)
    assert await listed(lent_at=then) == [book for book in books if book.lent_at == then]
    expected = sorted(books, key=lambda book: (-book.lent_at.seconds, book.times, book.book_id))
    assert await listed(order_by="lent_at desc, times") == expected
    assert await listed(order_by="book_id desc") == books[::-1]


async def test_pages_hold_each_row_once_while_rows_come_and_go(stacks: Any) -> None:
    await stacks.record(*[stacks.lent(f"book {n:02}", "AE"[n % 2], at=n % 4) for n in range(16)])
    await stacks.fill()
    for order_by in ("", "reader", "popular desc, lent_at", "times desc"):
        seen: list[str] = []
        token = ""
        while token or not seen:
            page = (await stacks.ask("ListBooks", page_size=7, order_by=order_by, page_token=token)).response
            seen += [book.book_id for book in page.books]
            token = page.next_page_token
            if len(seen) == 7:
                await stacks.record(stacks.lent(f"new {order_by}", "A"), stacks.lent("book 00", "E", at=9))
                await stacks.fill()
        # What moves while it is listed may be seen in both places, or in neither.
        still = [book for book in seen if book != "book 00"]
        assert len(still) == len(set(still))
        assert {f"book {n:02}" for n in range(1, 16)} <= set(still)


async def test_an_order_by_what_has_no_index_is_refused(stacks: Any) -> None:
    await stacks.fill()
    for order_by in ("colour", "status downwards", "status,", "desc", "ceqs_message"):
        with pytest.raises(Invalid, match=r"order_by.*is none of book_id, status, reader, lent_at, popular, times"):
            await stacks.ask("ListBooks", order_by=order_by)


async def test_code_reads_the_rows_by_a_typed_reader(stacks: Any) -> None:
    lent, returned = stacks.lent, stacks.shelves.BookReturned
    await stacks.record(lent("1", "Ada", at=1), lent("2", "Bob", at=2), lent("3", "Eve", at=3), returned(book_id="2"))
    await stacks.fill()
    found = (await stacks.ask("DescribeShelf", page_size=1)).response
    assert (found.out, list(found.titles)) == (2, ["3 with Eve"])
    found = (await stacks.ask("DescribeShelf", page_size=1, page_token=found.next_page_token)).response
    assert (list(found.titles), found.next_page_token) == (["1 with Ada"], "")


async def test_a_keyed_model_is_answered_as_of_any_moment(stacks: Any) -> None:
    dice = random.Random(5)
    await stacks.record(*stacks.some_events(dice, 80))
    await stacks.fill()
    for upto in dice.sample(range(1, 80), 4):
        call = QueryCall(as_of={stacks.log.log_id: upto})
        expected = stacks.folded("Book", upto)
        answer = await stacks.ask("ListBooks", call)
        assert {f"book:{book.book_id}": book for book in answer.response.books} == expected
        assert decode_token(answer.age.token) == {stacks.log.log_id: upto}
        book = dice.choice(list(expected))
        answer = await stacks.ask("GetBook", call, book_id=book[5:])
        assert answer.response.book == expected[book]


async def test_a_live_query_of_a_row_says_what_has_become_of_it(stacks: Any) -> None:
    await stacks.record(stacks.lent("2"))
    await stacks.fill()
    rpc = stacks.context.contract.queries["/shelves.v1.BookQueriesService/WatchBook"]
    answers = stacks.answers.watch(rpc, stacks.shelves.WatchBookRequest(book_id="1"), QueryCall())
    async with asyncio.timeout(20):
        first = await anext(answers)
        assert not first.response.HasField("book")
        assert decode_token(first.response.age.token) == {stacks.log.log_id: 1}
        for times in (1, 2):
            await stacks.record(stacks.lent("1"), stacks.lent("2"))
            await stacks.fill()
            answer = await anext(answers)
            assert answer.response.book.times == times
            assert decode_token(answer.response.age.token) == {stacks.log.log_id: 1 + 2 * times}
    await answers.aclose()
