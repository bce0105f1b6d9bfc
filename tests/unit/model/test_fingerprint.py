"""The fingerprint of a fold: it changes with everything that decides what the fold makes of its events."""

from __future__ import annotations

import importlib
import itertools
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ceqs.model import Folder

FOLDS = '''
from decimal import Decimal
from functools import cached_property, lru_cache, partial
from lending import rules
from lending.names import clean as cleaned, Casing, UNUSED
from plain_rules import suffix

FACTOR = Decimal("1.50")
KINDS = {"novel", "poem", "essay"}

def times(book):
    return book.times_lent + STEP

STEP = 1

class Base:
    shelf = "a"

    def _helped(self, book):
        return times(book)

class BookFold(Base):
    """Folds a book."""

    version = 1

    def __init__(self, limit=3):
        self.limit = limit

    @cached_property
    def prefix(self):
        return "the"

    @property
    def mark(self):
        return "!"

    @staticmethod
    def fixed():
        return 7

    def on_book_acquired(self, book, event):
        """Hear of a book."""
        # A comment.
        book.title = cleaned(event.title, Casing.LOWER) + suffix() + self.mark + self.prefix
        if event.copy_id in {"x", "y"} or FACTOR > 2 or event.title in KINDS:
            book.title = rules.deep.title(event, default="none")

    def on_book_lent(self, book, event, bonus=0):
        parts = [part for part in event.member_id if part != "-"]
        book.times_lent = self._helped(book) + len(parts) + self.limit + bonus + self.fixed()
'''
FILES = {
    "lending/__init__.py": "",
    "lending/folds.py": FOLDS,
    "lending/rules/__init__.py": "from lending.rules import deep\n",
    "lending/rules/deep.py": (
        "def title(event, default):\n    return event.title or default\n\ndef other():\n    return 1\n"
    ),
    "lending/names.py": (
        "import enum\n\nUNUSED = 1\n\nclass Casing(enum.Enum):\n    LOWER = 'lower'\n\n"
        "def clean(text, casing):\n    return text.strip()\n"
    ),
    "plain_rules.py": "def suffix():\n    return ''\n",
}


class Project:
    """A project with a fold, whose files a test edits."""

    def __init__(self, directory: Path, library: Any) -> None:
        self.directory, self.library = directory, library
        for name, text in FILES.items():
            self.write(name, text)

    def write(self, name: str, text: str) -> None:
        file = self.directory / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def edit(self, name: str, old: str, new: str) -> None:
        text = (self.directory / name).read_text()
        assert old in text
        self.write(name, text.replace(old, new))

    def fold(self) -> Any:
        for name in [name for name in sys.modules if name.split(".")[0] in ("lending", "plain_rules")]:
            del sys.modules[name]
        importlib.invalidate_caches()
        return importlib.import_module("lending.folds").BookFold()

    def folder(self, fold: Any = None) -> Folder:
        fold = fold or self.fold()
        return Folder(
            self.library.contract.states["Book"],
            {"library.v1.BookAcquired": fold.on_book_acquired, "library.v1.BookLent": fold.on_book_lent},
        )

    def fingerprint(self) -> str:
        return self.folder().fingerprint


