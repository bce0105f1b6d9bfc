"""The wheel holds the platform, whole, and nothing of the shop."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def names(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    directory = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(directory)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = directory.glob("ceqs-*.whl")
    return zipfile.ZipFile(wheel).namelist()


def test_the_wheel_holds_every_room_with_its_type_marker(names: list[str]) -> None:
    for portion in ("server", "projectors", "clients/python"):
        for room in (ROOT / portion / "ceqs").glob("*/__init__.py"):
            assert f"ceqs/{room.parent.name}/__init__.py" in names
            assert f"ceqs/{room.parent.name}/py.typed" in names


def test_the_wheel_holds_the_contract_generated_and_as_protos(names: list[str]) -> None:
    protos = sorted(path.name for path in (ROOT / "proto/ceqs/v1").glob("*.proto"))
    for proto in protos:
        assert f"ceqs/_proto/ceqs/v1/{proto}" in names
        assert f"ceqs/v1/{proto.removesuffix('.proto')}_pb2.py" in names
    assert "buf/validate/validate_pb2.py" in names


def test_the_wheel_holds_what_new_projects_are_written_from(names: list[str]) -> None:
    assert "ceqs/cli/_template/proto/NAME/v1/NAME.proto.tmpl" in names


def test_the_wheel_holds_nothing_else(names: list[str]) -> None:
    tops = {name.partition("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"ceqs", "buf"}
    assert "ceqs/__init__.py" not in names
