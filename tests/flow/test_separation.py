"""A query moves from a state to a projection while an old client goes on asking.

The order of the move: the projectors of the new build first, which fill the new model while the old server still
answers from the state; the servers as soon as it answers.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from tests.ports import free_address

from ceqs.codegen import generate
from ceqs.contract import decode_token
from ceqs.errors import Behind
from ceqs.projectors import ModelReader, places_of
from ceqs.testing import eventually

KEY = "the key of the shelf"
CONTRACT = """// A shelf.
syntax = "proto3";

package shelf.v1;

import "ceqs/v1/answers.proto";
import "ceqs/v1/options.proto";

// Lends.
service ShelfCommandsService {
  // Lends a book.
  rpc LendBook(LendBookRequest) returns (LendBookResponse) {
    option (ceqs.v1.command).state = "Book";
  }
}

// Tells.
service ShelfQueriesService {
  // Says how often a book was lent.
  rpc GetBook(GetBookRequest) returns (GetBookResponse) {
    option (ceqs.v1.query).state = "Book";
  }
}

// A book.
message Book {
  option (ceqs.v1.state) = {
    boundary: ["book"]
    folds: ["BookLent"]
  };
  // Which.
  string book_id = 1 [(ceqs.v1.field).tag = "book"];
  // How often it was lent.
  int64 times = 2;
}

// A book was lent.
message BookLent {
  option (ceqs.v1.event) = {};
  // Which.
  string book_id = 1 [(ceqs.v1.field).tag = "book"];
}

// Asks to lend a book.
message LendBookRequest {
  // Which.
  string book_id = 1 [(ceqs.v1.field).tag = "book"];
}

// It is lent.
message LendBookResponse {
  // The proof.
  ceqs.v1.Receipt receipt = 1;
}

// Asks for a book.
message GetBookRequest {
  // Which.
  string book_id = 1 [(ceqs.v1.field).tag = "book"];
}

// A book.
message GetBookResponse {
  // The book.
  Book book = 1;
}
"""
FROM_STATE = """
from shelf.v1.shelf_ceqs import BookFoldBase, ShelfCommands, ShelfContext
from shelf.v1.shelf_pb2 import BookLent


class Fold(BookFoldBase):
    def on_book_lent(self, book, event):
        book.times += 1


class Commands(ShelfCommands):
    def lend_book(self, request, book, ctx):
        yield BookLent(book_id=request.book_id)


shelf = ShelfContext(commands=Commands(), folds=[Fold()])
"""
FROM_PROJECTION = (
    FROM_STATE.rpartition("\n\n\n")[0]
    + """


import sqlalchemy as sa
from shelf.v1.shelf_ceqs import LoansProjection, ShelfQueries
from shelf.v1.shelf_pb2 import Book, GetBookResponse

METADATA = sa.MetaData()
BOOK_ID, TIMES = sa.Column("book_id", sa.String, primary_key=True), sa.Column("times", sa.BigInteger)
LOANS = sa.Table("loans", METADATA, BOOK_ID, TIMES)


class Loans(LoansProjection):
    metadata = METADATA

    async def on_book_lent(self, session, event, meta):
        same = LOANS.c.book_id == event.book_id
        if not (await session.execute(sa.update(LOANS).where(same).values(times=LOANS.c.times + 1))).rowcount:
            await session.execute(sa.insert(LOANS).values(book_id=event.book_id, times=1))


class Queries(ShelfQueries):
    async def get_book(self, request, session):
        row = (await session.execute(sa.select(LOANS).where(LOANS.c.book_id == request.book_id))).one()
        return GetBookResponse(book=Book(book_id=row.book_id, times=row.times))


shelf = ShelfContext(commands=Commands(), folds=[Fold()], projections=[Loans()], queries=Queries())
"""
)


FROM_KEYED_MODEL = (
    FROM_STATE.rpartition("\n\n\n")[0]
    + """


from shelf.v1.shelf_ceqs import BookProjection


class Books(BookProjection):
    def on_book_lent(self, book, event, meta):
        book.times += 1