@pytest.fixture
def project(tmp_path: Path, library: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    monkeypatch.syspath_prepend(str(tmp_path))
    # A module that is written twice within a second would be taken from its bytecode.
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield Project(tmp_path, library)
    for name in [name for name in sys.modules if name.split(".")[0] in ("lending", "plain_rules")]:
        del sys.modules[name]


CHANGES = {
    "a statement of a method": ("lending/folds.py", "+ bonus + self.fixed()", "+ bonus - self.fixed()"),
    "a constant of a method": ("lending/folds.py", '{"x", "y"}', '{"x", "z"}'),
    "a nested function": ("lending/folds.py", 'part != "-"', 'part != "+"'),
    "a default of a method": ("lending/folds.py", "bonus=0", "bonus=1"),
    "a method of the class": ("lending/folds.py", "return 7", "return 8"),
    "a property": ("lending/folds.py", 'return "!"', 'return "?"'),
    "a cached property": ("lending/folds.py", 'return "the"', 'return "a"'),
    "an attribute of the instance": ("lending/folds.py", "limit=3", "limit=4"),
    "a method of the base class": ("lending/folds.py", "return times(book)", "return times(book) + 1"),
    "an attribute of the base class": ("lending/folds.py", 'shelf = "a"', 'shelf = "b"'),
    "a function that a helper calls": ("lending/folds.py", "book.times_lent + STEP", "book.times_lent - STEP"),
    "a constant of the module": ("lending/folds.py", "STEP = 1", "STEP = 2"),
    "a decimal of the module": ("lending/folds.py", '"1.50"', '"1.51"'),
    "a set of the module": ("lending/folds.py", '"essay"', '"drama"'),
    "a function of another module": ("lending/names.py", "text.strip()", "text.upper()"),
    "a member of an enum": ("lending/names.py", "'lower'", "'small'"),
    "a function that is reached through modules": ("lending/rules/deep.py", "event.title or default", "default"),
    "a function of another package of the project": ("plain_rules.py", "return ''", "return '.'"),
    "the version": ("lending/folds.py", "version = 1", "version = 2"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=list(CHANGES))
def test_a_change_of_the_folds_code_changes_it(project: Project, change: tuple[str, str, str]) -> None:
    before = project.fingerprint()
    project.edit(*change)
    assert project.fingerprint() != before


@pytest.mark.parametrize(
    "change",
    [
        ("lending/folds.py", "        # A comment.\n", "\n\n\n"),
        ("lending/folds.py", '"""Hear of a book."""', '"""Hear of a new book."""'),
        ("lending/folds.py", '"""Folds a book."""', '"""Folds one book."""'),
        ("lending/rules/deep.py", "return 1", "return 2"),
        ("lending/names.py", "UNUSED = 1", "UNUSED = 2"),
    ],
    ids=["a comment", "a docstring", "the docstring of the class", "an unused function", "an unused constant"],
)
def test_a_change_of_what_the_fold_does_not_do_leaves_it(project: Project, change: tuple[str, str, str]) -> None:
    before = project.fingerprint()
    project.edit(*change)
    assert project.fingerprint() == before


def test_a_fold_in_use_keeps_it(project: Project) -> None:
    folder = project.folder()
    before = folder.fingerprint
    folder.apply(project.library.Book(), project.library.BookLent(member_id="m"))
    assert folder.fingerprint == before


def test_it_is_the_same_in_every_process(project: Project) -> None:
    script = f"""
import sys
sys.path[:0] = {[str(project.directory), *sys.path]!r}
from types import SimpleNamespace
from google.protobuf.wrappers_pb2 import StringValue
from lending.folds import BookFold
from ceqs.model import Folder
state = SimpleNamespace(full_name="state", boundary=("book",), message=StringValue, folds=())
fold = BookFold()
print(Folder(state, {{"a": fold.on_book_acquired, "b": fold.on_book_lent}}).fingerprint)
"""
    found = {
        subprocess.run(
            [sys.executable, "-c", script],
            check=True,
            capture_output=True,
            text=True,
            env={"PYTHONHASHSEED": str(seed)},
        ).stdout
        for seed in (1, 2, 3)
    }
    assert len(found) == 1
    assert len(next(iter(found)).strip()) == 64


def _without_an_event(state: Any) -> Any:
    return replace(state, folds=state.folds[:1])


def _with_another_version(state: Any) -> Any:
    return replace(state, folds=(replace(state.folds[0], version=9), *state.folds[1:]))


def _with_another_event(state: Any) -> Any:
    return replace(state, folds=(replace(state.folds[0], message=state.folds[1].message), *state.folds[1:]))


def _with_another_boundary(state: Any) -> Any:
    return replace(state, boundary=("member",))


@pytest.mark.parametrize(
    "change", [_without_an_event, _with_another_version, _with_another_event, _with_another_boundary]
)
def test_a_change_of_the_contract_changes_it(project: Project, change: Callable[[Any], Any]) -> None:
    folder = project.folder()
    changed = Folder(change(folder.state), folder.methods)
    assert changed.fingerprint != folder.fingerprint


def test_how_a_state_is_tailored_is_no_part_of_it(project: Project) -> None:
    folder = project.folder()
    assert Folder(replace(folder.state, snapshot_every=1000), folder.methods).fingerprint == folder.fingerprint


def test_states_of_other_messages_have_another(library: Any) -> None:
    states = library.contract.states.values()
    found = [Folder(replace(state, boundary=(), folds=(), full_name=""), {}).fingerprint for state in states]
    assert all(one != other for one, other in itertools.combinations(found, 2))
