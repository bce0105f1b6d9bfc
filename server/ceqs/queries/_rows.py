"""The rows of a keyed model, as queries read them: one by its key, some by the model's columns, a list in pages."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Generic, TypeVar, cast

import sqlalchemy as sa
from google.protobuf.message import Message
from sqlalchemy.ext.asyncio import AsyncSession

from ceqs.contract import PAGING, Column, KeyedModel, QueryRpc, prefix, tags_of
from ceqs.errors import Invalid, Misconfigured, Violation
from ceqs.model import Key
from ceqs.projectors import MESSAGE, read_rows, stored, table_of
from ceqs.queries._pages import Page, read_page

M = TypeVar("M", bound=Message)

_ORDER = re.compile(r"\s*(\w+)(?:\s+(asc|desc))?\s*")


class Rows(Generic[M]):
    """The rows of a keyed model, all as of one moment.

    Rows are found and ordered by the fields that the contract indexes, and by the key.
    """

    def __init__(self, model: KeyedModel, session: AsyncSession) -> None:
        self._model = model
        self._session = session
        self._table = table_of(model)

    async def get(self, key: Key) -> M | None:
        """Give the row of a key; None where there is none."""
        found = await read_rows(await self._session.connection(), self._model, [key])
        return self._parsed(found[key]) if found else None

    async def where(self, *, order_by: str = "", limit: int | None = None, **equal: object) -> Sequence[M]:
        """Give the rows whose fields have these values: of a list of values, any.

        `order_by` names fields, `"status, lent_at desc"`; rows that it does not tell apart are in the order of their
        keys. Raises Invalid where it names a field without an index.
        """
        rows = self._select(equal.items()).order_by(*self._ordering(order_by)).limit(limit)
        return [self._parsed(message) for message in await self._session.scalars(rows)]

    async def count(self, **equal: object) -> int:
        """Say how many rows there are whose fields have these values."""
        counted = sa.select(sa.func.count()).select_from(self._select(equal.items()).subquery())
        return (await self._session.execute(counted)).scalar_one()

    async def page(self, request: Any, *, order_by: str = "", **equal: object) -> Page[M]:
        """Give the page of these rows that a request asks for by `page_size` and `page_token`; see `read_page`."""
        page = await read_page(self._session, self._select(equal.items()), request, by=self._ordering(order_by))
        return Page([self._parsed(message) for message in page.rows], page.next_page_token)

    async def listed(self, rpc: QueryRpc, request: Message) -> bytes:
        """Give the response to a query that lists rows, without code, as bytes."""
        fields = rpc.request.DESCRIPTOR.fields_by_name
        wanted = [(name, _given(request, name)) for name in fields if name not in PAGING]
        rows = self._select((name, value) for name, value in wanted if value is not None)
        by = self._ordering(getattr(request, "order_by", ""))
        page = await read_page(self._session, rows, request, by=by)
        response = rpc.response.DESCRIPTOR.fields_by_name
        number, token = response[rpc.list_field].number, page.next_page_token.encode()
        parts = [part for message in page.rows for part in (prefix(number, len(message)), message)]
        if token:
            parts += [prefix(response["next_page_token"].number, len(token)), token]
        return b"".join(parts)

    def _parsed(self, message: bytes) -> M:
        return cast("M", self._model.message.FromString(message))

    def _select(self, equal: Iterable[tuple[str, object]]) -> sa.Select[bytes]:
        return sa.select(self._table.c[MESSAGE]).where(*(self._condition(name, value) for name, value in equal))

    def _condition(self, name: str, value: object) -> Any:
        kind = self._columns[name].kind if name in self._columns else None
        if kind is None:
            raise Misconfigured(f"{self._model.name} has no index of {name!r}; there is {', '.join(self._columns)}")
        column = self._table.c[name]
        if isinstance(value, Collection) and not isinstance(value, str):
            return column.in_([stored(kind, one) for one in cast("Collection[object]", value)])
        return column == stored(kind, value)

    def _ordering(self, order_by: str) -> Sequence[Any]:
        chosen: dict[str, Any] = {}
        for part in order_by.split(",") if order_by.strip() else ():
            found = _ORDER.fullmatch(part)
            if found is None or found[1] not in self._columns:
                wrong = f"{part.strip()!r} is none of {', '.join(self._columns)}, with or without desc"
                raise Invalid(violations=[Violation("order_by", wrong)])
            column = self._table.c[found[1]]
            chosen.setdefault(found[1], column.desc() if found[2] == "desc" else column)
        chosen.setdefault(self._model.key_field, self._table.c[self._model.key_field])
        return list(chosen.values())

    @property
    def _columns(self) -> Mapping[str, Column]:
        return {column.field: column for column in self._model.columns}


def asked_tag(rpc: QueryRpc, model: KeyedModel, request: Message) -> str:
    """Give the tag of the row that a request asks for: `book:1`.

    Raises Invalid, naming the field, where it says none.
    """
    fields = [tag for tag in rpc.tags if tag.key == model.key]
    for tag in tags_of(request, fields):
        return tag
    raise Invalid(violations=[Violation(fields[0].field, f"must have a value: it says which {model.key} is meant")])


def row_response(rpc: QueryRpc, row: bytes | None) -> Message:
    """Give the response that holds a row, or nothing."""
    if row is None:
        return rpc.response()
    number = rpc.response.DESCRIPTOR.fields_by_name[rpc.row_field].number
    return rpc.response.FromString(prefix(number, len(row)) + row)


def _given(request: Message, name: str) -> Any:
    """Give what a request says by a field; None where it says nothing."""
    field = request.DESCRIPTOR.fields_by_name[name]
    value = getattr(request, name)
    if field.has_presence and not field.is_repeated:
        return value if request.HasField(name) else None
    return list(value) or None if field.is_repeated else value or None
