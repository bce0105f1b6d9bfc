"""Child processes that do not outlive their parent."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

# The child binds itself in a fresh interpreter before it becomes the program: a preexec_fn would run Python between
# fork and exec, where a lock that some other thread held stays locked for ever.
_BIND_AND_BECOME = """
import ctypes, os, signal, sys
PR_SET_PDEATHSIG = 1
if user := int(sys.argv[2]):  # before the binding, which a change of user undoes
    os.setgroups([])
    os.setgid(int(sys.argv[3]))
    os.setuid(user)
if ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL) != 0:
    sys.exit("prctl(PR_SET_PDEATHSIG) failed")
if os.getppid() != int(sys.argv[1]):  # it died before it could be heard of
    sys.exit("the parent process is gone")
os.execv(sys.argv[4], sys.argv[4:])
"""


def bound_to_parent(command: Sequence[str], *, user: int = 0, group: int = 0) -> list[str]:
    """Give the command that runs `command` (an absolute path and its arguments) and is killed when its parent dies.

    Linux only (see prctl(2), PR_SET_PDEATHSIG); elsewhere the command is given back as it is. The parent is the
    *thread* that starts the child: start it from one that lives as long as the child is wanted. Root may run the
    child as another user and group.
    """
    if sys.platform != "linux":
        return list(command)
    return [sys.executable, "-I", "-S", "-c", _BIND_AND_BECOME, str(os.getpid()), str(user), str(group), *command]
