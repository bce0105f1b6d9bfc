"""Where contexts are served, and each role of theirs."""

from __future__ import annotations

import pytest

from ceqs.cli._contexts import addresses_of
from ceqs.cli._roles import roles_of, serving_addresses
from ceqs.cli._settings import Settings
from ceqs.errors import Misconfigured
from ceqs.server import EVERY_ROLE, Role

NAMES = ["orders", "inventory"]


def test_queries_and_events_are_where_commands_are_unless_it_is_said() -> None:
    settings = Settings(query_addresses={"orders": "127.0.0.1:1"}, event_addresses={"inventory": "127.0.0.1:2"})
    assert addresses_of(settings, NAMES) == {"orders": "127.0.0.1:50051", "inventory": "127.0.0.1:50052"}
    assert addresses_of(settings, NAMES, "queries") == {"orders": "127.0.0.1:1", "inventory": "127.0.0.1:50052"}
    assert addresses_of(settings, NAMES, "events") == {"orders": "127.0.0.1:50051", "inventory": "127.0.0.1:2"}


@pytest.mark.parametrize(
    ("roles", "port"),
    [(EVERY_ROLE, 50051), ({Role.COMMANDS, Role.EVENTS}, 50051), ({Role.QUERIES, Role.EVENTS}, 1), ({Role.EVENTS}, 2)],
)
def test_a_process_listens_at_the_address_of_its_first_role(roles: set[Role], port: int) -> None:
    settings = Settings(query_addresses={"orders": "127.0.0.1:1"}, event_addresses={"orders": "127.0.0.1:2"})
    assert serving_addresses(settings, NAMES, roles)["orders"] == f"127.0.0.1:{port}"


def test_an_address_of_a_context_that_is_none_is_refused() -> None:
    with pytest.raises(Misconfigured, match="query_addresses: there is no context 'order'"):
        addresses_of(Settings(query_addresses={"order": "127.0.0.1:1"}), NAMES)


def test_no_role_and_all_are_every_role() -> None:
    assert roles_of([]) == roles_of(["all"]) == roles_of(["all", "queries"]) == EVERY_ROLE
    assert roles_of(["queries"]) == {Role.QUERIES}


def test_processes_that_only_read_take_the_url_for_reading() -> None:
    settings = Settings(store="postgres", database_url="postgresql://w@h/d", read_url="postgresql://r@h/d")
    assert settings.reading().log_url("orders") == "postgresql://r@h/d"
    assert settings.reading().models_url == "postgresql://r@h/d"
    assert settings.log_url("orders") == "postgresql://w@h/d"
    assert Settings(store="postgres", database_url="postgresql://w@h/d").reading().log_url("a") == "postgresql://w@h/d"
