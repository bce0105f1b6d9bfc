"""What the generator makes of contracts, good and bad, with protoc really run.

`CEQS_UPDATE_GOLDEN=1 pytest tests/golden` writes what is expected anew.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from google.protobuf.compiler.plugin_pb2 import CodeGeneratorRequest

from ceqs.codegen import BadContract
from ceqs.codegen._image import build_image, protos_in
from ceqs.codegen.plugin import respond

HERE = Path(__file__).parent
UPDATE = bool(os.environ.get("CEQS_UPDATE_GOLDEN"))
ACCEPTED = sorted(path.parent.name for path in HERE.glob("*/in.proto"))
REFUSED = sorted(path.parent.name for path in HERE.glob("refused/*/in.proto"))
PACKAGE = re.compile(r"^package (\S+);", re.MULTILINE)


def problems_of(proto: Path) -> str:
    """Give what the plugin, or protoc before it, says of the protos in a directory."""
    files = protos_in(proto)
    try:
        image = build_image(proto, files)
    except BadContract as error:
        return str(error).replace(f"{proto}/", "")
    return respond(CodeGeneratorRequest(file_to_generate=files, proto_file=image.file)).error


@pytest.mark.parametrize("case", ACCEPTED)
def test_a_contract_makes_what_is_expected(case: str, made: Path) -> None:
    packages = {package for file in (HERE / case).glob("*.proto") for package in PACKAGE.findall(file.read_text())}
    modules = [file for package in packages for file in made.joinpath(*package.split(".")).glob("*.py")]
    ours = {file.name: file.read_text() for file in modules if file.name.endswith(("_ceqs.py", "_client.py"))}
    expected = HERE / case / "expected"
    if UPDATE:
        shutil.rmtree(expected, ignore_errors=True)
        expected.mkdir()
        for name, text in ours.items():
            (expected / name).write_text(text)
    assert ours == {file.name: file.read_text() for file in expected.glob("*.py")}


@pytest.mark.parametrize("case", REFUSED)
def test_a_bad_contract_is_refused_with_file_and_line(
    case: str, place: Callable[[Path, Path], Path], tmp_path: Path
) -> None:
    said = problems_of(place(HERE / "refused" / case, tmp_path))
    expected = HERE / "refused" / case / "expected.txt"
    if UPDATE:
        expected.write_text(f"{said}\n")
    assert f"{said}\n" == expected.read_text()
    for problem in said.splitlines():
        assert re.match(r"[\w/]+\.proto:[1-9]\d*:(\d+:)? \S", problem)


def test_what_is_made_is_formatted() -> None:
    # Long comments stay as they are: ruff's formatter leaves them, its linter would not.
    files = sorted(str(file) for file in HERE.glob("*/expected/*.py"))
    options = ["--check", "--isolated", "--line-length=120"]
    ruff = subprocess.run(
        [sys.executable, "-m", "ruff", "format", *options, *files], capture_output=True, text=True, check=False
    )
    assert ruff.returncode == 0, ruff.stdout
