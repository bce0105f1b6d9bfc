"""`ceqs new`: a project that runs, to be changed into one's own."""

from __future__ import annotations

import importlib.util
import keyword
import re
import shutil
import sys
from collections.abc import Iterator
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from string import Template

from ceqs.codegen import generate
from ceqs.errors import Misconfigured

SUFFIX = ".tmpl"
_NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")
_OURS = ("tests", "proto", "ceqs", "buf")


def write_project(parent: Path, name: str) -> Path:
    """Write the project NAME into a new directory of that name, and generate its code; give the directory.

    Raises Misconfigured for a name that is no Python package's or is taken, and for a directory that is not empty;
    nothing is left behind then.
    """
    _check_name(name)
    directory = parent / name
    try:
        if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
            raise Misconfigured(f"{directory} is there already and not empty; choose another name or place")
        made = not directory.exists()
        directory.mkdir(exist_ok=True)
    except OSError as error:
        raise Misconfigured(f"{directory} cannot be written: {error.strerror}") from error
    words = {"name": name, "Name": "".join(part.capitalize() for part in name.split("_"))}
    try:
        for path, text in _templates():
            target = directory / path.replace("NAME", name)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(Template(text).substitute(words), encoding="utf-8")
        generate(directory / "proto", directory)
    except BaseException:
        if made:
            shutil.rmtree(directory, ignore_errors=True)
        raise
    return directory


def _templates() -> Iterator[tuple[str, str]]:
    """Give path and text of each file to write; the names of hidden files lack their dot here."""

    def under(directory: Traversable, prefix: str) -> Iterator[tuple[str, str]]:
        for entry in sorted(directory.iterdir(), key=lambda one: one.name):
            if entry.is_dir():
                yield from under(entry, f"{prefix}{entry.name}/")
            elif entry.name.endswith(SUFFIX):
                name = entry.name.removesuffix(SUFFIX)
                yield prefix + (f".{name}" if name == "gitignore" else name), entry.read_text(encoding="utf-8")

    return under(files("ceqs.cli").joinpath("_template"), "")


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name) or keyword.iskeyword(name) or name.endswith("_"):
        raise Misconfigured(
            f"{name!r} is no name for a context: use a-z, 0-9 and _, a letter first, at most 40, no word of Python"
        )
    if name in _OURS or name in sys.stdlib_module_names or importlib.util.find_spec(name) is not None:
        raise Misconfigured(f"{name!r} is the name of a Python package that is there already; choose another")
