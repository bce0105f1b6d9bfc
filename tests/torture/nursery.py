"""Bears server processes in milliseconds: `python -m tests.torture.nursery GENERATED`.

The campaign talks to it in lines of JSON:

    {"bear": "sqlite:////x/log.db", "port": 5001, "shared": false}  ->  {"born": 77}, and from the child, when it
                                                                        serves: {"serves": 77}
    {"kill": 77}                                                    ->  {"dead": 77}, once it is gone

It has imported everything and warmed it up, but made no gRPC object and kept no thread, so it may fork.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import importlib
import json
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, NoReturn

import uvloop

# What a server would import when it is needed.
import ceqs.log._postgres
import ceqs.log._sqlite  # noqa: F401
from ceqs.log import open_log
from ceqs.model import Context
from ceqs.server import CommandCall, CommandExecutor, Served, Server, ServerSettings, _lane

KEY = "the key of the tally"
PR_SET_PDEATHSIG = 1


def say(**what: object) -> None:
    """Tell the campaign. A line is shorter than what a pipe takes at once, so children may speak too."""
    os.write(1, json.dumps(what).encode() + b"\n")


async def serve(context: Context, url: str, port: int, *, shared: bool) -> None:
    """Serve until killed. Every other server decides a batch upon the one before as soon as three commands wait."""
    if os.getpid() % 2:
        vars(_lane)["MAX_BATCH_ENTRIES"] = 3
    log = await open_log(url, context.name)
    server = Server([Served(context, log)], ServerSettings(port=port, shared=shared, key=KEY))
    await server.start()
    say(serves=os.getpid())
    await asyncio.Event().wait()


async def warm_up(context: Context, messages: Any) -> None:
    """Do once, where nobody sees it, what takes long the first time."""
    with tempfile.TemporaryDirectory() as directory:
        log = await open_log(f"sqlite:///{directory}/log.db", context.name)
        executor = CommandExecutor(context, log)
        for rpc in context.contract.commands.values():
            fields = {"counter_ids": ["a", "b"]} if rpc.name == "Move" else {"counter_id": "a"}
            request = getattr(messages, f"{rpc.name}Request")(amount=1, **fields)
            await executor.execute(rpc, request, CommandCall(command_id=f"warm up {rpc.name}"))
        await log.read()
        await log.close()


def bear(context: Context, url: str, port: int, *, shared: bool) -> int:
    """Fork a server and give its process id."""
    parent = os.getpid()
    return os.fork() or live(serve(context, url, port, shared=shared), parent)


def live(life: Coroutine[Any, Any, None], parent: int) -> NoReturn:
    """Be a server."""
    try:
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() == parent:
            uvloop.run(life)
    except BaseException as error:  # noqa: BLE001  # this process has no other way to say so
        say(failed=os.getpid(), why=f"{type(error).__name__}: {error}")
    os._exit(1)


def main() -> None:
    """Do what is asked until nobody asks."""
    sys.path[:0] = [sys.argv[1], str(Path(__file__).parent)]
    context: Context = importlib.import_module("tally_context").make_context()
    asyncio.run(warm_up(context, importlib.import_module("tally.v1.tally_pb2")))
    assert threading.active_count() == 1, "a process with threads is not to be forked"
    gc.collect()
    gc.freeze()
    say(ready=os.getpid())
    for line in sys.stdin:
        asked = json.loads(line)
        if "bear" in asked:
            say(born=bear(context, asked["bear"], asked["port"], shared=asked["shared"]))
        else:
            os.kill(asked["kill"], signal.SIGKILL)
            os.waitpid(asked["kill"], 0)
            say(dead=asked["kill"])


if __name__ == "__main__":
    main()
