"""The layout of the house: namespaces are open, rooms are typed, doors say what is behind them."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

from ceqs.cli._layout import layout_faults, portions_of

ROOT = Path(__file__).parents[3]
PORTIONS = ("server", "projectors", "clients/python", "generated/python")
ROOMS = sorted(path.parent for portion in PORTIONS for path in (ROOT / portion / "ceqs").glob("*/__init__.py"))


def write(root: Path, *files: str) -> None:
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).write_text("")


def test_the_layout_of_this_house_has_no_faults() -> None:
    assert layout_faults(ROOT / portion for portion in PORTIONS) == []


def test_the_namespaces_of_this_house_are_open() -> None:
    closed = [
        path
        for portion in PORTIONS
        for pattern in ("ceqs/__init__.py", "shop/__init__.py", "shop/*/__init__.py")
        for path in (ROOT / portion).glob(pattern)
        if path.parent.name != "demo"
    ]
    assert closed == []


def test_the_portions_are_found_on_the_import_path() -> None:
    assert {str(path.relative_to(ROOT)) for path in portions_of(ROOT)} >= set(PORTIONS)


def test_a_closed_namespace_is_named_with_what_it_hides(tmp_path: Path) -> None:
    write(tmp_path, "a/shop/__init__.py", "a/shop/cart.py", "b/shop/till.py")
    (fault,) = layout_faults([tmp_path / "a", tmp_path / "b"])
    assert str(tmp_path / "a/shop/__init__.py") in fault
    assert str(tmp_path / "b/shop") in fault


def test_a_closed_namespace_below_another_is_named(tmp_path: Path) -> None:
    write(tmp_path, "a/shop/orders/__init__.py", "b/shop/orders/tables.py")
    (fault,) = layout_faults([tmp_path / "a", tmp_path / "b"])
    assert str(tmp_path / "a/shop/orders/__init__.py") in fault


def test_a_module_in_two_portions_is_named_twice(tmp_path: Path) -> None:
    write(tmp_path, "a/shop/orders/tables.py", "b/shop/orders/tables.py")
    (fault,) = layout_faults([tmp_path / "a", tmp_path / "b"])
    assert str(tmp_path / "a/shop/orders/tables.py") in fault
    assert str(tmp_path / "b/shop/orders/tables.py") in fault


def test_a_module_and_a_package_of_one_name_are_named(tmp_path: Path) -> None:
    write(tmp_path, "a/shop/tables.py", "b/shop/tables/sales.py")
    (fault,) = layout_faults([tmp_path / "a", tmp_path / "b"])
    assert "are both shop.tables" in fault


def test_an_ordinary_package_in_one_portion_is_no_fault(tmp_path: Path) -> None:
    write(tmp_path, "a/shop/cart/__init__.py", "a/shop/cart/rows.py", "b/shop/till/__init__.py", "b/shop/till/rows.py")
    assert layout_faults([tmp_path / "a", tmp_path / "b"]) == []


@pytest.mark.parametrize("room", ROOMS, ids=lambda room: room.name)
def test_a_room_is_typed(room: Path) -> None:
    assert (room / "py.typed").exists()


@pytest.mark.parametrize("room", ROOMS, ids=lambda room: room.name)
def test_the_door_of_a_room_lists_what_it_gives(room: Path) -> None:
    door = importlib.import_module(f"ceqs.{room.name}")
    assert door.__all__ == sorted(set(door.__all__), key=_isort_key)
    assert [name for name in door.__all__ if not hasattr(door, name)] == []


@pytest.mark.parametrize("room", ROOMS, ids=lambda room: room.name)
def test_the_door_of_a_room_has_a_sentence_and_imports_only(room: Path) -> None:
    source = (room / "__init__.py").read_text()
    assert source.startswith('"""')
    assert re.search(r"^(def|class|async|if|for|try) ", source, re.MULTILINE) is None


def _isort_key(name: str) -> tuple[int, str]:
    """Order as ruff sorts `__all__`: constants, classes, the rest."""
    return (0 if name.isupper() else 1 if name[0].isupper() else 2, name)
