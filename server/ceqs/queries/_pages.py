"""Pages of a list (https://google.aip.dev/158): each begins after the last row of the one before, wherever that is now.

So no row comes twice and none is left out while rows are added or removed, which an offset cannot promise.
"""

from __future__ import annotations

import base64
import binascii
import datetime as dt
import decimal
import enum
import hashlib
import json
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from ceqs.errors import Invalid, Misconfigured, Violation

if TYPE_CHECKING:
    from sqlalchemy import Select, SQLColumnExpression
    from sqlalchemy.ext.asyncio import AsyncSession

T = TypeVar("T")

SIZE, MOST = 100, 1000
"""How many rows a page has where the request does not say, and at most."""


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """Some rows of a list, and the token that asks for those after them; empty on the last page."""

    rows: Sequence[T]
    next_page_token: str


async def read_page(
    session: AsyncSession,
    statement: Select[T, *tuple[Any, ...]],
    request: Any,
    *,
    by: Sequence[SQLColumnExpression[Any]],
    size: int = SIZE,
    most: int = MOST,
) -> Page[T]:
    """Give the page of a select that a request asks for by its fields `page_size` and `page_token` (AIP-158).

    `by` are the columns that order the list, `column.desc()` for a descending one; none of them is ever NULL, and
    together they tell rows apart: where the select gives entities, their primary key is added by itself. A page has
    `size` rows where the request does not say, and `most` at most. Of each row, it gives what is selected first.

    Raises Invalid for a negative size, and for a token that is none, belongs to other filters or another order, or
    holds what these columns cannot.
    """
    import sqlalchemy as sa
    from sqlalchemy.exc import StatementError

    if request.page_size < 0:
        raise Invalid(violations=[Violation("page_size", "must not be negative")])
    count = min(request.page_size or size, most)
    order = [_Key.of(column) for column in [*by, *_primary_key(statement, by)]]
    if not order:
        raise Misconfigured("a list needs an order: say `by` which columns, and let the last ones tell rows apart")
    bound = _bound(request, [str(key.column) + "-" * key.descending for key in order])
    columns = [key.column for key in order]
    page = statement.add_columns(*columns).order_by(None).order_by(*(key.ordering for key in order)).limit(count + 1)
    if request.page_token:
        page = page.where(_beyond(sa, order, _decode(request.page_token, bound, order)))
    try:
        found = (await session.execute(page)).all()
    except (StatementError, OverflowError, ValueError) as error:
        if request.page_token and _is_about_values(error):
            raise _no_token() from error
        raise
    rows = [row[0] for row in found[:count]]
    token = _encode(bound, found[count - 1][-len(columns) :]) if len(found) > count else ""
    return Page(rows, token)


@dataclass(frozen=True, slots=True)
class _Key:
    """A column of the order."""

    column: Any
    descending: bool

    @classmethod
    def of(cls, column: Any) -> _Key:
        from sqlalchemy.sql.operators import asc_op, desc_op

        modifier = getattr(column, "modifier", None)
        return cls(column.element if modifier in (asc_op, desc_op) else column, modifier is desc_op)

    @property
    def ordering(self) -> Any:
        return self.column.desc() if self.descending else self.column.asc()

    def after(self, value: Any) -> Any:
        from sqlalchemy import literal

        # As it is, SQLAlchemy compares no True with anything.
        bound = literal(value, self.column.type)
        return self.column < bound if self.descending else self.column > bound

    def holds(self, value: Any) -> bool:
        """Say whether a row may have the value in this column, as far as its type tells."""
        from sqlalchemy import TypeDecorator

        try:
            kind = object if isinstance(self.column.type, TypeDecorator) else self.column.type.python_type
        except NotImplementedError:
            kind = object
        return type(value) in ((int, float) if kind is float else (kind,)) if kind in _TYPES else True


def _primary_key(statement: Any, by: Sequence[Any]) -> list[Any]:
    """Give what of the selected entity's primary key the order lacks."""
    import sqlalchemy as sa

    first = statement.column_descriptions[0]
    entity = first.get("entity")
    if entity is None or first["expr"] is not entity:
        return []
    named = {getattr(_Key.of(column).column, "key", "") for column in by}
    mapper: Any = sa.inspect(entity)
    keys = (mapper.get_property_by_column(column).key for column in mapper.primary_key)
    return [getattr(entity, key) for key in keys if key not in named]