shelf = ShelfContext(commands=Commands(), folds=[Fold()], projections=[Books()])
"""
)
OPTION = '(ceqs.v1.query).state = "Book"'
TO_TABLES = {OPTION: '(ceqs.v1.query).projection = "Loans"'}
TO_KEYED_MODEL = {
    OPTION: '(ceqs.v1.query).projection = "Book"',
    "message Book {\n": """message Book {
  option (ceqs.v1.model) = {
    key: "book"
    folds: ["BookLent"]
  };
""",
}
"""What is said otherwise in the contract."""


class Build:
    """A build of the shelf, whose processes share address and data with those of the other."""

    def __init__(self, directory: Path, name: str, contract: str, code: str, address: str) -> None:
        self.generated = directory / name / "generated"
        proto = directory / name / "proto/shelf/v1/shelf.proto"
        proto.parent.mkdir(parents=True)
        proto.write_text(contract)
        generate(directory / name / "proto", self.generated)
        (directory / name / "handlers.py").write_text(code)
        self._directory = directory / name
        self._env = {
            **{key: value for key, value in os.environ.items() if not key.startswith("CEQS_")},
            "PYTHONPATH": os.pathsep.join([str(self.generated), str(self._directory)]),
            "CEQS_CONTEXTS": "handlers:shelf",
            "CEQS_ADDRESSES": f"shelf={address}",
            "CEQS_DATA": str(directory / "data"),
            "CEQS_KEY": KEY,
            # Nobody is there: projectors ask the server for what is new.
            "CEQS_NATS_URL": "nats://127.0.0.1:1",
            "CEQS_GRACE": "1",
        }

    @asynccontextmanager
    async def running(self, role: str) -> AsyncIterator[asyncio.subprocess.Process]:
        with (self._directory / f"{role}.log").open("w") as log:
            process = await asyncio.create_subprocess_exec(
                *[sys.executable, "-m", "ceqs.cli", role], env=self._env, cwd=self._directory, stdout=log, stderr=log
            )
        try:
            yield process
        finally:
            with suppress(ProcessLookupError):
                process.terminate()
                process.send_signal(signal.SIGCONT)
            await process.wait()


@pytest.mark.parametrize(
    ("name", "changes", "code"),
    [("Loans", TO_TABLES, FROM_PROJECTION), ("Book", TO_KEYED_MODEL, FROM_KEYED_MODEL)],
    ids=["tables", "keyed model"],
)
async def test_an_old_client_sees_neither_an_error_nor_an_older_answer(
    name: str, changes: dict[str, str], code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = free_address()
    moved = CONTRACT
    for said, instead in changes.items():
        assert said in moved
        moved = moved.replace(said, instead)
    old = Build(tmp_path, "old", CONTRACT, FROM_STATE, address)
    new = Build(tmp_path, "new", moved, code, address)
    monkeypatch.syspath_prepend(str(old.generated))
    messages: Any = importlib.import_module("shelf.v1.shelf_pb2")
    client: Any = importlib.import_module("shelf.v1.shelf_client").ShelfClient(address, timeout=60)
    writer: Any = importlib.import_module("shelf.v1.shelf_client").ShelfClient(address, timeout=60)
    answers: list[tuple[int, int]] = []
    lent = 0
    stop = asyncio.Event()

    async def lend() -> None:
        """The clients that write know nothing of the one that asks."""
        nonlocal lent
        while not stop.is_set():
            await writer.lend_book(messages.LendBookRequest(book_id="1"))
            lent += 1
            await asyncio.sleep(0.005)

    async def ask() -> None:
        while not stop.is_set():
            answer = await client.get_book(messages.GetBookRequest(book_id="1"))
            (position,) = decode_token(answer.age.token).values()
            answers.append((position, answer.message.book.times))
            await asyncio.sleep(0)

    def asked_again(count: int = 20) -> Any:
        wanted = len(answers) + count
        return eventually(lambda: len(answers) >= wanted or any(one.done() for one in asking), 60)

    async with writer, client, AsyncExitStack() as projectors:
        asking: list[asyncio.Task[None]] = []
        async with old.running("serve"):
            for _ in range(300):
                await writer.lend_book(messages.LendBookRequest(book_id="1"))
            asking = [asyncio.create_task(lend()), asyncio.create_task(ask())]
            await asked_again()
            projector = await projectors.enter_async_context(new.running("project"))
            reader = ModelReader(places_of(f"sqlite:///{tmp_path}/data/models", "shelf", name))
            assert await reader.wait(300, 60)
            await reader.close()
            # At the worst moment, the new model is behind what the client has seen.
            projector.send_signal(signal.SIGSTOP)
            await asked_again()
        async with new.running("serve"):
            before = lent
            await eventually(lambda: lent > before + 5 or asking[0].done(), 60)
            with pytest.raises(Behind, match=f"{name} stands at position"):
                await client.get_book(messages.GetBookRequest(book_id="1"), timeout=1)
            projector.send_signal(signal.SIGCONT)
            await asked_again(50)
            stop.set()
            await asyncio.gather(*asking)
    assert answers == sorted(answers)
    # Every event is about this book, so the age is the answer.
    assert all(position == times for position, times in answers)
