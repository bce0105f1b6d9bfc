"""Bears runs of the command line in milliseconds: it has imported what they need, and forks.

It is told in lines of JSON: {"arguments": [...], "cwd": "/x", "env": {...}, "stdout": "/y", "stderr": "/z"}. It answers
each with a line: the exit code of that run.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import pkgutil
import signal
import sys
import threading
from typing import Any, NoReturn

# As the command line does: see ceqs.cli._entry.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

import ceqs.cli

WITHIN = 60
"""Seconds that a run may take."""


def born(asked: dict[str, Any]) -> int:
    """Run the command line in a child; give its exit code, as subprocess does."""
    child = os.fork() or live(asked)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)


def live(asked: dict[str, Any]) -> NoReturn:
    """Be the command line."""
    code = 1
    try:
        for number, path in ((0, os.devnull), (1, asked["stdout"]), (2, asked["stderr"])):
            file = os.open(path, os.O_RDONLY if number == 0 else os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(file, number)
            os.close(file)
        os.chdir(asked["cwd"])
        os.environ.clear()
        os.environ.update(asked["env"])
        sys.argv = ["ceqs", *asked["arguments"]]
        sys.path[0] = asked["cwd"]
        signal.alarm(WITHIN)
        ceqs.cli.main()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:  # noqa: BLE001  # as the interpreter would
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def main() -> None:
    """Do what is asked until nobody asks."""
    for module in pkgutil.iter_modules(ceqs.cli.__path__):
        if module.name.startswith("_") and module.name not in ("__main__", "_template"):
            importlib.import_module(f"ceqs.cli.{module.name}")
    for needed in ("shop.orders.context", "shop.inventory.context", "ceqs.log._postgres", "ceqs.log._sqlite"):
        importlib.import_module(needed)
    assert threading.active_count() == 1, "a process with threads is not to be forked"
    gc.collect()
    gc.freeze()
    for line in sys.stdin:
        os.write(1, b"%d\n" % born(json.loads(line)))


if __name__ == "__main__":
    main()
