"""`ceqs new`: a whole project, or nothing and a reason."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ceqs.cli._new import write_project
from ceqs.errors import Misconfigured


def test_a_project_is_written_with_its_generated_code(tmp_path: Path) -> None:
    directory = write_project(tmp_path, "corner_shop")
    written = {str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file()}
    assert written >= {
        ".gitignore",
        "Makefile",
        "README.md",
        "pyproject.toml",
        "proto/corner_shop/v1/corner_shop.proto",
        "corner_shop/__init__.py",
        "corner_shop/context.py",
        "corner_shop/v1/corner_shop_ceqs.py",
        "corner_shop/v1/corner_shop_client.py",
        "tests/test_corner_shop.py",
    }
    assert not any("NAME" in name or name.endswith(".tmpl") for name in written)
    assert "corner_shop = CornerShopContext(" in (directory / "corner_shop/context.py").read_text()
    assert '{ printf "  make %-6s %s\\n", $$1, $$2 }' in (directory / "Makefile").read_text()


def test_an_empty_directory_may_be_there(tmp_path: Path) -> None:
    (tmp_path / "bakery").mkdir()
    assert (write_project(tmp_path, "bakery") / "pyproject.toml").exists()


def test_a_directory_that_is_not_empty_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "bakery").mkdir()
    (tmp_path / "bakery/bread").write_text("mine")
    with pytest.raises(Misconfigured, match="not empty"):
        write_project(tmp_path, "bakery")
    assert [path.name for path in (tmp_path / "bakery").iterdir()] == ["bread"]


@pytest.mark.parametrize("name", ["Bakery", "my-bakery", "1st", "class", "", "../up", "a" * 41, "bäckerei", "bakery_"])
def test_a_name_that_is_no_packages_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match="is no name for a context"):
        write_project(tmp_path, name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["queue", "ceqs", "grpc", "nats", "tests", "google"])
def test_a_name_that_is_taken_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match="there already"):
        write_project(tmp_path, name)
    assert list(tmp_path.iterdir()) == []


def test_a_failure_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_proto: Path, _out: Path) -> None:
        raise Misconfigured("no protoc")

    monkeypatch.setattr("ceqs.cli._new.generate", refuse)
    with pytest.raises(Misconfigured, match="no protoc"):
        write_project(tmp_path, "bakery")
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Misconfigured, match="cannot be written"):
        write_project(tmp_path / "file", "bakery")


def test_the_vocabulary_of_the_output_is_json_where_asked(tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from ceqs.cli._main import app

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        made = CliRunner().invoke(app, ["new", "bakery", "--output", "json"])
        again = CliRunner().invoke(app, ["new", "bakery", "--output", "json"])
    assert json.loads(made.stdout) == {"directory": str(tmp_path / "bakery")}
    assert again.exit_code == 2
    assert json.loads(again.stderr)["error"] == "MISCONFIGURED"
