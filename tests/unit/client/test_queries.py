"""Queries: they read the client's own writes, tell their age, and are watched over outages."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from ceqs.client import Answer
from ceqs.contract import decode_token, encode_token
from ceqs.errors import Behind, Denied, Internal, Unavailable
from ceqs.v1.answers_pb2 import Age, Receipt

TOKEN, OTHER = encode_token({"log": 7}), encode_token({"other": 3})


@pytest.fixture
async def wrote(client: Any, server: Any, library: Any) -> Any:
    """A client that has sent a command."""
    server.unary("LendBook", library.LendBookResponse(receipt=Receipt(token=TOKEN)))
    server.unary("GetBook", library.GetBookResponse())
    await client.lend_book(library.LendBookRequest())
    server.calls.clear()
    return client


async def test_a_query_reads_the_clients_own_writes(wrote: Any, server: Any, library: Any) -> None:
    await wrote.get_book(library.GetBookRequest(book_id="b1"))
    assert server.calls[0].metadata["ceqs-at-least"] == TOKEN
    assert "ceqs-command-id" not in server.calls[0].metadata


async def test_reading_the_own_writes_can_be_switched_off(wrote: Any, server: Any, library: Any) -> None:
    await wrote.get_book(library.GetBookRequest(), at_least="")
    await wrote.get_book(library.GetBookRequest(), at_least=OTHER)
    assert [call.metadata.get("ceqs-at-least") for call in server.calls] == [None, OTHER]


async def test_a_token_from_elsewhere_is_waited_for_too(wrote: Any, server: Any, library: Any) -> None:
    other = wrote.with_token(OTHER)
    await other.get_book(library.GetBookRequest())
    assert decode_token(server.calls[0].metadata["ceqs-at-least"]) == {"log": 7, "other": 3}
    await other.close()
    await wrote.get_book(library.GetBookRequest())
    assert server.calls[1].metadata["ceqs-at-least"] == TOKEN


async def test_a_query_may_ask_for_the_past(wrote: Any, server: Any, library: Any) -> None:
    await wrote.get_book(library.GetBookRequest(), as_of=OTHER)
    await wrote.get_book(library.GetBookRequest(), as_of=dt.datetime(2010, 12, 2, tzinfo=dt.UTC))
    assert [call.metadata["ceqs-as-of"] for call in server.calls] == [OTHER, "2010-12-02T00:00:00Z"]
    server.stream("WatchBook", [_answer(library, 1)])
    answers = [one async for one in wrote.watch_book(_of(library), as_of=OTHER)]
    assert len(answers) == 1
    assert server.calls[-1].metadata["ceqs-as-of"] == OTHER
    past = wrote.with_moment(OTHER)
    await past.get_book(library.GetBookRequest())
    await past.get_book(library.GetBookRequest(), as_of=TOKEN)
    await wrote.get_book(library.GetBookRequest())
    assert [call.metadata.get("ceqs-as-of") for call in server.calls[-3:]] == [OTHER, TOKEN, None]


async def test_no_answer_is_older_than_the_last_one_to_the_same_query(client: Any, server: Any, library: Any) -> None:
    async def answer(call: Any) -> Any:
        call.context.set_trailing_metadata((("ceqs-token", TOKEN),))
        return library.GetBookResponse()

    server.unary("GetBook", answer)
    server.unary("ListShelf", library.ListShelfResponse())
    await client.get_book(library.GetBookRequest(), as_of=OTHER)
    await client.get_book(library.GetBookRequest())
    await client.get_book(library.GetBookRequest())
    await client.get_book(library.GetBookRequest(), at_least="")
    await client.list_shelf(library.ListShelfRequest())
    assert [call.metadata.get("ceqs-at-least") for call in server.calls] == [None, None, TOKEN, None, None]


async def test_a_query_does_not_make_later_ones_wait(client: Any, server: Any, library: Any) -> None:
    async def answer(call: Any) -> Any:
        call.context.set_trailing_metadata((("ceqs-token", TOKEN),))
        return library.GetBookResponse()

    server.unary("GetBook", answer)
    await client.get_book(library.GetBookRequest())
    assert client.token == ""


async def test_an_answer_tells_its_age_from_the_trailers(client: Any, server: Any, library: Any) -> None:
    async def answer(call: Any) -> Any:
        call.context.set_trailing_metadata(
            (
                ("ceqs-token", TOKEN),
                ("ceqs-recorded-at", "2010-12-01T08:26:00.250Z"),
                ("ceqs-lag", "12"),
                ("ceqs-lag-seconds", "1.5"),
                ("ceqs-parked", "2"),
            )
        )
        return library.GetBookResponse(book=library.Book(title="Emma"))

    server.unary("GetBook", answer)
    answer_ = await client.get_book(library.GetBookRequest())
    assert isinstance(answer_, Answer)
    assert answer_.message.book.title == "Emma"
    assert answer_.age == Age(
        token=TOKEN,
        recorded_at=Timestamp(seconds=1291191960, nanos=250_000_000),
        lag_events=12,
        lag_seconds=1.5,
        parked=2,
    )


async def test_an_answer_tells_its_age_from_its_own_field(client: Any, server: Any, library: Any) -> None:
    server.unary("ListShelf", library.ListShelfResponse(age=Age(lag_events=4)))
    assert (await client.list_shelf(library.ListShelfRequest())).age.lag_events == 4


async def test_an_answer_of_a_server_that_tells_nothing_has_an_empty_age(
    client: Any, server: Any, library: Any
) -> None:
    server.unary("GetBook", library.GetBookResponse())
    assert (await client.get_book(library.GetBookRequest())).age == Age()


async def test_a_model_that_is_behind_is_asked_again(client: Any, server: Any, library: Any) -> None:
    server.unary("GetBook", Behind(), Unavailable(), library.GetBookResponse())
    await client.get_book(library.GetBookRequest())
    assert len(server.calls) == 3


async def test_a_model_that_stays_behind_is_an_error(client: Any, server: Any, library: Any) -> None:
    server.unary("GetBook", Behind("at 3, not at 7"))
    with pytest.raises(Behind, match="at 3, not at 7"):
        await client.get_book(library.GetBookRequest(), timeout=0.3)


async def test_an_internal_error_is_raised_at_once(client: Any, server: Any, library: Any) -> None:
    server.unary("GetBook", Internal())
    with pytest.raises(Internal):
        await client.get_book(library.GetBookRequest())
    assert len(server.calls) == 1


async def test_watching_gives_each_answer_with_its_age_until_the_stream_ends(
    wrote: Any, server: Any, library: Any
) -> None:
    server.stream("WatchBook", [_answer(library, 1), _answer(library, 2)])
    seen = [(one.message.book.times_lent, one.age.lag_events) async for one in wrote.watch_book(_of(library))]
    assert seen == [(1, 10), (2, 20)]
    assert server.calls[0].metadata["ceqs-at-least"] == TOKEN


async def test_watching_goes_on_after_an_outage_with_nothing_older(
    client: Any, server: Any, library: Any, wire: Any
) -> None:
    async def cut(call: Any) -> None:
        await call.write(_answer(library, 1))
        await call.ended.wait()

    same, changed = _answer(library, 1), _answer(library, 2)
    same.age.lag_events = 3
    server.stream("WatchBook", cut, Unavailable(), [same, changed])
    seen = []
    async for one in client.watch_book(_of(library)):
        seen.append(one.message.book.times_lent)
        if seen == [1]:
            wire.cut()
    assert seen == [1, 2]
    assert [decode_token(call.metadata.get("ceqs-at-least", "")) for call in server.calls] == [{}, {"l": 1}, {"l": 1}]


async def test_watching_what_is_not_allowed_is_refused(client: Any, server: Any, library: Any) -> None:
    server.stream("WatchBook", Denied())
    with pytest.raises(Denied):
        await anext(client.watch_book(_of(library)))
    assert len(server.calls) == 1


async def test_a_service_that_never_comes_is_given_up(client: Any, server: Any, library: Any) -> None:
    server.stream("WatchBook", Unavailable())
    with pytest.raises(Unavailable):
        await anext(client.watch_book(_of(library), timeout=0.5))


async def test_whoever_stops_watching_leaves_no_call(client: Any, server: Any, library: Any) -> None:
    async def once(call: Any) -> None:
        await call.write(_answer(library, 1))
        await asyncio.sleep(60)

    server.stream("WatchBook", once)
    async with contextlib.aclosing(client.watch_book(_of(library))) as answers:
        async for _ in answers:
            break
    await asyncio.wait_for(server.calls[0].ended.wait(), 5)


def _of(library: Any) -> Any:
    return library.WatchBookRequest(book_id="b1")


def _answer(library: Any, number: int) -> Any:
    age = Age(token=encode_token({"l": number}), lag_events=10 * number)
    return library.WatchBookResponse(book=library.Book(times_lent=number), age=age)
