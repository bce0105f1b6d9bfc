"""One run of the generator over all accepted cases, for the tests that look at what it made."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from ceqs.codegen import generate

HERE = Path(__file__).parent


@pytest.fixture(scope="session")
def place() -> Callable[[Path, Path], Path]:
    """Give a function that copies the protos of a case to where their packages belong, below a directory."""

    def placed(case: Path, proto: Path) -> Path:
        for file in sorted(case.glob("*.proto")):
            package = re.search(r"^package (\S+);", file.read_text(), re.MULTILINE)
            directory = proto.joinpath(*package[1].split(".")) if package else proto
            directory.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, directory)
        return proto

    return placed


@pytest.fixture(scope="session")
def made(place: Callable[[Path, Path], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a directory that holds what the generator makes of every accepted case."""
    directory = tmp_path_factory.mktemp("golden")
    for case in HERE.glob("*/in.proto"):
        place(case.parent, directory / "proto")
    generate(directory / "proto", directory / "out")
    return directory / "out"
