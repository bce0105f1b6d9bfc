"""Pages of a list: none of its rows comes twice or is left out, however it changes meanwhile (AIP-158)."""

from __future__ import annotations

import base64
import datetime as dt
import decimal
import json
import random
import uuid
from collections.abc import AsyncIterator
from typing import Any

import hypothesis
import pytest
from hypothesis import strategies as st
from sqlalchemy import DateTime, func, select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, MappedAsDataclass, mapped_column

from ceqs.errors import Invalid, Misconfigured
from ceqs.queries import Page, read_page
from shop.orders.v1.queries_pb2 import ListCustomerHistoryRequest, ListProductSalesRequest

BEGIN = dt.datetime(2010, 12, 1, 8, 26, tzinfo=dt.UTC)


class Base(MappedAsDataclass, DeclarativeBase):
    """The tables."""

    type_annotation_map = {dt.datetime: DateTime(timezone=True)}  # noqa: RUF012  # SQLAlchemy reads it from the class


class Book(Base):
    __tablename__ = "books"

    number: Mapped[int] = mapped_column(primary_key=True)
    copy: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str]
    price: Mapped[float]
    lent_at: Mapped[dt.datetime]
    note: Mapped[str | None] = mapped_column(default=None)
    mark: Mapped[uuid.UUID] = mapped_column(default_factory=uuid.uuid4)
    day: Mapped[dt.date] = mapped_column(default=BEGIN.date())
    cost: Mapped[decimal.Decimal] = mapped_column(default=decimal.Decimal("0.1"))


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest) -> str:
    if request.param == "sqlite":
        return "sqlite+aiosqlite://"
    found: str = request.getfixturevalue("postgres")
    return found.replace("postgresql://", "postgresql+asyncpg://")


@pytest.fixture
async def session(url: str) -> AsyncIterator[AsyncSession]:
    engine = create_async_engine(url)
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    async with AsyncSession(engine, expire_on_commit=False) as session:
        yield session
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.drop_all)
    await engine.dispose()


def book(dice: random.Random) -> Book:
    return Book(
        dice.randrange(10**9),
        dice.randrange(3),
        dice.choice(["Ädelweiss", "Bär", "It's", "", "zoo"]),
        dice.choice([0.1, 0.25, 1e6]),
        BEGIN + dt.timedelta(seconds=dice.randrange(5)),
    )


ORDERS: dict[str, list[Any]] = {
    "by the key alone": [],
    "ascending": [Book.title, Book.price],
    "descending": [Book.lent_at.desc(), Book.number.desc(), Book.copy.desc()],
    "mixed": [Book.price.desc(), Book.title, Book.lent_at.desc()],
}


@pytest.mark.parametrize("order", ORDERS)
async def test_no_row_comes_twice_or_is_left_out_while_others_come_and_go(session: AsyncSession, order: str) -> None:
    by, dice = ORDERS[order], random.Random(order)
    stays = [book(dice) for _ in range(60)]
    session.add_all([*stays, *(book(dice) for _ in range(20))])
    await session.commit()
    passing, seen, token = {(one.number, one.copy) for one in stays}, list[tuple[int, int]](), ""
    while True:
        request = ListProductSalesRequest(page_size=dice.randint(1, 9), page_token=token)
        page: Page[Book] = await read_page(session, select(Book), request, by=by)
        seen += [(one.number, one.copy) for one in page.rows]
        token = page.next_page_token
        if not token:
            break
        session.add(book(dice))
        for gone in [one for one in page.rows if (one.number, one.copy) not in passing]:
            await session.delete(gone)
        await session.commit()
    assert len(seen) == len(set(seen))
    assert passing <= set(seen)


async def test_a_list_comes_in_its_order(session: AsyncSession) -> None:
    dice = random.Random(1)
    session.add_all(book(dice) for _ in range(30))
    await session.commit()
    by = [Book.price.desc(), Book.number]
    whole = list(await session.scalars(select(Book).order_by(*by)))
    assert (await read_page(session, select(Book), ListProductSalesRequest(), by=by)).rows == whole
    first = await read_page(session, select(Book), ListProductSalesRequest(page_size=29), by=by)
    assert first.rows == whole[:29]
    last = ListProductSalesRequest(page_size=1, page_token=first.next_page_token)
    assert await read_page(session, select(Book), last, by=by) == Page(whole[29:], ""), "no empty page comes after it"


async def test_a_page_is_as_long_as_it_may_be(session: AsyncSession) -> None:
    dice = random.Random(1)
    session.add_all(book(dice) for _ in range(10))
    await session.commit()
    for asked, given in ((0, 4), (3, 3), (7, 5)):
        page = await read_page(session, select(Book), ListProductSalesRequest(page_size=asked), by=[], size=4, most=5)
        assert len(page.rows) == given
    with pytest.raises(Invalid, match="page_size: must not be negative"):
        await read_page(session, select(Book), ListProductSalesRequest(page_size=-1), by=[])


