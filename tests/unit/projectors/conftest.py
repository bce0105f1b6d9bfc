"""Two contexts over real gRPC: a library, and readers who hear of it."""

from __future__ import annotations

import asyncio
import contextlib
import copy
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import sqlalchemy as sa
import structlog
from google.protobuf import descriptor_pool
from google.protobuf.message_factory import GetMessageClass
from sqlalchemy.dialects import sqlite

from ceqs.codegen._image import build_image
from ceqs.contract import bucket_of, messages, new_id, read_contract, tags_of
from ceqs.log import Entry, Log, NewEvent, open_log
from ceqs.model import (
    CommandHandler,
    Context,
    Fold,
    PrivateHearing,
    PublicHearing,
    Publisher,
    QueryHandler,
    Rejected,
    Subscriber,
    TableProjection,
)
from ceqs.projectors import ModelReader, Projector, ProjectorSettings, place_of, places_of
from ceqs.projectors import _tail as tail
from ceqs.server import Served, Server, ServerSettings
from ceqs.v1.events_pb2 import RecordedEvent

KEY = "the key"
# The default renderer draws tracebacks with every local variable, which takes seconds of the event loop's time.
structlog.configure(
    processors=[
        structlog.processors.add_log_level,
        structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback),
    ]
)
BOOKS = sa.MetaData()
SHELF = sa.Table(
    "shelf",
    BOOKS,
    sa.Column("book_id", sa.String, primary_key=True),
    sa.Column("acquired", sa.Integer, nullable=False),
    sa.Column("position", sa.BigInteger, nullable=False),
)


@pytest.fixture(scope="session")
def readers(library: Any) -> Any:
    """The messages of readers.v1 by name, and `contract`."""
    name = "readers/v1/readers.proto"
    pool = descriptor_pool.Default()
    for proto in build_image(Path(__file__).parent / "protos", [name]).file:
        with contextlib.suppress(TypeError):
            pool.AddSerializedFile(proto.SerializeToString())
    file = pool.FindFileByName(name)
    classes = {descriptor.name: GetMessageClass(descriptor) for descriptor in messages(file)}
    return SimpleNamespace(**classes, contract=read_contract(file))


class Shelf(TableProjection):
    """Counts how often each book was acquired. `before` may fail, or wait."""

    ceqs_projection = "Shelf"
    metadata = BOOKS

    def __init__(self) -> None:
        self.before: Callable[[Any, Any], Any] = lambda event, meta: None

    async def on_book_acquired(self, session: Any, event: Any, meta: Any) -> None:
        self.before(event, meta)
        row = {"book_id": event.book_id, "acquired": 1, "position": meta.position}
        again = {"acquired": SHELF.c.acquired + 1, "position": meta.position}
        if session.get_bind().dialect.name == "sqlite":
            await session.execute(sqlite.insert(SHELF).values(row).on_conflict_do_update(["book_id"], set_=again))
        elif not (
            await session.execute(sa.update(SHELF).where(SHELF.c.book_id == event.book_id).values(again))
        ).rowcount:
            await session.execute(sa.insert(SHELF).values(row))


