"""Namespace portions that Python would lose in silence: closed namespaces, and modules of one name in two portions."""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path


def portions_of(project: Path, search_path: Iterable[str] = ()) -> list[Path]:
    """Give the directories of the import path (default: sys.path) that lie in a project, but in no environment."""
    roots = dict.fromkeys(Path(entry).resolve() for entry in search_path or sys.path)
    return [root for root in roots if root.is_relative_to(project.resolve()) and root.is_dir() and not _foreign(root)]


def layout_faults(roots: Iterable[Path]) -> list[str]:
    """Say, by file name, what Python would hide where a package has portions in several of the roots.

    A directory that several roots have is a namespace (PEP 420): an `__init__.py` in one of them hides the others, and
    of a module that two of them have only the first is ever imported.
    """
    return _faults([root for root in roots if root.is_dir()], "")


def _faults(portions: list[Path], package: str) -> list[str]:
    faults: list[str] = []
    modules: dict[str, list[Path]] = defaultdict(list)
    directories: dict[str, list[Path]] = defaultdict(list)
    for portion in portions:
        for entry in sorted(portion.iterdir()):
            if entry.suffix == ".py" and entry.stem != "__init__":
                modules[entry.stem].append(entry)
            elif entry.is_dir() and entry.name.isidentifier() and entry.name != "__pycache__" and not _foreign(entry):
                directories[entry.name].append(entry)
    for name, found in sorted(directories.items()):
        full_name = f"{package}{name}"
        if name in modules:
            faults += [f"{modules[name][0]} and {found[0]} are both {full_name}; rename one"]
        if len(found) > 1:
            for init in (directory / "__init__.py" for directory in found):
                if init.exists():
                    others = ", ".join(str(other) for other in found if other != init.parent)
                    faults += [f"{init} closes the namespace {full_name} and hides {others}; delete it"]
            faults += _faults(found, f"{full_name}.")
    for name, found in sorted(modules.items()):
        if len(found) > 1 and package:
            faults += [f"{found[0]} and {found[1]} are both {package}{name}; Python imports only one: rename the other"]
    return faults


def _foreign(directory: Path) -> bool:
    return any((parent / "pyvenv.cfg").exists() for parent in (directory, *directory.parents))


def main(project: Path) -> int:
    """Print the faults of a project's layout; give the exit code."""
    faults = layout_faults(portions_of(project))
    print(*faults, sep="\n", end="\n" if faults else "")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
