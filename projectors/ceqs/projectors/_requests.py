"""What operators ask of the worker of a place: left where it looks, done by it alone.

A place has one writer. A request waits in a table of the place where that is PostgreSQL, and in a file beside it where
it is SQLite, which may lose a file that two connections write. It is gone when it has been done.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from ceqs.contract import new_id
from ceqs.projectors._place import Place, dispose
from ceqs.projectors._tables import REQUESTS


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """To try a parked event or a refused call again, or to go on without it."""

    verb: Literal["retry", "skip"]
    position: int = 0
    """Of the event."""
    call: int = 0
    """The number of the call, instead of an event."""
    actor: str
    why: str = ""


async def ask(place: Place, request: Request) -> str:
    """Leave a request for the worker of an existing place. Give its id."""
    request_id = new_id()
    if place.path is not None:
        directory = _directory(place.path)
        directory.mkdir(exist_ok=True)
        written = directory / f"{request_id}.new"
        written.write_text(json.dumps(asdict(request)), encoding="utf-8")
        written.rename(directory / f"{request_id}.json")
        return request_id
    engine = place.writing_engine()
    try:
        async with engine.begin() as connection:
            await connection.execute(sa.insert(REQUESTS), {"id": request_id, "request": asdict(request)})
    finally:
        await dispose(engine)
    return request_id


async def asked(place: Place, connection: AsyncConnection, *, calls: bool = False) -> Sequence[tuple[str, Request]]:
    """Give the requests that wait at a place, by id, in the order in which they were made: about events, or `calls`."""
    if place.path is not None:
        files = sorted(_directory(place.path).glob("*.json"))
        found = [(file.stem, Request(**json.loads(file.read_text(encoding="utf-8")))) for file in files]
    else:
        rows = (await connection.execute(sa.select(REQUESTS).order_by(REQUESTS.c.id))).all()
        found = [(row.id, Request(**row.request)) for row in rows]
    return [(request_id, request) for request_id, request in found if bool(request.call) is calls]


async def done(place: Place, connection: AsyncConnection, request_ids: Sequence[str]) -> None:
    """Take requests away."""
    if place.path is None:
        await connection.execute(sa.delete(REQUESTS).where(REQUESTS.c.id.in_(request_ids)))
        return
    for request_id in request_ids:
        (_directory(place.path) / f"{request_id}.json").unlink(missing_ok=True)


def _directory(path: Path) -> Path:
    return path.with_name(path.name + ".requests")