@dataclass
class World:
    """The library and the readers, as servers on loopback."""

    library: Any
    readers: Any
    models_url: str
    logs: dict[str, Log] = field(default_factory=dict)
    servers: dict[str, Server] = field(default_factory=dict)
    contexts: dict[str, Context] = field(default_factory=dict)
    projectors: list[asyncio.Task[None]] = field(default_factory=list)
    ports: dict[str, int] = field(default_factory=dict)
    shelf: Shelf = field(default_factory=Shelf)

    async def start(self, context: Context) -> None:
        """Serve a context, on its first port again where it was stopped."""
        name = context.name
        if name not in self.logs:
            self.logs[name] = await open_log("memory:", name)
        self.contexts[name] = context
        settings = ServerSettings(key=KEY, grace=0, port=self.ports.get(name, 0))
        server = Server([Served(context, self.logs[name], dict.fromkeys(context.projections))], settings)  # type: ignore[arg-type]
        await server.start()
        self.servers[name], self.ports[name] = server, server.port

    async def stop(self, name: str) -> None:
        await self.servers.pop(name).stop()

    def context_of(self, version: int) -> Context:
        """Give the library's context as a build has it whose shelf is of a version."""
        shelf = Shelf()
        shelf.version = version  # type: ignore[misc]
        context = copy.copy(self.contexts["library"])
        context.projections = {"Shelf": shelf}
        return context

    async def acquire(self, *books: str, depth: int = 0) -> None:
        """Record acquisitions in the library's log."""
        await self.record(*[self.library.BookAcquired(book_id=book, title="t") for book in books], depth=depth)

    async def record(self, *recorded: Any, depth: int = 0) -> None:
        contract = self.library.contract
        for first in range(0, len(recorded), 100):
            events = []
            for message in recorded[first : first + 100]:
                kind = contract.events.get(message.DESCRIPTOR.full_name)
                tags = tags_of(message, kind.tags) if kind else ()
                events.append(
                    NewEvent(
                        id=new_id(),
                        type=message.DESCRIPTOR.full_name,
                        payload=message.SerializeToString(),
                        tags=tags,
                        public=bool(kind and kind.public),
                        bucket=bucket_of(kind, tags) if kind else 0,
                    )
                )
            entry = Entry(command_id=new_id(), correlation_id="why", causation_depth=depth, events=tuple(events))
            await self.logs["library"].append(entry)

    def project(self, context: Context, *, nats_url: str = "", **changed: Any) -> Projector:
        """Run a projector in the background."""
        addresses = {name: f"127.0.0.1:{port}" for name, port in self.ports.items()}
        options: dict[str, Any] = {"addresses": addresses, "models_url": self.models_url, "key": KEY}
        projector = Projector(context, ProjectorSettings(**options | {"nats_url": nats_url} | changed))
        self.projectors.append(asyncio.create_task(projector.run()))
        return projector

    async def halt(self) -> None:
        """End every projector."""
        running, self.projectors = self.projectors, []
        for task in running:
            task.cancel()
        for task in running:
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def rows(self, version: int = 1, generation: int = 1) -> dict[str, int]:
        """Give how often each book was acquired, as a place of the shelf has it."""
        reader = ModelReader(place_of(self.models_url, "library", "Shelf", version, generation))
        try:
            async with reader.session() as (session, _):
                return {row.book_id: row.acquired for row in await session.execute(sa.select(SHELF))}
        finally:
            await reader.close()

    async def reaches(self, position: int, name: str = "Shelf", context: str = "library", within: float = 30) -> None:
        """Wait until a projection answers with a position, or another handler's place has it."""
        projection = name in self.contexts[context].projections
        reader = ModelReader((places_of if projection else place_of)(self.models_url, context, name))
        try:
            assert await reader.wait(position, within), f"{name} has not reached {position} within {within} s"
        finally:
            await reader.close()

    async def events(self, name: str, *types: str) -> list[RecordedEvent]:
        """Give every event of a log, or those of the types."""
        log, found, after = self.logs[name], [], 0
        while events := (part := await log.read(after=after)).events:
            found += [RecordedEvent.FromString(event.envelope) for event in events]
            after = part.through
        return [event for event in found if not types or event.type.rpartition(".")[2] in types]