def _beyond(sa: Any, order: Sequence[_Key], values: Sequence[Any]) -> Any:
    """Give the condition of the rows that come after these values."""
    if len({key.descending for key in order}) == 1 and len(order) > 1:
        left, right = sa.tuple_(*(key.column for key in order)), sa.tuple_(*values)
        return left < right if order[0].descending else left > right
    steps: list[Any] = []
    for depth, key in enumerate(order):
        same = [before.column == value for before, value in zip(order[:depth], values, strict=False)]
        steps.append(sa.and_(*same, key.after(values[depth])))
    return sa.or_(*steps)


def _bound(request: Any, order: Sequence[str]) -> str:
    """Give what a token is bound to: the request without its page, and the order."""
    bare = type(request)()
    bare.CopyFrom(request)
    bare.ClearField("page_size")
    bare.ClearField("page_token")
    digest = hashlib.sha256(bare.DESCRIPTOR.full_name.encode() + b"\0" + bare.SerializeToString(deterministic=True))
    digest.update("\0".join(order).encode())
    return digest.hexdigest()[:16]


_KINDS: Mapping[str, tuple[type, Callable[[Any], Any], Callable[[Any], Any]]] = {
    "t": (dt.datetime, dt.datetime.isoformat, dt.datetime.fromisoformat),
    "d": (dt.date, dt.date.isoformat, dt.date.fromisoformat),
    "n": (decimal.Decimal, str, decimal.Decimal),
    "b": (bytes, bytes.hex, bytes.fromhex),
    "u": (uuid.UUID, str, uuid.UUID),
}
"""What JSON lacks: a value of such a kind is written as `[kind, text]`."""
_TYPES = {bool, int, float, str, *(kind for kind, _, _ in _KINDS.values())}
"""What a token holds."""


def _encode(bound: str, values: Sequence[Any]) -> str:
    raw = json.dumps([bound, *map(_plain, values)], separators=(",", ":"), ensure_ascii=False)
    return base64.urlsafe_b64encode(raw.encode()).decode().rstrip("=")


def _plain(value: Any) -> Any:
    if not isinstance(value, enum.Enum):
        if isinstance(value, bool | int | float | str):
            return value
        for kind, (type_, write, _) in _KINDS.items():
            if isinstance(value, type_):
                return [kind, write(value)]
    what = "NULL" if value is None else f"a {type(value).__name__}"
    raise Misconfigured(f"a list is ordered by a column that holds {what}; order it by columns that compare")


def _decode(token: str, bound: str, order: Sequence[_Key]) -> list[Any]:
    try:
        raw = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
        found, *values = json.loads(raw)
        decoded = [_KINDS[value[0]][2](value[1]) if isinstance(value, list) else value for value in values]
    except (
        binascii.Error,
        ValueError,
        TypeError,
        LookupError,
        ArithmeticError,
        AttributeError,
        RecursionError,
    ) as error:
        raise _no_token() from error
    if found != bound:
        wrong = "belongs to a request with other filters or in another order; leave it out for the first page"
        raise Invalid(violations=[Violation("page_token", wrong)])
    if len(decoded) != len(order) or not all(key.holds(value) for key, value in zip(order, decoded, strict=True)):
        raise _no_token()
    return decoded


def _is_about_values(error: Exception) -> bool:
    """Say whether a database refuses a statement for the values in it, which come from a token."""
    from sqlalchemy.exc import DBAPIError

    if not isinstance(error, DBAPIError):
        return True
    # SQLSTATE class 22 is "data exception"; what the driver refuses by itself has no state, and is a ValueError.
    cause = getattr(error.orig, "__cause__", None)
    return isinstance(cause, ValueError) or str(getattr(cause, "sqlstate", "")).startswith("22")


def _no_token() -> Invalid:
    return Invalid(violations=[Violation("page_token", "is no page token; leave it out for the first page")])
