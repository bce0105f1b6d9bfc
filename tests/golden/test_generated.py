"""What the generated modules do when they run."""

from __future__ import annotations

import importlib
import inspect
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from ceqs.client import ContextClient
from ceqs.codegen._client import RESERVED
from ceqs.errors import Misconfigured
from ceqs.model import Decision, Reaction, Rejected, decide
from ceqs.v1.events_pb2 import RecordedEvent

CTX = Decision(time_ns=1_000_000_000, new_id=lambda: "id")


@pytest.fixture
def load(made: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(made))
    return importlib.import_module


def doc(thing: object) -> str:
    return inspect.getdoc(thing) or ""


def lending(load: Any) -> tuple[ModuleType, ModuleType, Any]:
    """Give the modules of the case, and a context with tiny handlers."""
    pb, bases = load("golden.lending.v1.in_pb2"), load("golden.lending.v1.lending_ceqs")

    class Loans(bases.LoanFoldBase):  # type: ignore[misc, name-defined]
        def on_book_lent(self, loan: Any, event: Any) -> None:
            loan.member_id = event.member_id

        def on_book_returned(self, loan: Any, event: Any) -> None:
            loan.member_id = ""

    class Reservations(bases.ReservationsFoldBase):  # type: ignore[misc, name-defined]
        def on_book_reserved(self, reservations: Any, event: Any) -> None:
            reservations.of_book += 1

        def on_book_lent(self, reservations: Any, event: Any) -> None:
            reservations.of_book -= 1

    class Register(bases.RegisterFoldBase):  # type: ignore[misc, name-defined]
        def on_book_registered(self, register: Any, event: Any) -> None:
            register.last_number = event.number

    class Lending(bases.LoanCommands):  # type: ignore[misc, name-defined]
        def lend_book(self, request: Any, loan: Any, ctx: Decision) -> Any:
            if loan.member_id:
                raise Rejected("BOOK_LENT")
            yield pb.BookLent(book_id=request.book_id, member_id=request.member_id, due_at=ctx.now)
            return pb.LendBookResponse(due_at=ctx.now)

        def return_book(self, request: Any, loan: Any, ctx: Decision) -> Any:
            yield pb.BookReturned(book_id=request.book_id)

        def reserve_book(self, request: Any, reservations: Any, ctx: Decision) -> Any:
            return [pb.BookReserved(book_id=request.book_id, member_id=request.member_id)]

    class Registering(bases.RegisterCommands):  # type: ignore[misc, name-defined]
        def register_book(self, request: Any, register: Any, ctx: Decision) -> Any:
            yield pb.BookRegistered(book_id=request.book_id, number=register.last_number + 1)

    class Borrowed(bases.BorrowedProjection):  # type: ignore[misc, name-defined]
        async def on_book_lent(self, session: Any, event: Any, meta: Any) -> None: ...

    class Readers(bases.ReadersProjection):  # type: ignore[misc, name-defined]
        async def on_book_lent(self, session: Any, event: Any, meta: Any) -> None: ...

    class Telling(bases.LendingPublisher):  # type: ignore[misc, name-defined]
        def on_book_returned(self, event: Any, ctx: Reaction) -> Iterator[Any]:
            yield pb.BookAvailable(book_id=event.book_id)

    class Earlier(bases.LendingUpcasters):  # type: ignore[misc, name-defined]
        def book_lent_v1(self, earlier: Any) -> Any:
            return pb.BookLent(member_id=earlier.member_id)

        def book_taken(self, earlier: Any) -> Any:
            return pb.BookLent(book_id=earlier.card)

    class EarlierNews(bases.LendingPublicUpcasters):  # type: ignore[misc, name-defined]
        def book_available_v1(self, earlier: Any) -> Any:
            return pb.BookAvailable(shelf_ids=[earlier.shelf_id])

    class Answers(bases.LoanQueries):  # type: ignore[misc, name-defined]
        async def describe_loan(self, request: Any, loan: Any) -> Any: ...
        async def follow_loan(self, request: Any, loan: Any) -> Any: ...

    class Reports(bases.ReportQueries):  # type: ignore[misc, name-defined]
        async def list_borrowed(self, request: Any, session: Any) -> Any: ...
        async def watch_borrowed(self, request: Any, session: Any) -> Any: ...
        async def list_readers(self, request: Any, session: Any) -> Any: ...
        async def get_report(self, request: Any) -> Any: ...

    context = bases.LendingContext(
        commands=[Lending(), Registering()],
        folds=[Loans(), Reservations(), Register()],
        projections=[Borrowed(), Readers()],
        publishers=[Telling()],
        upcasters=[Earlier(), EarlierNews()],
        queries=[Answers(), Reports()],
    )
    return pb, bases, context


def test_a_context_decides_and_folds_with_the_generated_bases(load: Any) -> None:
    pb, _, context = lending(load)
    request = pb.LendBookRequest(book_id="b", member_id="m")
    rpc = context.contract.command_of(request)
    loan = context.folders["Loan"].initial({"book": "b"})
    decided = decide(context.contract, rpc, context.method(rpc), request, loan, CTX)
    assert decided.events == (pb.BookLent(book_id="b", member_id="m", due_at=CTX.now),)
    assert decided.response == pb.LendBookResponse(due_at=CTX.now)
    context.folders["Loan"].apply(loan, decided.events[0])
    assert loan == pb.Loan(book_id="b", member_id="m")
    with pytest.raises(Rejected, match="BOOK_LENT"):
        decide(context.contract, rpc, context.method(rpc), request, loan, CTX)