@pytest.fixture
async def world(library: Any, readers: Any, tmp_path: Path) -> AsyncIterator[World]:
    world = World(library, readers, f"sqlite:///{tmp_path}/models")
    yield world
    await world.halt()
    for name in list(world.servers):
        await world.stop(name)
    for log in world.logs.values():
        await log.close()


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look at the log often, also while JetStream is connected."""
    monkeypatch.setattr(tail, "LOOK_LIVE", 0.05)
    monkeypatch.setattr(tail, "LOOK_DEAF", 0.02)


@pytest.fixture
def library_context(library: Any) -> Callable[..., Context]:
    """Make the context of the library. LendBook is rejected for the member "nobody"."""

    class Lending(CommandHandler):
        ceqs_service = "library.v1.LendingCommandsService"

        def acquire_book(self, request: Any, book: Any, ctx: Any) -> Iterator[Any]:
            yield library.BookAcquired(book_id=request.book_id, title=request.title)

        def lend_book(self, request: Any, loans: Any, ctx: Any) -> Iterator[Any]:
            if "nobody" in request.member_ids:
                raise Rejected("NO_MEMBER", "nobody is no member")
            yield library.BookLent(book_id=request.book_id, member_id=request.member_ids[0])

        def close_library(self, request: Any, state: Any, ctx: Any) -> Iterator[Any]:
            yield library.LibraryClosed()

    class Asking(QueryHandler):
        ceqs_service = "library.v1.LendingQueriesService"

        async def count_loans(self, request: Any, loans: Any) -> Any:
            return library.CountLoansResponse(count=loans.count)

        async def list_shelf(self, request: Any, session: Any) -> Any:
            return library.ListShelfResponse()

    class LibraryContext(Context):
        ceqs_contract = library.contract

    def make(shelf: Shelf, **handlers: Any) -> Context:
        folds = [fold_of(library, name) for name in ("Book", "Loans", "Library")]
        Shelf.ceqs_contract = library.contract
        return LibraryContext(commands=Lending(), folds=folds, queries=Asking(), projections=[shelf], **handlers)

    return make


@pytest.fixture
def readers_context(readers: Any) -> Callable[..., Context]:
    """Make the context of the readers."""

    class Wishes(CommandHandler):
        ceqs_service = "readers.v1.WishesCommandsService"

        def note_offer(self, request: Any, wish: Any, ctx: Any) -> Iterator[Any]:
            if request.book_id.startswith("bad"):
                raise Rejected("NOT_WANTED", "not wanted")
            yield readers.OfferNoted(book_id=request.book_id)

    class ReadersContext(Context):
        ceqs_contract = readers.contract

    def make(**handlers: Any) -> Context:
        return ReadersContext(commands=Wishes(), folds=[fold_of(readers, "Wish")], **handlers)

    return make


def fold_of(contract: Any, state: str) -> Fold:
    """Make a fold that changes nothing: none of these tests asks a state."""
    heard = {event.handler: lambda self, state, event: None for event in contract.contract.states[state].folds}
    fold: Fold = type(f"{state}Fold", (Fold,), {"ceqs_contract": contract.contract, "ceqs_state": state, **heard})()
    return fold


@pytest.fixture
def offering(library: Any) -> Publisher:
    """A publisher of the library: every acquired book is offered."""

    class OfferBooks(Publisher):
        ceqs_contract = library.contract

        def on_book_acquired(self, event: Any, ctx: Any) -> Iterator[Any]:
            yield library.BookOffered(book_id=event.book_id)

    return OfferBooks()


@pytest.fixture
def noting(library: Any, readers: Any) -> Subscriber:
    """A subscriber of the readers: every offer of the library is noted."""

    class NoteOffers(PublicHearing, Subscriber):
        ceqs_contract = library.contract

        def on_book_offered(self, event: Any, ctx: Any) -> Iterator[Any]:
            yield readers.NoteOfferRequest(book_id=event.book_id)

    return NoteOffers()


@pytest.fixture
def lending(library: Any) -> Subscriber:
    """A subscriber of the library's own private events: every acquired book is lent to the member in its title."""

    class LendAtOnce(PrivateHearing, Subscriber):
        ceqs_contract = library.contract

        def on_book_acquired(self, event: Any, ctx: Any) -> Iterator[Any]:
            yield library.LendBookRequest(book_id=event.book_id, member_ids=[event.title])

    return LendAtOnce()
