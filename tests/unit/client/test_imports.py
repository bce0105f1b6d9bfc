"""The client works where the server's libraries are absent."""

from __future__ import annotations

import subprocess
import sys

BLOCKED = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"sqlalchemy", "nats", "protovalidate", "structlog", "asyncpg", "typer"}:
            raise ModuleNotFoundError(f"blocked: {name}")
        if name in {"ceqs.log", "ceqs.model", "ceqs.server", "ceqs.queries", "ceqs.projectors", "ceqs.codegen"}:
            raise ModuleNotFoundError(f"blocked: {name}")

sys.meta_path.insert(0, Blocker())
"""
WORKS = """
import asyncio
from ceqs.client import ContextClient
from ceqs.errors import Unavailable

class C(ContextClient):
    ceqs_context = "c"
    ceqs_events = {}

async def main():
    async with C("127.0.0.1:1", timeout=0.2) as client:
        try:
            async for event in client.events():
                pass
        except Unavailable:
            print("works")

asyncio.run(main())
"""


def test_the_client_imports_neither_the_log_nor_the_servers_libraries() -> None:
    done = subprocess.run([sys.executable, "-c", BLOCKED + WORKS], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "works", done.stderr


def test_the_blocker_blocks() -> None:
    done = subprocess.run(
        [sys.executable, "-c", BLOCKED + "import sqlalchemy"], capture_output=True, text=True, check=False
    )
    assert "blocked: sqlalchemy" in done.stderr
