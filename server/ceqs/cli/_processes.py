"""`ceqs serve --processes N`: server processes behind the same addresses, kept alive by one that serves nothing.

One Python process answers what one core can. Several share a port by SO_REUSEPORT: the kernel spreads *connections*
among them, so it takes several connections to keep several processes busy. They need a log that several may write.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterable
from contextlib import ExitStack

import structlog

from ceqs.cli._contexts import choose, load_contexts
from ceqs.cli._roles import server_settings, serving_addresses
from ceqs.cli._settings import Settings
from ceqs.embedded import Supervisor
from ceqs.errors import Misconfigured
from ceqs.log import open_log
from ceqs.server import EVERY_ROLE, Role, reserved

_process_log = structlog.get_logger("ceqs.cli")


def check_processes(settings: Settings, roles: frozenset[Role] = EVERY_ROLE) -> None:
    """Raise Misconfigured where the settings want more processes than may write the log. Any number may read it."""
    if settings.processes > 1 and settings.store == "sqlite" and Role.COMMANDS in roles:
        raise Misconfigured(
            f"{settings.processes} server processes cannot share a log in SQLite, which one process writes; use "
            'store = "postgres" (CEQS_STORE) with a database_url, or processes = 1. Queries and events alone may be '
            "served by several (--role queries --role events)"
        )


async def serve_by_processes(settings: Settings, names: Iterable[str], output: str, roles: frozenset[Role]) -> None:
    """Serve contexts by as many processes as the settings say until cancelled; start again whichever dies.

    What is wrong for all of them is found here, before any of them starts.
    """
    check_processes(settings, roles)
    contexts = load_contexts(settings)
    addresses = serving_addresses(settings, list(contexts), roles)
    chosen = list(choose(contexts, names))
    with ExitStack() as ports:
        for name in chosen:
            if Role.COMMANDS in roles:
                # Whoever creates a log does it alone, and says in one line why it cannot.
                await (await open_log(settings.log_url(name), name)).close()
            listening = server_settings(settings, name, addresses[name])
            port = ports.enter_context(reserved(listening))
            addresses[name] = f"{addresses[name].rpartition(':')[0]}:{port}"
        command = [sys.executable, "-m", "ceqs.cli", "serve", *chosen, "--shared-port", "--output", output]
        for role in sorted(roles):
            command += ["--role", role]
        given = ",".join(f"{name}={address}" for name, address in addresses.items())
        # Whatever its roles are, a child listens where this process has taken the ports.
        env = {"CEQS_PROCESSES": "1"} | {f"CEQS_{kind}ADDRESSES": given for kind in ("", "QUERY_", "EVENT_")}
        async with Supervisor(_say, grace=settings.grace + 2, captured=False) as supervisor:
            for number in range(1, settings.processes + 1):
                await supervisor.start(f"server {number}", command, env=env)
            await asyncio.Event().wait()


def _say(name: str, line: str) -> None:
    _process_log.warning(line, process=name)
