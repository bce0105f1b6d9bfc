"""Contexts are found where the settings say, or the error says what is wrong there."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ceqs.cli._contexts import addresses_of, choose, load_context, load_contexts
from ceqs.cli._settings import Settings
from ceqs.errors import Misconfigured


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A module `wiring` to be written into."""
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path / "wiring.py"
    sys.modules.pop("wiring", None)


def refusal(where: str) -> str:
    with pytest.raises(Misconfigured) as refused:
        load_context(where)
    return refused.value.message


def test_the_contexts_of_the_shop_are_loaded_in_order() -> None:
    wired = ["shop.orders.context:orders", "shop.inventory.context:inventory"]
    assert list(load_contexts(Settings(contexts=wired))) == ["orders", "inventory"]


def test_no_contexts_are_refused_with_what_to_write() -> None:
    with pytest.raises(Misconfigured, match=r"contexts = \["):
        load_contexts(Settings())


def test_one_context_twice_is_refused() -> None:
    with pytest.raises(Misconfigured, match="second context named 'orders'"):
        load_contexts(Settings(contexts=["shop.orders.context:orders"] * 2))


def test_a_database_for_nobody_is_refused_with_the_nearest_name() -> None:
    settings = Settings(contexts=["shop.orders.context:orders"], model_urls={"Sale": "postgresql://a/b"})
    with pytest.raises(Misconfigured, match=r"model_urls: there is no .* 'Sale'; did you mean Sales\?"):
        load_contexts(settings)


def test_a_place_of_another_form_is_refused() -> None:
    assert refusal("shop.orders.context") == (
        "contexts: 'shop.orders.context' is not of the form package.module:attribute"
    )


def test_a_missing_module_is_named() -> None:
    assert "there is no module 'shop.ordrs'" in refusal("shop.ordrs.context:orders")


def test_a_missing_generated_module_says_to_generate(module: Path) -> None:
    module.write_text("from shop.orders.v1 import nothing_pb2")
    assert "shop.orders.v1" in refusal("wiring:context")
    sys.modules.pop("wiring", None)
    module.write_text("import wired_v1_pb2")
    assert refusal("wiring:context").endswith("there is no module 'wired_v1_pb2'; generate it: ceqs gen")


def test_a_missing_attribute_is_refused_with_those_that_are_there() -> None:
    assert "has no 'order'; its contexts: orders" in refusal("shop.orders.context:order")


def test_an_attribute_that_is_no_context_is_refused() -> None:
    assert "'shop.orders.context:Orders' is no context, but of type" in refusal("shop.orders.context:Orders")


@pytest.mark.parametrize(
    ("source", "what"),
    [
        ("x = 1\nraise ValueError('bad day')", "wiring.py:2: ValueError: bad day"),
        ("x = (", "wiring.py:1: SyntaxError: '(' was never closed"),
    ],
)
def test_a_module_that_fails_is_named_with_the_line(module: Path, source: str, what: str) -> None:
    module.write_text(source)
    assert what in refusal("wiring:context")


def test_contexts_are_chosen_by_name() -> None:
    assert list(choose({"a": 1, "b": 2}, [])) == ["a", "b"]
    assert choose({"a": 1, "b": 2}, ["b"]) == {"b": 2}
    with pytest.raises(Misconfigured, match="no context 'order'; did you mean orders"):
        choose({"orders": 1, "inventory": 2}, ["order"])


def test_contexts_get_ports_in_order_unless_they_have_addresses() -> None:
    settings = Settings(addresses={"b": "127.0.0.1:9"})
    assert addresses_of(settings, ["a", "b", "c"]) == {
        "a": "127.0.0.1:50051",
        "b": "127.0.0.1:9",
        "c": "127.0.0.1:50053",
    }
    with pytest.raises(Misconfigured, match="no context 'b'"):
        addresses_of(settings, ["a"])