async def test_a_token_belongs_to_its_request_and_its_order(session: AsyncSession) -> None:
    dice = random.Random(1)
    session.add_all(book(dice) for _ in range(10))
    await session.commit()
    asked = ListProductSalesRequest(page_size=2, charge=False)
    token = (await read_page(session, select(Book), asked, by=[Book.title])).next_page_token
    others: list[tuple[Any, list[Any]]] = [
        (ListProductSalesRequest(page_size=2, page_token=token), [Book.title]),
        (ListProductSalesRequest(page_size=2, page_token=token, charge=True), [Book.title]),
        (ListProductSalesRequest(page_size=2, page_token=token, charge=False), [Book.title.desc()]),
        (ListProductSalesRequest(page_size=2, page_token=token, charge=False), [Book.price]),
        (ListCustomerHistoryRequest(page_size=2, page_token=token), [Book.title]),
    ]
    for request, by in others:
        with pytest.raises(Invalid, match="page_token: belongs to a request with other filters or in another order"):
            await read_page(session, select(Book), request, by=by)
    longer = ListProductSalesRequest(page_size=9, page_token=token, charge=False)
    assert len((await read_page(session, select(Book), longer, by=[Book.title])).rows) == 8, "the size may change"


@pytest.mark.parametrize("token", ["?", "a", "4pi6", base64.b64encode(b"[1").decode(), base64.b64encode(b"3").decode()])
async def test_a_token_that_is_none_is_refused(session: AsyncSession, token: str) -> None:
    with pytest.raises(Invalid, match="page_token: is no page token"):
        await read_page(session, select(Book), ListProductSalesRequest(page_token=token), by=[])


def token_of(*content: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(content).encode()).decode().rstrip("=")


HARD: list[Any] = [
    *(None, True, 2**31, 2**63, -(2**64), float("nan"), float("inf"), "\0", "\ud800", "2010-12-01", {}, []),
    *(["t", "2010-12-01T08:26:00"], ["t", "0001-01-01T00:00:00+14:00"], ["t", "soon"], ["t"], ["x", ""], ["b", "00"]),
]
ANYTHING: st.SearchStrategy[Any] = st.one_of(
    st.sampled_from(HARD), st.integers(), st.floats(), st.text(), st.lists(st.text(max_size=1), max_size=3)
)


async def test_a_token_with_forged_values_is_refused_and_never_a_fault_of_the_server(session: AsyncSession) -> None:
    dice = random.Random(1)
    session.add_all(book(dice) for _ in range(10))
    await session.commit()
    by = [Book.title, Book.price.desc(), Book.lent_at]
    asked = ListProductSalesRequest(page_size=2)
    bound, *true = json.loads(
        base64.b64decode((await read_page(session, select(Book), asked, by=by)).next_page_token + "==")
    )
    assert len(true) == 5

    forged = [([*true[:at], value, *true[at + 1 :]], bound) for at in range(len(true)) for value in HARD]

    @hypothesis.settings(max_examples=50, derandomize=True, database=None, deadline=None)
    @hypothesis.given(st.lists(ANYTHING, max_size=7), st.sampled_from([bound, "other", 1]))
    def forge(values: list[Any], belongs: Any) -> None:
        forged.append((values, belongs))

    forge()
    refused: list[str] = []
    for values, belongs in forged:
        request = ListProductSalesRequest(page_size=2, page_token=token_of(belongs, *values))
        try:
            await read_page(session, select(Book), request, by=by)
        except Invalid as error:
            refused.append(error.message)
        else:
            assert [type(one) for one in values[:2]] in ([str, int], [str, float]), values
        await session.rollback()
    assert all("page_token: " in said and "; leave it out for the first page" in said for said in refused)
    assert 100 < len(refused) < len(forged), "some of them could be true"


async def test_a_list_may_be_ordered_by_all_that_compares(session: AsyncSession) -> None:
    dice = random.Random(1)
    session.add_all(book(dice) for _ in range(9))
    await session.commit()
    for by in (
        Book.price,
        Book.lent_at,
        func.lower(Book.title),
        func.coalesce(Book.note, "-"),
        Book.mark,
        Book.day,
        Book.cost,
    ):
        seen, token = list[Book](), ""
        while True:
            request = ListProductSalesRequest(page_size=4, page_token=token)
            page: Page[Book] = await read_page(session, select(Book), request, by=[by])
            seen, token = [*seen, *page.rows], page.next_page_token
            if not token:
                break
        assert len(seen) == len({one.number for one in seen}) == 9


async def test_that_the_database_is_lost_is_no_fault_of_the_token(session: AsyncSession) -> None:
    dice = random.Random(1)
    session.add_all(book(dice) for _ in range(3))
    await session.commit()
    token = (await read_page(session, select(Book), ListProductSalesRequest(page_size=1), by=[])).next_page_token
    await (await session.connection()).run_sync(Base.metadata.drop_all)
    with pytest.raises(DBAPIError):
        await read_page(session, select(Book), ListProductSalesRequest(page_token=token), by=[])


async def test_a_list_needs_columns_that_compare(session: AsyncSession) -> None:
    dice = random.Random(1)
    session.add_all(book(dice) for _ in range(3))
    await session.commit()
    with pytest.raises(Misconfigured, match="ordered by a column that holds NULL"):
        await read_page(session, select(Book), ListProductSalesRequest(page_size=1), by=[Book.note])
    with pytest.raises(Misconfigured, match="a list needs an order"):
        await read_page(session, select(Book.title), ListProductSalesRequest(), by=[])