def test_the_generated_upcasters_are_those_that_the_context_reads_by(load: Any) -> None:
    pb, _, context = lending(load)
    found = context.decoder
    assert found.newest(pb.BookLent.V1(member_id="m")) == pb.BookLent(member_id="m")
    assert found.newest(pb.BookTaken(card="b")) == pb.BookLent(book_id="b")
    assert found.newest(pb.BookAvailable.V1(shelf_id="s")) == pb.BookAvailable(shelf_ids=["s"])
    assert set(context.contract.recorded) - set(context.contract.events) == {"golden.lending.v1.BookTaken"}


def test_a_package_may_hand_its_context_on_to_the_next_one(load: Any) -> None:
    old, pb = load("golden.moved.v1.first_pb2"), load("golden.moved.v2.in_pb2")
    bases = load("golden.moved.v2.moved_ceqs")

    class Earlier(bases.MovedUpcasters):  # type: ignore[misc, name-defined]
        def v1_order_placed_v1(self, earlier: Any) -> Any:
            return old.OrderPlaced(order_id=str(earlier.number))

        def v1_order_placed(self, earlier: Any) -> Any:
            return pb.OrderPlaced(order_id=earlier.order_id, currency="GBP")

    decoder = bases.MovedContext(upcasters=[Earlier()]).decoder
    payload = old.OrderPlaced.V1(number=7).SerializeToString()
    recorded = RecordedEvent(type="golden.moved.v1.OrderPlaced", schema_version=1, payload=payload)
    assert decoder.decode(recorded) == pb.OrderPlaced(order_id="7", currency="GBP")


def test_the_context_finds_the_method_of_each_rpc_that_needs_code(load: Any) -> None:
    _, _, context = lending(load)
    rpcs = (*context.contract.commands.values(), *context.contract.queries.values())
    assert {rpc.method: getattr(context.method(rpc), "__name__", None) for rpc in rpcs} == {
        rpc.method: None if rpc.method in ("get_loan", "watch_loan") else rpc.method for rpc in rpcs
    }


def test_a_handler_hears_what_it_overrides_and_a_misspelt_method_is_named(load: Any) -> None:
    pb, bases, context = lending(load)
    assert list(context.publishers["telling"].ceqs_heard()) == ["golden.lending.v1.BookReturned"]

    class Misspelt(bases.LendingSubscriber):  # type: ignore[misc, name-defined]
        def on_book_availabel(self, event: Any, ctx: Any) -> Any:
            yield pb.ReturnBookRequest()

    with pytest.raises(Misconfigured, match=r"did you mean on_book_available\?"):
        Misspelt().ceqs_heard()


def test_a_base_with_a_missing_method_makes_no_handler(load: Any) -> None:
    _, bases, _ = lending(load)

    class Half(bases.LoanFoldBase):  # type: ignore[misc, name-defined]
        def on_book_lent(self, loan: Any, event: Any) -> None: ...

    with pytest.raises(TypeError, match="on_book_returned"):
        Half()


def test_comments_become_docstrings_whatever_they_contain(load: Any) -> None:
    bases = load("golden.comments.v1.comments_ceqs")
    client = load("golden.comments.v1.comments_client").CommentsClient
    assert bases.NoteCommands.__doc__.strip() == (
        'A service with """triple quotes""" and a \\backslash, ending with a "quote"'
    )
    for described in (bases.NoteCommands.write_note, client.write_note):
        assert doc(described) == (
            "First line.\n\n  Indented, after an empty line: C:\\new\\table \\N{BULLET} \\u00e9 'single'.\n\""
        )
    assert doc(bases.NoteCommands.erase_note) == ("A block comment,\nwith stars,\nends with a backslash \\")
    assert "buf:lint" not in doc(bases.NoteCommands.burn_note)
    assert doc(bases.NoteFoldBase.on_note_written).strip() == '"""'
    assert doc(bases.NoteFoldBase.on_note_erased) == "A trailing comment."
    assert doc(bases.NoteFoldBase.on_note_burnt).startswith("Ünïcödé, 事件, 🙂, a")
    assert doc(bases.NoteFoldBase.on_note_lost) == "\\"


def test_names_that_mean_something_in_python_are_called_with_an_underscore(load: Any) -> None:
    bases = load("golden.keywords.v1.odd_names_ceqs")
    client = load("golden.keywords.v1.odd_names_client").OddNamesClient
    assert {rpc.method for rpc in bases.CONTRACT.commands.values()} == {"import_", "close"}
    assert callable(bases.ClassCommands.import_)
    assert client.close is ContextClient.close
    assert {"import_", "close_", "events_", "lambda_", "float_"} <= vars(client).keys()


async def test_no_method_of_a_client_hides_what_its_base_has() -> None:
    async with ContextClient("localhost:1") as client:
        names = {*dir(ContextClient), *vars(client)}
    assert {name for name in names if not name.startswith(("_", "ceqs_"))} <= RESERVED


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("golden.lending.v1.lending_client", ["sqlalchemy", "nats", "protovalidate", "aiosqlite", "asyncpg"]),
        ("golden.lending.v1.lending_ceqs", ["sqlalchemy", "nats", "aiosqlite", "asyncpg"]),
    ],
)
def test_generated_modules_can_be_imported_where_the_server_is_not_installed(
    module: str, absent: list[str], made: Path
) -> None:
    script = (
        "import sys, importlib\n"
        f"sys.path.insert(0, {str(made)!r})\n"
        f"sys.modules.update(dict.fromkeys({absent!r}))\n"  # None in sys.modules: ImportError
        f"importlib.import_module({module!r})\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
