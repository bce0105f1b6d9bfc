"""What is read from a contract's descriptors."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool

from ceqs.contract import (
    AGE,
    RECEIPT,
    Locking,
    Persistence,
    TagField,
    command_id_field,
    context_name,
    field_of_type,
    read_contract,
    snake,
    tag_fields,
)
from ceqs.errors import Misconfigured
from ceqs.v1 import options_pb2

PREFIX = "library.v1."


def test_the_context_is_named_by_the_package_before_its_version(library: Any) -> None:
    assert library.contract.context == "library"
    assert library.contract.package == "library.v1"


def test_events_are_read_with_their_tags_visibility_version_and_partition_key(library: Any) -> None:
    events = library.contract.events
    assert {event.name: event.public for event in events.values()} == {
        "BookAcquired": False,
        "BookLent": False,
        "LibraryClosed": False,
        "BookOffered": True,
    }
    lent = events[PREFIX + "BookLent"]
    assert lent.message is library.BookLent
    assert lent.handler == "on_book_lent"
    assert lent.tags == (TagField("book_id", "book", False), TagField("member_id", "member", False))
    assert (lent.version, lent.partition_by) == (1, "member")
    acquired = events[PREFIX + "BookAcquired"]
    assert (acquired.version, acquired.partition_by) == (1, "book")
    assert events[PREFIX + "LibraryClosed"].tags == (TagField("branch_numbers", "branch", True),)


def test_states_are_read_with_boundary_folds_and_tailoring(library: Any) -> None:
    book, loans, everything = (library.contract.states[name] for name in ("Book", "Loans", "Library"))
    assert book.boundary == ("book",)
    assert [event.name for event in book.folds] == ["BookAcquired", "BookLent"]
    assert (book.locking, book.persistence, book.snapshot_every) == (
        Locking.PESSIMISTIC,
        Persistence.STATE_STORED,
        7,
    )
    assert loans.boundary == ("book", "member")
    assert (loans.locking, loans.persistence) == (Locking.OPTIMISTIC, Persistence.EVENT_SOURCED)
    assert everything.boundary == ()
    assert loans.tags == (TagField("book_id", "book", False), TagField("member_id", "member", False))


def test_commands_are_read_by_path_with_what_the_platform_fills(library: Any) -> None:
    acquire = library.contract.commands["/library.v1.LendingCommandsService/AcquireBook"]
    assert (acquire.method, acquire.state.name) == ("acquire_book", "Book")
    assert (acquire.command_id_field, acquire.receipt_number, acquire.answers) == ("request_id", 1, True)
    lend = library.contract.commands["/library.v1.LendingCommandsService/LendBook"]
    assert (lend.command_id_field, lend.receipt_number, lend.answers) == ("", 1, False)
    assert lend.tags == (TagField("book_id", "book", False), TagField("member_ids", "member", True))
    close = library.contract.commands["/library.v1.LendingCommandsService/CloseLibrary"]
    assert (close.receipt_number, close.answers) == (0, False)
    assert library.contract.command_of(library.LendBookRequest()) is lend


def test_a_query_whose_only_own_field_is_the_state_needs_no_code(library: Any) -> None:
    queries = {query.name: query for query in library.contract.queries.values()}
    assert (queries["GetBook"].row_field, queries["GetBook"].age_field, queries["GetBook"].streaming) == (
        "book",
        "",
        False,
    )
    assert (queries["WatchBook"].row_field, queries["WatchBook"].age_field, queries["WatchBook"].streaming) == (
        "book",
        "age",
        True,
    )
    assert (queries["CountLoans"].row_field, queries["CountLoans"].state.name) == ("", "Loans")
    assert (queries["ListShelf"].state, queries["ListShelf"].projection) == (None, "Shelf")
    assert library.contract.projections == {"Shelf": "library.v1"}


def test_services_hold_commands_or_queries(library: Any) -> None:
    assert library.contract.command_services == ("library.v1.LendingCommandsService",)
    assert library.contract.query_services == ("library.v1.LendingQueriesService",)


def test_a_message_that_is_no_event_is_refused_by_name(library: Any) -> None:
    with pytest.raises(Misconfigured, match=r"library\.v1\.Book is not an event of the context 'library'"):
        library.contract.event(library.Book())
    with pytest.raises(Misconfigured, match=r"library\.v1\.Book is no command of the context 'library'"):
        library.contract.command_of(library.Book())


def test_fields_of_the_platform_are_found_by_type(library: Any) -> None:
    assert field_of_type(library.AcquireBookResponse.DESCRIPTOR, RECEIPT) == "receipt"
    assert field_of_type(library.ListShelfResponse.DESCRIPTOR, AGE) == "age"
    assert field_of_type(library.GetBookResponse.DESCRIPTOR, AGE) == ""
    assert command_id_field(library.AcquireBookRequest.DESCRIPTOR) == "request_id"
    assert tag_fields(library.BookAcquired.DESCRIPTOR) == (TagField("book_id", "book", False),)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("PlaceOrder", "place_order"),
        ("Order", "order"),
        ("ListSKUs", "list_skus"),
        ("HTTPServer", "http_server"),
        ("GetV2Order", "get_v2_order"),
        ("already_snake", "already_snake"),
    ],
)
def test_names_become_snake_case(name: str, expected: str) -> None:
    assert snake(name) == expected


def test_the_file_option_names_the_context() -> None:
    file = descriptor_pb2.FileDescriptorProto(name="named.proto", package="acme.sales.v1", syntax="proto3")
    file.dependency.append("ceqs/v1/options.proto")
    file.options.Extensions[options_pb2.context].name = "trade"
    assert context_name([_added(file)]) == "trade"


def test_a_package_of_a_version_only_names_no_context() -> None:
    file = descriptor_pb2.FileDescriptorProto(name="nameless.proto", package="v1", syntax="proto3")
    with pytest.raises(Misconfigured, match=r"nameless\.proto: the package 'v1' names no context"):
        context_name([_added(file)])


@pytest.mark.parametrize("version", ["v1", "v1beta1", "v22"])
def test_any_version_is_left_out_of_the_name(version: str) -> None:
    file = descriptor_pb2.FileDescriptorProto(name=f"{version}.proto", package=f"acme.sales.{version}", syntax="proto3")
    assert context_name([_added(file)]) == "sales"


def test_a_state_that_folds_no_event_of_the_context_is_refused() -> None:
    file = _with_state("folds_nothing")
    file.message_type[0].options.Extensions[options_pb2.state].folds.append("Unheard")
    with pytest.raises(Misconfigured, match=r"folds_nothing\.State folds Unheard, which is no event"):
        read_contract(_added(file))


def test_rpcs_that_name_no_state_of_the_context_are_refused() -> None:
    command = _with_state("lost_command")
    _rpc(command).options.Extensions[options_pb2.command].state = "Nowhere"
    with pytest.raises(Misconfigured, match="Do decides on 'Nowhere', which is no state"):
        read_contract(_added(command))
    query = _with_state("lost_query")
    _rpc(query).options.Extensions[options_pb2.query].state = "Nowhere"
    with pytest.raises(Misconfigured, match="Do reads 'Nowhere', which is no state"):
        read_contract(_added(query))


def _with_state(package: str) -> descriptor_pb2.FileDescriptorProto:
    file = descriptor_pb2.FileDescriptorProto(name=f"{package}.proto", package=package, syntax="proto3")
    file.dependency.append("ceqs/v1/options.proto")
    state = file.message_type.add(name="State")
    state.options.Extensions[options_pb2.state].boundary.append("thing")
    return file


def _rpc(file: descriptor_pb2.FileDescriptorProto) -> descriptor_pb2.MethodDescriptorProto:
    kind = f".{file.package}.State"
    return file.service.add(name="Service").method.add(name="Do", input_type=kind, output_type=kind)


def _added(file: descriptor_pb2.FileDescriptorProto) -> Any:
    pool = descriptor_pool.Default()
    pool.AddSerializedFile(file.SerializeToString())
    return pool.FindFileByName(file.name)


def test_a_keyed_model_says_what_it_is_kept_and_found_by(shelves: Any) -> None:
    contract = shelves.make_context().contract
    book, reader = contract.models["Book"], contract.models["Reader"]
    assert (book.key, book.key_field, [event.name for event in book.folds]) == (
        "book",
        "book_id",
        ["BookLent", "BookReturned", "BooksBurnt"],
    )
    assert [(column.field, column.kind.value) for column in book.columns] == [
        ("book_id", "text"),
        ("status", "integer"),
        ("reader", "text"),
        ("lent_at", "time"),
        ("popular", "boolean"),
        ("times", "integer"),
    ]
    assert [column.kind.value for column in reader.columns] == ["natural", "natural"]
    assert contract.projections == {"Book": "shelves.v1", "Reader": "shelves.v1"}
    queries = {query.name: query for query in contract.queries.values()}
    assert (queries["GetBook"].row_field, queries["GetBook"].list_field) == ("book", "")
    assert (queries["ListBooks"].row_field, queries["ListBooks"].list_field) == ("", "books")
    assert [name for name, query in queries.items() if query.needs_code] == ["DescribeShelf"]
