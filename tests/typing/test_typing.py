"""Type checkers accept right use of what is generated and report each kind of wrong use."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ceqs.codegen import generate

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PORTIONS = [str(ROOT / portion) for portion in ("server", "projectors", "clients/python", "generated/python")]
USES = {
    path.name: path for path in (HERE / "right.py", HERE / "wrong.py", ROOT / "tests/unit/campus/campus_context.py")
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a directory that holds what the generator makes of every golden case and of the campus, and its uses."""
    directory = tmp_path_factory.mktemp("typing")
    protos = [*ROOT.glob("tests/golden/*/*.proto"), *ROOT.glob("tests/unit/campus/proto/**/*.proto")]
    for file in protos:
        package = re.findall(r"^package (\S+);", file.read_text(), re.MULTILINE)[0]
        place = directory.joinpath("proto", *package.split("."))
        place.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, place)
    generate(directory / "proto", directory / "out")
    for use in USES.values():
        shutil.copy(use, directory / "out")
    return directory / "out"


def checked(made: Path) -> list[str]:
    generated = sorted([*made.rglob("*_ceqs.py"), *made.rglob("*_client.py")])
    return [*USES, *(str(module.relative_to(made)) for module in generated)]


def compare(found: dict[str, list[str]]) -> None:
    """Hold what a checker said, by `file:line`, against the lines that are marked as wrong."""
    lines = (
        (name, number, line)
        for name, use in USES.items()
        for number, line in enumerate(use.read_text().splitlines(), 1)
    )
    wrong = {f"{name}:{number}": line for name, number, line in lines if "# wrong: " in line}
    assert {place: said for place, said in found.items() if place not in wrong} == {}
    assert {place: line for place, line in wrong.items() if place not in found} == {}


def test_mypy_reports_wrong_use_and_nothing_else(made: Path, tmp_path: Path) -> None:
    cache = tmp_path / "mypy"
    if (ROOT / ".mypy_cache").is_dir():
        # What `make lint` has found out about everything else.
        shutil.copytree(ROOT / ".mypy_cache", cache)
    options = ["--strict", "--namespace-packages", "--explicit-package-bases", "--no-error-summary"]
    done = subprocess.run(
        [sys.executable, "-m", "mypy", *options, f"--cache-dir={cache}", *checked(made)],
        capture_output=True,
        text=True,
        check=False,
        cwd=made,
        env={**os.environ, "MYPYPATH": os.pathsep.join([str(made), *PORTIONS])},
    )
    found: dict[str, list[str]] = {}
    for place, said in re.findall(r"^(.+?:\d+): error: (.*)$", done.stdout, re.MULTILINE):
        found.setdefault(place, []).append(said)
    compare(found)


def test_pyright_reports_wrong_use_and_nothing_else(made: Path) -> None:
    config = {
        "include": checked(made),
        "extraPaths": [".", *PORTIONS],
        "typeCheckingMode": "strict",
    }
    (made / "pyrightconfig.json").write_text(json.dumps(config))
    options = ["--pythonpath", sys.executable, "--outputjson"]
    done = subprocess.run(
        [sys.executable, "-m", "pyright", *options], capture_output=True, text=True, check=False, cwd=made
    )
    found: dict[str, list[str]] = {}
    for one in json.loads(done.stdout)["generalDiagnostics"]:
        place = f"{Path(one['file']).relative_to(made)}:{one['range']['start']['line'] + 1}"
        found.setdefault(place, []).append(one["message"])
    compare(found)
