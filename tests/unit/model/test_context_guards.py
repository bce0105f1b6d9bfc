"""What stands before a command: the gatekeeper of its service, and the boundary that its handler tailors."""

from __future__ import annotations

from typing import Any

import pytest

from ceqs.errors import Misconfigured
from ceqs.model import (
    Boundary,
    Context,
    Gatekeeper,
    unheard,
)


class Gate(Gatekeeper):
    """As the generator writes it."""

    ceqs_service = "library.v1.LendingCommandsService"

    @unheard
    async def lend_book(self, request: Any, ctx: Any) -> None: ...


def test_a_gatekeeper_guards_what_it_overrides_and_nothing_else(kit: Any, library: Any) -> None:
    class Strict(Gate):
        async def lend_book(self, request: Any, ctx: Any) -> None: ...

    lend = next(rpc for rpc in library.contract.commands.values() if rpc.method == "lend_book")
    acquire = next(rpc for rpc in library.contract.commands.values() if rpc.method == "acquire_book")
    strict = Strict()
    assert kit.context(gatekeepers=[strict]).guard(lend) == strict.lend_book
    assert kit.context(gatekeepers=[strict]).guard(acquire) is None
    assert kit.context(gatekeepers=[Gate()]).guard(lend) is None


def test_a_misspelt_method_of_a_gatekeeper_is_refused_for_it_would_guard_nothing(kit: Any) -> None:
    class Misspelt(Gate):
        async def lend_bok(self, request: Any, ctx: Any) -> None: ...

    with pytest.raises(Misconfigured, match=r"Misspelt\.lend_bok belongs to no command .*; did you mean lend_book\?"):
        kit.context(gatekeepers=[Misspelt()])


def test_a_gatekeeper_that_does_not_wait_is_refused(kit: Any) -> None:
    class Sync(Gate):
        def lend_book(self, request: Any, ctx: Any) -> None:  # type: ignore[override]
            ...

    with pytest.raises(Misconfigured, match=r"Sync\.lend_book must be `async def`"):
        kit.context(gatekeepers=[Sync()])


def test_two_gatekeepers_of_one_service_are_refused(kit: Any) -> None:
    with pytest.raises(Misconfigured, match=r"two handlers for library\.v1\.LendingCommandsService"):
        kit.context(gatekeepers=[Gate(), Gate()])


# Boundaries


def boundary_of_loans(context: Context, library: Any) -> Boundary:
    request = library.LendBookRequest(book_id="b", member_ids=["m"])
    return context.boundary(context.contract.command_of(request), request)


def test_a_handler_tailors_the_boundary_of_a_command(kit: Any, library: Any) -> None:
    class Base(kit.Lending):  # type: ignore[misc]
        @unheard
        def lend_book_boundary(self, request: Any, boundary: Boundary) -> Boundary:
            raise AssertionError("nobody overrode it")

    class Narrow(Base):
        def lend_book_boundary(self, request: Any, boundary: Boundary) -> Boundary:
            return boundary.only(tags=[f"book:{request.book_id}", f"member:{request.member_ids[0]}"])

    assert boundary_of_loans(kit.context(commands=Base()), library).tags == ("book:b", "member:m")
    narrowed = boundary_of_loans(kit.context(commands=Narrow()), library)
    assert [item.tags for item in narrowed.query.items] == [{"book:b", "member:m"}]


@pytest.mark.parametrize("name", ["lent_book_boundary", "lend_book_boundry", "close_libary_boundary"])
def test_a_misspelt_boundary_is_refused_for_it_would_tailor_nothing(kit: Any, name: str) -> None:
    misspelt = type("Misspelt", (kit.Lending,), {name: lambda self, request, boundary: boundary})
    nearest = "close_library_boundary" if "close" in name else "lend_book_boundary"
    with pytest.raises(
        Misconfigured, match=rf"Misspelt\.{name} is the boundary of no command of .*; did you mean {nearest}\?"
    ):
        kit.context(commands=misspelt())


def test_helpers_of_a_handler_are_its_own_affair(kit: Any) -> None:
    class Helped(kit.Lending):  # type: ignore[misc]
        def is_late(self) -> bool:
            return False

        def _boundary(self) -> None: ...

    kit.context(commands=Helped())


def test_a_boundary_that_waits_is_refused(kit: Any) -> None:
    class Waiting(kit.Lending):  # type: ignore[misc]
        async def lend_book_boundary(self, request: Any, boundary: Boundary) -> Boundary:
            return boundary

    with pytest.raises(Misconfigured, match=r"Waiting\.lend_book_boundary must not be `async def`"):
        kit.context(commands=Waiting())


def test_a_handler_that_gives_no_boundary_is_refused_by_name(kit: Any, library: Any) -> None:
    class Forgetful(kit.Lending):  # type: ignore[misc]
        def lend_book_boundary(self, request: Any, boundary: Boundary) -> None: ...

    with pytest.raises(Misconfigured, match="lend_book_boundary gave None, which is no boundary of Loans"):
        boundary_of_loans(kit.context(commands=Forgetful()), library)
